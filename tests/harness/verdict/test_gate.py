"""The gate: limits to verdicts, verdicts to an exit code."""

from __future__ import annotations

import math

import pytest

from harness.analysis.facts import errors_of
from harness.analysis.summary import summarise
from harness.errors import ExitCode
from harness.results import derive
from harness.scenario.limits import parse_limit
from harness.store.manifest import Manifest
from harness.verdict.gate import Group, Outcome, Verdict, exit_code, extra_statistics, judge, judge_all
from harness.verdict.reason import Level
from tests.fabricated import FabricatedTrial, again, cell_entry, failed, noisy, trial_entry, trial_of

KEYS = ("tiny", "simulated", "f16", "", "sustained")


def verdict_of(
    limit: str, *, validity: Level = Level.VALID, n: int = 600, missing: dict[str, str] | None = None
) -> Verdict:
    """One limit on a trial with a ttft p50 near 80 ms."""
    summary = summarise([FabricatedTrial(cell_entry(), trial_entry(), noisy(1, n))], extra_statistics([limit]))
    return judge_all([Group(KEYS, (limit,), validity, missing or {})], summary)[0]


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        ("ttft_ms p50 <= 100", Outcome.PASS),
        ("ttft_ms p50 <= 60ms", Outcome.FAIL),
        ("ttft_ms p75 <= 110", Outcome.PASS),
        ("tpot_service_ms p50 <= 20", Outcome.PASS),
        ("error_rate <= 0.01", Outcome.PASS),
        ("output_tokens_per_s >= 1000", Outcome.FAIL),
        ("load_s <= 30", Outcome.PASS),
        ("kl_mean <= 0.01", Outcome.CANNOT_TELL),
        ("gpu_memory_peak_share <= 0.8", Outcome.CANNOT_TELL),
        ("chat.ttft_ms p50 <= 100", Outcome.CANNOT_TELL),
        ("attainment >= 0.95", Outcome.CANNOT_TELL),
    ],
)
def test_limits_on_values(limit: str, outcome: Outcome) -> None:
    """A value passes or fails; a metric without a value never passes."""
    found = verdict_of(limit)
    assert found.outcome is outcome
    assert math.isnan(found.value) is (outcome is Outcome.CANNOT_TELL)
    assert found.sentence.endswith(".")


@pytest.mark.parametrize(
    ("limit", "n", "outcome"),
    [
        ("ttft_ms p95 <= 1000", 30, Outcome.PASS),
        ("ttft_ms p95 <= 40", 30, Outcome.FAIL),
        ("ttft_ms p95 >= 40", 30, Outcome.PASS),
    ],
)
def test_limits_on_bounds(limit: str, n: int, outcome: Outcome) -> None:
    """A bound decides where it can, whichever way the limit points."""
    assert verdict_of(limit, n=n).outcome is outcome


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        ("ttft_ms p95 <= 1000", Outcome.PASS),
        ("ttft_ms p95 > 1000", Outcome.FAIL),
        ("ttft_ms p95 <= 150", Outcome.CANNOT_TELL),
        ("ttft_ms p95 <= 40", Outcome.FAIL),
    ],
)
def test_limits_on_upper_bounds(limit: str, outcome: Outcome) -> None:
    """Of p95 it is only known that it lies between 50 and 200 ms."""
    row = {"value": math.nan, "low": 50.0, "high": 200.0, "bound": "upper", "n": 65, "unit": "ms"}
    rows = {(*KEYS, "all", "ttft_ms", "p95"): row}
    assert judge(parse_limit(limit), Group(KEYS, (limit,), Level.VALID, {}), rows).outcome is outcome


def test_the_reason_of_a_missing_value_is_told() -> None:
    """The verdict repeats why there is no number."""
    found = verdict_of("kl_mean <= 0.01", missing={"kl_mean": "nobody asked"})
    assert found.sentence == "kl_mean has no value: nobody asked."


def test_an_invalid_trial_decides_nothing() -> None:
    """Neither pass nor fail comes from a measurement that is not one."""
    assert verdict_of("ttft_ms p50 <= 100", validity=Level.INVALID).outcome is Outcome.INVALID


def test_a_limit_within_the_interval_is_said() -> None:
    """The verdict is the value's, with a word on chance."""
    value = verdict_of("ttft_ms p50 <= 1000").value
    assert "chance may decide" in verdict_of(f"ttft_ms p50 <= {value + 0.01:.4f}").sentence


def verdict(outcome: Outcome, level: str = "f16") -> Verdict:
    """A verdict with this outcome."""
    return Verdict("ttft_ms p50 <= 1", "ttft_ms", ("m", "e", level, "", "l"), outcome, 1.0, 1.0, 1.0, 9, "It is so.")


@pytest.mark.parametrize(
    ("outcomes", "validity", "failed_cells", "code"),
    [
        ([], Level.VALID, 0, ExitCode.HOLDS),
        ([Outcome.PASS], Level.WARN, 0, ExitCode.HOLDS),
        ([Outcome.PASS, Outcome.FAIL], Level.VALID, 0, ExitCode.LIMIT_BROKEN),
        ([Outcome.CANNOT_TELL], Level.VALID, 0, ExitCode.CANNOT_TELL),
        ([Outcome.FAIL, Outcome.CANNOT_TELL], Level.VALID, 0, ExitCode.LIMIT_BROKEN),
        ([Outcome.FAIL], Level.INVALID, 0, ExitCode.INVALID),
        ([Outcome.FAIL], Level.INVALID, 1, ExitCode.TRIAL_FAILED),
    ],
)
def test_exit_codes(outcomes: list[Outcome], validity: Level, failed_cells: int, code: ExitCode) -> None:
    """The first that applies of 3, 4, 1, 6."""
    verdicts = [verdict(outcome) for outcome in outcomes]
    assert exit_code(verdicts, [validity], decide="all", failed_cells=failed_cells) is code


def test_a_choice_needs_one_that_holds() -> None:
    """With `decide: any` one level that passes every limit is enough, whatever the others do."""
    mixed = [verdict(Outcome.PASS, "q4"), verdict(Outcome.PASS, "q4"), verdict(Outcome.PASS), verdict(Outcome.FAIL)]
    assert exit_code(mixed, [Level.VALID, Level.INVALID], decide="any", failed_cells=0) is ExitCode.HOLDS
    assert exit_code(mixed[2:], [Level.VALID], decide="any", failed_cells=0) is ExitCode.LIMIT_BROKEN


def test_results_of_a_whole_run() -> None:
    """From a manifest and its trials to verdicts and exit code; a failed cell makes it 3 and its limits cannot be
    told.
    """
    limits = ["ttft_ms p50 <= 100", "error_rate <= 0.01"]
    good = FabricatedTrial(cell_entry(), trial_entry(limits=limits), noisy(1))
    bad = FabricatedTrial(
        cell_entry(id="001-broken", level="q4", status="failed", reason="no such file"),
        trial_entry(status="failed", reason="the engine did not start", limits=limits),
    )
    cells = [again(one.cell, trials=[one.trial]) for one in (good, bad)]
    cells.append(cell_entry(id="002-skip", level="q2", status="skipped", reason="no such level", trials=[]))
    found = derive(Manifest(status="complete", cells=cells), [good])
    assert [v.outcome.value for v in found.verdicts] == ["pass", "pass", "cannot_tell", "cannot_tell"]
    assert found.verdicts[2].sentence == "ttft_ms has no value: the trial failed."
    assert found.exit_code is ExitCode.TRIAL_FAILED
    assert found.validity[("001-broken", "000-sustained")].verdict is Level.INVALID


def test_errors_are_told_with_the_moment_they_began() -> None:
    """Texts that differ in numbers are one kind; the report knows when it began and that nothing succeeded since."""
    records = noisy(1, 100)
    records[60:] = [
        failed(i, i * 100.0, "connection_error", 2, error=f"refused by 127.0.0.1:{9000 + i}") for i in range(60, 100)
    ]
    trial = FabricatedTrial(cell_entry(), trial_entry(), records)
    found = derive(Manifest(status="complete", cells=[again(trial.cell, trials=[trial.trial])]), [trial])
    (error,) = next(iter(found.facts.values()))["errors"]
    assert (error["requests"], error["first_s"], error["ended"]) == (40, 6.002, True)
    assert error["example"] == "refused by 127.0.0.1:9060"


def test_extra_statistics_are_those_of_the_limits() -> None:
    """Only what has a distribution needs a statistic."""
    assert extra_statistics(["ttft_ms_service p99.9 <= 1", "error_rate <= 1"]) == {("ttft_service_ms", "p99.9")}
    assert parse_limit("error_rate <= 1").statistic is None


def test_load_that_was_cut_off_after_the_window_is_no_error() -> None:
    """Cooldown requests still in flight at the end did not fail."""
    records = noisy(1, 100)
    records[-1] = failed(99, 9900.0, "unfinished", 20, phase="cooldown")
    assert errors_of(FabricatedTrial(cell_entry(), trial_entry(), records).records()) == []


def test_errors_say_how_many_of_them_were_measured() -> None:
    """Those of warm-up and cooldown are listed, too, and are in no error rate; so are those whom the plan gives up."""
    records = noisy(1, 100)
    for i, phase in ((3, "warmup"), (4, "measure"), (5, "measure"), (98, "cooldown"), (99, "cooldown")):
        records[i] = failed(i, i * 100.0, "http_error", 5, http_status=500, error="no", phase=phase)
    records[6] = failed(6, 600.0, "rejected", 5, http_status=429, error="later", phase="warmup")
    told = [(one["requests"], one["measured"]) for one in errors_of(trial_of(records).records())]
    assert told == [(5, 2), (1, 0)]
