"""The gate: limits to verdicts, verdicts to an exit code."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.facts import errors_of
from harness.analysis.summary import summarise
from harness.errors import ExitCode
from harness.results import _exit_code, derive
from harness.scenario.limits import parse_limit
from harness.store.manifest import Manifest
from harness.verdict.limits.gate import (
    Board,
    Group,
    Verdict,
    exit_code,
    extra_statistics,
    judge,
    judge_all,
    name_of,
    open_limits,
)
from harness.verdict.limits.held import Held, Outcome
from harness.verdict.reason import Level, Reason, Validity
from tests.fabricated import FabricatedTrial, again, cell_entry, failed, noisy, trial_entry, trial_of

KEYS = ("tiny", "simulated", "f16", "", "sustained")


VALID = Validity.of([])


def verdict_of(limit: str, *doubts: Reason, n: int = 600, missing: dict[str, str] | None = None) -> Verdict:
    """One limit on a trial with a ttft p50 near 80 ms."""
    summary = summarise([FabricatedTrial(cell_entry(), trial_entry(), noisy(1, n))], extra_statistics([limit]))
    return judge_all([Group(KEYS, (limit,), Validity.of(doubts), missing or {})], summary)[0]


def on_row(limit: str, *, strict: bool = False, **row: Any) -> Verdict:
    """One limit on a row of a summary, a p95 of ttft where nothing else is said."""
    known = {"value": 746.0, "low": 480.0, "high": 1010.0, "bound": "point", "n": 65, "unit": "ms"} | row
    parsed = parse_limit(limit)
    key = (*KEYS, "all", "pooled", name_of(parsed), parsed.statistic or "value")
    return judge(parsed, Group(KEYS, (limit,), VALID, {}), Board({key: known}, strict=strict))


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
    ("limit", "outcome", "certainty"),
    [
        ("ttft_ms p95 <= 500", Outcome.FAIL, "likely"),
        ("ttft_ms p95 <= 400", Outcome.FAIL, "sure"),
        ("ttft_ms p95 <= 1s", Outcome.PASS, "likely"),
        ("ttft_ms p95 <= 1100", Outcome.PASS, "sure"),
        ("ttft_ms p95 >= 500", Outcome.PASS, "likely"),
        ("ttft_ms p95 > 400", Outcome.PASS, "sure"),
        ("ttft_ms p95 > 1100", Outcome.FAIL, "sure"),
    ],
)
def test_the_value_decides_and_the_interval_says_how_surely(limit: str, outcome: Outcome, certainty: str) -> None:
    """Sure: the whole interval is on the value's side of the limit, whichever way that points."""
    found = on_row(limit)
    assert (found.outcome, found.certainty) == (outcome, certainty)
    strictly = on_row(limit, strict=True)
    assert strictly.outcome is (outcome if certainty == "sure" else Outcome.CANNOT_TELL)


@given(
    *[st.floats(0.1, 1e4)] * 3,
    st.sampled_from(["<=", "<", ">=", ">"]),
    st.sampled_from([math.nan, math.inf, 0.0]),
)
def test_a_sure_verdict_is_that_of_every_number_in_the_interval(
    value: float, below: float, bound: float, op: str, high: float
) -> None:
    """And an end that is open or unknown on the other side never makes it sure."""
    high = high if high else value + below
    held = Held(op, bound, value, value - below, high)
    if held.certainty == "sure":
        ends = [end for end in (held.low, value, high) if math.isfinite(end)]
        assert {Held(op, bound, end).outcome for end in ends} == {held.outcome}
    if not math.isfinite(high):
        side = Outcome.PASS if op[0] == "<" else Outcome.FAIL
        assert held.certainty != "sure" or held.outcome is not side


@pytest.mark.parametrize(
    ("limit", "row", "sentence"),
    [
        ("ttft_ms p95 <= 500", {}, "ttft_ms p95 is 746 ms (likely; 95 % interval 480 to 1,010 ms, limit 500 ms)."),
        ("ttft_ms p95 <= 500", {"low": -math.inf, "high": math.nan}, "ttft_ms p95 is 746 ms (likely; too few "
         "observations for an interval, limit 500 ms)."),
        ("ttft_ms p95 <= 500", {"high": math.inf}, "ttft_ms p95 is 746 ms (likely; 95 % interval from 480 ms, limit "
         "500 ms)."),
        ("error_rate <= 1%", {"value": 0.004, "low": 0.001, "high": 0.009}, "error_rate is 0.4 % (sure; 95 % interval "
         "0.1 to 0.9 %, limit 1 %)."),
        ("rss_peak_bytes <= 2GiB", {"value": 3 * 2.0**30, "low": math.nan, "high": math.nan}, "rss_peak_bytes is 3 GiB "
         "(limit 2 GiB)."),
        ("rss_peak_bytes <= 2GiB", {"value": 2.15e9, "low": math.nan, "high": math.nan}, "rss_peak_bytes is "
         "2,150,000,000 bytes (limit 2 GiB)."),
        ("rss_peak_bytes <= 16GB", {"value": 1.5e10, "low": math.nan, "high": math.nan}, "rss_peak_bytes is 14 GiB "
         "(limit 16 GB)."),
        ("errors <= 3 per 5m", {"value": 1.0, "low": 1.0, "high": math.inf}, "errors per 300s is 1 (likely; less "
         "time was measured, limit 3)."),
        ("ttft_ms max <= 900", {"low": math.nan, "high": math.nan}, "ttft_ms max is 746 ms (limit 900 ms)."),
        ("ttft_ms p95 <= 900", {"value": math.nan, "high": math.inf}, "ttft_ms p95 is known only as at least 480 ms "
         "(65 observations, limit 900 ms): more observations, or a longer time-out, would tell."),
        ("ttft_ms p95 <= 400", {"value": math.nan, "high": math.inf}, "ttft_ms p95 is known only as at least 480 ms "
         "(65 observations, limit 400 ms)."),
    ],
)  # fmt: skip
def test_the_sentence_has_the_value_its_interval_and_the_limit(limit: str, row: dict[str, Any], sentence: str) -> None:
    """In the unit of the metric, as far as they are known."""
    assert on_row(limit, **row).sentence == sentence


def test_a_strict_verdict_says_why_it_cannot_tell() -> None:
    """And what to do."""
    found = on_row("ttft_ms p95 <= 500", strict=True)
    assert found.sentence == (
        "ttft_ms p95 is 746 ms (not sure; 95 % interval 480 to 1,010 ms, limit 500 ms); measure for longer to be sure."
    )


@pytest.mark.parametrize(
    "limit",
    ["ttft_ms max <= 900", "load_s <= 900", "first_request_ms <= 900", "weight_bytes <= 900", "preemptions <= 900"],
)
def test_a_fact_without_an_interval_is_judged_by_its_value_even_strictly(limit: str) -> None:
    """The largest latency of a run, the time of its only start, or a count, is what it is."""
    found = on_row(limit, strict=True, low=math.nan, high=math.nan)
    assert (found.outcome, found.certainty) == (Outcome.PASS, "")


def test_several_starts_are_an_estimate() -> None:
    """Their times have an interval, and it decides how surely a limit holds."""
    assert on_row("load_s <= 900").certainty == "likely"
    assert on_row("load_s <= 900", strict=True).outcome is Outcome.CANNOT_TELL


@pytest.mark.parametrize(
    ("limit", "low", "high", "outcome"),
    [
        ("ttft_ms p95 <= 400", 480.0, math.inf, Outcome.FAIL),
        ("ttft_ms p95 <= 1000", 480.0, math.inf, Outcome.CANNOT_TELL),
        ("ttft_ms p95 >= 400", 480.0, math.inf, Outcome.PASS),
        ("ttft_ms p95 <= 1000", 50.0, 200.0, Outcome.PASS),
        ("ttft_ms p95 > 1000", 50.0, 200.0, Outcome.FAIL),
        ("ttft_ms p95 <= 150", 50.0, 200.0, Outcome.CANNOT_TELL),
        ("ttft_ms p95 <= 40", 50.0, 200.0, Outcome.FAIL),
    ],
)
def test_a_censored_value_is_judged_by_what_it_is_known_to_be_beyond(
    limit: str, low: float, high: float, outcome: Outcome
) -> None:
    """Where that decides; one time-out among few requests makes nothing sure."""
    found = on_row(limit, value=math.nan, low=low, high=high)
    assert found.outcome is outcome
    assert found.certainty == ("" if outcome is Outcome.CANNOT_TELL else "likely")


def test_the_reason_of_a_missing_value_is_told() -> None:
    """The verdict repeats why there is no number."""
    found = verdict_of("kl_mean <= 0.01", missing={"kl_mean": "nobody asked"})
    assert found.sentence == "kl_mean has no value: nobody asked."


NO_TOKENS = Reason("token_counts", Level.INVALID, "Replies have 40 tokens in 10 chunks.", metrics=("tpot_ms",))
LATE = Reason("client_late", Level.INVALID, "The client sent 80 ms late.", metrics=("ttft_ms", "e2e_ms"))
MISSING = Reason("load_missing", Level.INVALID, "3 % of the requests were never sent.")
ERRORS = Reason("errors", Level.INVALID, "60 % of the requests failed.", metrics=("ttft_ms",))


@pytest.mark.parametrize(
    ("limit", "doubt", "outcome"),
    [
        ("tpot_ms p50 <= 20", NO_TOKENS, Outcome.INVALID),
        ("ttft_ms p50 <= 100", NO_TOKENS, Outcome.PASS),
        ("ttft_ms p50 <= 100", LATE, Outcome.INVALID),
        ("tpot_ms p50 <= 20", LATE, Outcome.INVALID),
        ("tpot_ms p50 <= 20", MISSING, Outcome.INVALID),
        ("error_rate <= 0.01", LATE, Outcome.PASS),
        ("errors <= 10 per 5s", MISSING, Outcome.PASS),
        ("load_s <= 30", MISSING, Outcome.PASS),
        ("ttft_ms p50 <= 100", replace(LATE, level=Level.WARN), Outcome.PASS),
    ],
)
def test_only_a_doubt_about_its_metric_or_a_wrong_load_makes_a_limit_invalid(
    limit: str, doubt: Reason, outcome: Outcome
) -> None:
    """A limit on errors, a start or memory is never hit by a doubt about latency."""
    found = verdict_of(limit, doubt)
    assert found.outcome is outcome
    assert math.isfinite(found.value)


def test_an_invalid_limit_shows_its_number_with_the_reason() -> None:
    """No number is hidden."""
    found = verdict_of("ttft_ms p50 <= 100", LATE)
    assert re.fullmatch(r"ttft_ms p50 \([0-9.]+ ms\) is invalid: The client sent 80 ms late\.", found.sentence)


def test_a_limit_on_errors_judges_them_in_place_of_the_doubt() -> None:
    """The load failed only where nobody said what errors are acceptable."""
    groups = [Group(KEYS, limits, Validity.of([ERRORS]), {}) for limits in ((), ("error_rate <= 0.7",))]
    assert [group.load_failed for group in groups] == [ERRORS, None]
    assert Group(KEYS, (), Validity.of([NO_TOKENS]), {}).load_failed is None


def test_a_limit_that_the_interval_leaves_open_is_a_note() -> None:
    """Under the row that it was judged on, and no doubt."""
    likely, sure = on_row("ttft_ms p95 <= 500"), on_row("ttft_ms p95 <= 400")
    ((keys, (note,)),) = open_limits([likely, sure]).items()
    assert (keys, note.code, note.level, note.metrics) == (KEYS, "limit_open", Level.VALID, ("ttft_ms",))
    assert note.sentence == f"`ttft_ms p95 <= 500`: {likely.sentence}"


def verdict(outcome: Outcome, level: str = "f16") -> Verdict:
    """A verdict with this outcome."""
    return Verdict("ttft_ms p50 <= 1", "ttft_ms", ("m", "e", level, "", "l"), outcome, 1.0, 1.0, 1.0, 9, "It is so.")


@pytest.mark.parametrize(
    ("outcomes", "load_failed", "failed_cells", "code"),
    [
        ([], False, 0, ExitCode.HOLDS),
        ([], True, 0, ExitCode.INVALID),
        ([Outcome.PASS], False, 0, ExitCode.HOLDS),
        ([Outcome.PASS, Outcome.FAIL], False, 0, ExitCode.LIMIT_BROKEN),
        ([Outcome.CANNOT_TELL], False, 0, ExitCode.CANNOT_TELL),
        ([Outcome.FAIL, Outcome.CANNOT_TELL], False, 0, ExitCode.LIMIT_BROKEN),
        ([Outcome.FAIL, Outcome.INVALID], False, 0, ExitCode.INVALID),
        ([Outcome.FAIL], True, 0, ExitCode.INVALID),
        ([Outcome.FAIL], True, 1, ExitCode.TRIAL_FAILED),
    ],
)
def test_exit_codes(outcomes: list[Outcome], load_failed: bool, failed_cells: int, code: ExitCode) -> None:
    """The first that applies of 3, 4, 1, 6."""
    verdicts, failed_loads = [verdict(outcome) for outcome in outcomes], [KEYS] * load_failed
    assert exit_code(verdicts, failed_loads, decide="all", failed_cells=failed_cells) is code


def test_a_choice_needs_one_that_holds() -> None:
    """With `decide: any` one level that passes every limit is enough, whatever the others do; not one whose load was
    not the planned one.
    """
    mixed = [verdict(Outcome.PASS, "q4"), verdict(Outcome.PASS, "q4"), verdict(Outcome.PASS), verdict(Outcome.FAIL)]
    assert exit_code(mixed, [KEYS], decide="any", failed_cells=0) is ExitCode.HOLDS
    assert exit_code(mixed[2:], [], decide="any", failed_cells=0) is ExitCode.LIMIT_BROKEN
    assert exit_code(mixed, [mixed[0].keys], decide="any", failed_cells=0) is ExitCode.INVALID


def test_an_invalid_metric_that_no_limit_names_does_not_fail_the_run() -> None:
    """The exit code is 4 only where the load was wrong, or a limit asked for that metric."""
    groups = [Group(KEYS, (), Validity.of([NO_TOKENS]), {})]
    complete = Manifest(status="complete", cells=[cell_entry(trials=[trial_entry()])])
    assert _exit_code(complete, [], groups) is ExitCode.HOLDS
    asked = [verdict_of("tpot_ms p50 <= 20", NO_TOKENS)]
    assert _exit_code(complete, asked, groups) is ExitCode.INVALID


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
