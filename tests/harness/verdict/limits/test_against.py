"""Limits against a variant."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from harness.errors import ExitCode
from harness.results import Results, derive
from harness.scenario.limits import parse_limit
from harness.store.manifest import CellEntry, Manifest
from harness.verdict.limits.against import base_keys, ratio_to
from harness.verdict.limits.gate import Verdict
from harness.verdict.limits.held import Outcome
from tests.fabricated import FabricatedTrial, again, cell_entry, failed, noisy, trial_entry

P95 = "ttft_ms p95 <= 1.10 * base"


def judged(limit: str, *, repetitions: int = 1, requests: int = 600, alike: bool = True) -> Verdict:
    """A limit on `head`, which is slower than `base`; `alike`: the same requests take alike long."""
    trials = []
    for repetition in range(1, repetitions + 1):
        for number, (variant, factor) in enumerate((("base", 1.0), ("head", 1.2))):
            name = f"{repetition}-{variant}"
            records = noisy(repetition if alike else 10 * repetition + number, requests, slower=factor)
            cell = cell_entry(id=name, variant=variant, repetition=repetition)
            trials.append(FabricatedTrial(cell, trial_entry(limits=[limit]), records))
    return of(trials)


def of(trials: list[FabricatedTrial], strict: bool = False) -> Verdict:
    """The only verdict of a run on a limit against the base."""
    found = results(trials, {"limits_confidence": "95%"} if strict else {}).verdicts
    (verdict,) = (one for one in found if "base" in one.limit)
    return verdict


def results(trials: list[FabricatedTrial], keys: dict[str, Any]) -> Results:
    """What a run of these trials finds."""
    cells: list[CellEntry] = [again(one.cell, trials=[one.trial]) for one in trials]
    return derive(Manifest(status="complete", cells=cells, scenario=keys), trials)


def test_a_slower_variant_breaks_the_limit_for_sure() -> None:
    """The sentence has the value, the ratio with its interval, and that a restart may differ."""
    found = judged(P95)
    assert (found.outcome, found.certainty, found.keys[3]) == (Outcome.FAIL, "sure", "head")
    value, base = found.value, found.bound / 1.1
    assert value / base == pytest.approx(1.2)
    assert found.sentence == (
        f"ttft_ms p95 is {value:.4g} ms, 1.20 * base [1.20, 1.20], limit 1.10 * base (sure); "
        "one start each: a restart may differ."
    )


@pytest.mark.parametrize("metric", ["ttft_ms p50", "ttft_ms p95", "tpot_ms p50", "icl_ms p95", "e2e_ms mean"])
@pytest.mark.parametrize("requests", [100, 400])
def test_a_variant_a_fifth_slower_never_passes(metric: str, requests: int) -> None:
    """Of however few requests."""
    found = judged(f"{metric} <= 1.10 * base", requests=requests)
    assert found.outcome is Outcome.FAIL
    assert "1.20 * base" in found.sentence


def test_a_rate_is_held_to_its_base() -> None:
    """From both intervals, where there is nothing to pair."""
    found = judged("output_tokens_per_s_per_user p50 >= 0.9 * base")
    assert (found.outcome, found.certainty) == (Outcome.FAIL, "sure")
    rate = judged("completed_rps >= 0.9 * base")
    assert rate.outcome is Outcome.PASS
    assert "1.00 * base [" in rate.sentence


def test_three_repetitions_are_compared_by_starts() -> None:
    """Then how much a restart changes is in the interval."""
    found = judged(P95, repetitions=3)
    assert (found.outcome, found.certainty) == (Outcome.FAIL, "sure")
    assert "restart" not in found.sentence


def test_a_ratio_near_the_limit_is_only_likely_and_strictly_unknown() -> None:
    """Other requests, and nearly the bound."""
    assert judged("ttft_ms p95 <= 1.19 * base", alike=False).certainty == "likely"
    trials = [
        FabricatedTrial(cell_entry(id=name, variant=name), trial_entry(limits=["ttft_ms p95 <= 1.19 * base"]), records)
        for name, records in (("base", noisy(10)), ("head", noisy(11, slower=1.2)))
    ]
    found = of(trials, strict=True)
    assert found.outcome is Outcome.CANNOT_TELL
    assert found.sentence.endswith("(not sure); one start each: a restart may differ; measure for longer to be sure.")


def test_a_base_that_failed_cannot_be_compared_with() -> None:
    """The sentence says why."""
    broken = trial_entry(status="failed", reason="no memory", limits=[P95])
    base = FabricatedTrial(cell_entry(id="0", variant="base", status="failed", reason="no memory"), broken)
    head = FabricatedTrial(cell_entry(id="1", variant="head"), trial_entry(limits=[P95]), noisy(1))
    cells = [again(one.cell, trials=[one.trial]) for one in (base, head)]
    (found,) = derive(Manifest(status="complete", cells=cells), [head]).verdicts
    assert found.outcome is Outcome.CANNOT_TELL
    assert found.sentence == "base has no ttft_ms p95: the trial failed."


def test_nothing_is_no_multiple_of_nothing_and_judged_all_the_same() -> None:
    """Neither variant fails: the limit holds."""
    assert judged("error_rate <= 1.1 * base").outcome is Outcome.PASS


def test_no_failure_is_less_than_some_of_the_base() -> None:
    """Nothing has no logarithm, and is 0 times as much all the same."""
    records = noisy(1)
    for i in range(0, 600, 30):
        records[i] = failed(i, i * 100.0, "http_error", 5)
    trials = [
        FabricatedTrial(cell_entry(id=name, variant=name), trial_entry(limits=["error_rate <= 1.1 * base"]), own)
        for name, own in (("base", records), ("head", noisy(1)))
    ]
    found = of(trials)
    assert (found.outcome, found.value) == (Outcome.PASS, 0.0)
    assert "error_rate is 0 %, 0 * base" in found.sentence


def test_a_rate_of_nothing_misses_its_base() -> None:
    """Also where each of three repetitions had nothing; without intervals the ratio has none."""
    nothing, base = {"value": 0.0, "low": 0.0, "high": 0.02}, {"value": 0.95, "low": 0.8, "high": 0.98}
    limit = parse_limit("attainment >= 0.9 * base")
    found = ratio_to("attainment", limit, (nothing, base), [(0.0, 0.95)] * 3, [])
    assert (found.value, found.low, found.high) == (0.0, 0.0, pytest.approx(0.025))
    unknown = ratio_to("attainment", limit, (nothing | {"high": math.nan}, base), [], [])
    assert unknown.value == 0.0
    assert math.isnan(unknown.low)
    assert math.isnan(unknown.high)


def test_a_base_whose_requests_timed_out_leaves_it_open() -> None:
    """Its p95 is only known to be more than the time-out."""
    records = noisy(1)
    for i in range(0, 600, 10):
        records[i] = failed(i, i * 100.0, "timeout", 30_000)
    limits = [P95, "error_rate <= 0.5"]
    trials = [
        FabricatedTrial(cell_entry(id=name, variant=name), trial_entry(limits=limits), own)
        for name, own in (("base", records), ("head", noisy(1)))
    ]
    found = of(trials)
    assert (found.outcome, found.certainty) == (Outcome.PASS, "likely")
    found = of([replace(trials[0], cell=trials[1].cell), replace(trials[1], cell=trials[0].cell)])
    assert (found.outcome, math.isnan(found.value)) == (Outcome.FAIL, True)
    assert "ttft_ms p95 is at least 30,000 ms" in found.sentence


def test_blocks_of_equal_names_have_a_base_each() -> None:
    """The place of the block stays before the variant."""
    assert base_keys(("m", "e", "q", "engines.1.head", "l"), "base") == ("m", "e", "q", "engines.1.base", "l")
    assert base_keys(("m", "e", "q", "head", "l"), "base") == ("m", "e", "q", "base", "l")


@pytest.mark.parametrize(
    ("limit", "outcome", "code"),
    [
        ("ttft_ms p95 <= 1.10 * base", "choice", ExitCode.HOLDS),  # the base holds it, and `head` does not
        ("ttft_ms p95 <= 0.70 * base", "none", ExitCode.LIMIT_BROKEN),  # nor is the base faster than itself
    ],
)
def test_the_base_is_a_choice_if_it_holds_the_limit_against_itself(limit: str, outcome: str, code: ExitCode) -> None:
    """Its own verdict counts in the choice, and is not told."""
    trials = [
        FabricatedTrial(cell_entry(id=name, variant=name), trial_entry(limits=[limit]), noisy(1, slower=factor))
        for name, factor in (("base", 1.0), ("head", 1.2))
    ]
    found = results(trials, {"decide": "any"})
    recommended = found.decisions[0]["recommendation"]
    assert (recommended["outcome"], found.exit_code) == (outcome, code)
    assert recommended["chosen"] == (["f16 · base"] if outcome == "choice" else [])
    assert [one.keys[3] for one in found.verdicts] == ["head"]
    assert results(trials, {}).exit_code is ExitCode.LIMIT_BROKEN
