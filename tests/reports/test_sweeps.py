"""Loads of a run as points: what belongs to one sweep, what is wide, censored or poor, and its SLOs and limits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from harness.cli.commands.report import report_data
from harness.results import derive
from reports.data import ReportData
from reports.names import load_names
from reports.plots.frontier import remarks
from reports.sweeps import Estimate, limits_of, loads_of, names_of, slos_of, sweeps_of, sweeps_of_lengths
from tests.fabricated import FabricatedTrial, again, cell_entry, failed, noisy, streamed, trial_entry
from tests.reports.conftest import manifest
from tests.reports.sweep_of_rates import RATES, sweep_of


def users(count: int, **changes: object) -> FabricatedTrial:
    """A closed loop."""
    entry = {"id": f"u{count}", "load": f"users-{count}", "loop": "closed", "users": count, "index": count}
    return FabricatedTrial(cell_entry(), trial_entry(**entry | changes), noisy(count, 60))


def run_of(*trials: FabricatedTrial) -> ReportData:
    """These trials on one cell."""
    return report_data(derive(manifest([again(trials[0].cell, trials=[one.trial for one in trials])]), trials))


def test_rates_are_a_sweep_with_a_knee() -> None:
    """In ascending order, by configuration; the knee is where p95 doubles."""
    (sweep,) = sweeps_of(sweep_of("f16", "q4", seconds=20.0))
    assert sweep.axis == "rate"
    for own in sweep.loads.values():
        assert [load.x for load in own] == pytest.approx(RATES, rel=0.06)
    assert {(round(one.below), round(one.above)) for one in sweep.knees().values()} == {(4, 8)}
    assert list(names_of(sweep_of("f16", "q4", seconds=20.0)).values()) == ["f16", "q4"]


def test_a_load_has_one_place_on_all_configurations() -> None:
    """Also where the rate was not stored, and a cell measured a little more: it is that of the first, rounded."""
    trials = [
        FabricatedTrial(cell_entry(id=level, level=level), trial_entry(), noisy(1, n, every_ms=60_000 / n))
        for level, n in (("f16", 603), ("q4", 611))
    ]
    run = manifest([again(one.cell, trials=[one.trial]) for one in trials])
    assert [load.x for load in loads_of(report_data(derive(run, trials)))] == [10.0, 10.0]


def test_users_and_rates_are_sweeps_of_their_own() -> None:
    """A single user is the first of the users, unless there is a closed loop of one; a burst is part of no sweep."""
    single = users(1, id="s", load="single_user", kind="single_user", users=None)
    open_loops = [
        FabricatedTrial(
            cell_entry(), trial_entry(id=f"r{i}", load=f"r{i}", index=9 + i), noisy(i, 60 * i, every_ms=1000 / i)
        )
        for i in (1, 2)
    ]
    burst = FabricatedTrial(cell_entry(), trial_entry(id="b", load="burst", kind="burst", index=20), noisy(3))
    found = {one.axis: one for one in sweeps_of(run_of(single, users(2), users(4), *open_loops, burst))}
    assert [load.name for load in next(iter(found["users"].loads.values()))] == ["single_user", "users-2", "users-4"]
    assert len(next(iter(found["rate"].loads.values()))) == 2
    loads = {load.keys[-1]: load for load in loads_of(run_of(single, users(1), users(2), burst))}
    assert [loads[name].name for name in ("single_user", "users-1", "burst")] == ["single_user", "users-1", "burst"]


def test_equal_rates_are_not_joined() -> None:
    """Of two kinds of load at the same rates, each is a sweep of its own."""
    trials = [
        FabricatedTrial(cell_entry(), trial_entry(id=f"{n}{i}", load=f"{n}-{i}"), noisy(i, 60 * i, every_ms=1000 / i))
        for n in ("even", "uneven")
        for i in (1, 2, 4)
    ]
    found = sweeps_of(run_of(*trials))
    assert sorted(one.kind for one in found) == ["even-n", "uneven-n"]
    assert all(len(own) == 3 for one in found for own in one.loads.values())


@pytest.mark.parametrize(
    ("low", "high", "wide"),
    [(52.1, 55.0, False), (40.0, 66.6, False), (40.0, 66.8, True), (math.nan, 60.0, True), (50.0, math.nan, True)],
)
def test_wide_is_open_or_more_than_half_of_the_value(low: float, high: float, wide: bool) -> None:
    """As the tables mark it."""
    assert Estimate(53.4, low, high).wide is wide


def test_a_number_is_written_as_in_the_tables() -> None:
    """With its interval, as a bound if requests never ended, in brackets if its data is poor."""
    assert Estimate(53.4, 52.1, 55.0).text == "53.4 [52.1, 55.0]"
    assert Estimate(53.4, math.nan, 55.0).text == "53.4~"
    assert Estimate(400.0, 400.0, math.nan, censored=True).text == "> 400"
    assert Estimate(53.4, 52.1, 55.0, poor="late").text == "(53.4 [52.1, 55.0])"
    speed = Estimate(20.0, 10.0, 25.0).inverted(1000.0)
    assert (speed.value, speed.low, speed.high) == (50.0, 40.0, 100.0)


def test_the_inverse_of_a_lower_bound_is_an_upper_one() -> None:
    """80 ms a token or more are 12.5 tokens/s or less; pictures say which triangles are which."""
    tpot = Estimate(80.0, 80.0, math.nan, censored=True)
    speed = tpot.inverted(1000.0)
    assert (tpot.text, speed.text, speed.inverted(1000.0).text) == ("> 80.0", "< 12.5", "> 80.0")
    assert "point up are lower" in remarks([tpot])
    assert "upper" not in remarks([tpot])
    assert remarks([speed]).endswith("; triangles that point down or to the left are upper bounds")


def test_poor_data_says_why_for_the_metrics_that_it_is_about() -> None:
    """A reason that names metrics is about those; one that names none is about every number."""
    data = sweep_of("f16", seconds=20.0)
    reason = {"level": "invalid", "code": "stall", "sentence": "A stall.", "advice": "", "metrics": ["ttft_ms"]}
    judged = [one | {"verdict": "invalid", "reasons": [reason]} for one in data.validity]
    first = loads_of(replace(data, validity=judged))[0]
    assert {metric for (metric, _), one in first.estimates.items() if one.poor} == {"ttft_ms"}
    judged = [one | {"verdict": "invalid", "reasons": [reason | {"metrics": []}]} for one in data.validity]
    assert all(one.poor == "A stall." for one in loads_of(replace(data, validity=judged))[0].estimates.values())


def test_time_outs_leave_a_bound() -> None:
    """A load whose p95 nobody knows is still a point, at the least that it can be."""
    slow = [*noisy(1, 100), *(failed(100 + i, 10_000.0 + 100 * i, "timeout", 900.0) for i in range(60))]
    (load,) = loads_of(run_of(FabricatedTrial(cell_entry(), trial_entry(), slow)))
    p95 = load.get("e2e_ms", "p95")
    assert p95 is not None
    assert p95.censored
    assert p95.value > 0


def test_each_class_is_held_to_its_own_slo() -> None:
    """Where classes have none of their own, the trial's stands without a name."""
    own = {"chat": {"ttft_ms": 60.0, "tpot_ms": None}}
    mixed = [streamed(i, i * 100.0, class_name=("chat", "batch")[i % 2]) for i in range(40)]
    trial = FabricatedTrial(cell_entry(), trial_entry(slo={"ttft_ms": 100.0, "tpot_ms": None}, class_slo=own), mixed)
    assert slos_of(run_of(trial), trial.cell, trial.trial) == {
        "ttft_ms": {100.0: "SLO batch 100 ms", 60.0: "SLO chat 60 ms"}
    }
    plain = sweep_of("f16", seconds=20.0)
    cell, entry = next(plain.trials())
    assert slos_of(plain, cell, entry)["ttft_ms"] == {200.0: "SLO 200 ms"}


def test_upper_limits_of_the_statistic_are_lines() -> None:
    """In ms, whatever the unit; limits of other statistics and metrics are not."""
    texts = ["ttft_ms p95 <= 0.4s", "ttft_ms p95 < 350", "ttft_ms p50 <= 100", "ttft_ms p95 >= 5", "error_rate <= 0.01"]
    load = loads_of(run_of(FabricatedTrial(cell_entry(), trial_entry(limits=texts[:3]), noisy(1))))[0]
    load = replace(load, trial=trial_entry(limits=texts))
    assert limits_of(load, "ttft_ms", "p95") == {400.0: "limit 400 ms", 350.0: "limit 350 ms"}


def test_the_rate_asked_for_is_that_of_the_load() -> None:
    """Random arrivals make the measured one differ; a run that does not store it is shown by the measured one."""
    trials = [
        FabricatedTrial(
            cell_entry(), trial_entry(id=f"{i}", load=f"l{i}", index=i, **asked), noisy(i, 60 * i, every_ms=1000 / i)
        )
        for i, asked in ((1, {}), (2, {"rate": 2.5}))
    ]
    assert [load.x for load in loads_of(run_of(*trials))] == [1.0, 2.5]


def of_length(number: int, prompt: float, *, slower: float = 1.0, **changes: Any) -> FabricatedTrial:
    """A closed loop with prompts of this length."""
    entry = {"id": f"u{number}p{prompt:.0f}", "load": f"sustained-users-{number}-prompt-{prompt:.0f}", "loop": "closed"}
    known = entry | {"users": number, "prompt_tokens": prompt, "index": int(10 * number + prompt)}
    return FabricatedTrial(cell_entry(), trial_entry(**known | changes), noisy(number, 60, slower=slower))


def test_each_length_has_a_sweep_by_users_and_each_number_of_users_one_by_length() -> None:
    """A length is no point on the way to another number of users."""
    data = run_of(*(of_length(n, prompt) for n in (2, 4, 8) for prompt in (128, 512)))
    assert [(one.axis, one.whole_kind) for one in sweeps_of(data)] == [
        ("users", "sustained, prompt 128"),
        ("users", "sustained, prompt 512"),
    ]
    by_length = sweeps_of_lengths(data)
    assert [(one.axis, one.beside) for one in by_length] == [("prompt", f"{n} users") for n in (2, 4, 8)]
    assert [[load.x for load in own] for one in by_length for own in one.loads.values()] == 3 * [[128.0, 512.0]]
    assert load_names(data)["sustained-users-2-prompt-128"] == "2 users, prompt 128"


def test_longer_prompts_are_no_knee() -> None:
    """They take longer because they are longer."""
    data = run_of(*(of_length(2, 100 * factor, slower=factor) for factor in (1, 4, 16)))
    (sweep,) = sweeps_of_lengths(data)
    assert sweep.knees() == {}
    assert sweeps_of(data) == []


def test_both_lengths_can_vary() -> None:
    """Each is a sweep for every value of the other."""
    data = run_of(
        *(
            of_length(2, prompt, id=f"{prompt}{output}", load=f"{prompt}-{output}", output_tokens=float(output))
            for prompt in (128, 512)
            for output in (16, 64)
        )
    )
    assert sorted((one.axis, one.beside) for one in sweeps_of_lengths(data)) == [
        ("output", "2 users, prompt 128"),
        ("output", "2 users, prompt 512"),
        ("prompt", "2 users, output 16"),
        ("prompt", "2 users, output 64"),
    ]


def test_loads_that_differ_in_something_else_are_no_sweep_of_lengths() -> None:
    """Neither caps nor names are mixed, and none is lost."""
    capped = [
        FabricatedTrial(
            cell_entry(),
            trial_entry(id=f"{cap}{p}", load=f"cap-{cap}-{p}", rate=4.0, max_concurrency=cap, prompt_tokens=p),
            noisy(cap, 60),
        )
        for cap in (8, 16)
        for p in (128, 512)
    ]
    assert [one.whole_kind for one in sweeps_of_lengths(run_of(*capped))] == ["4/s, cap 8", "4/s, cap 16"]
    named = [
        of_length(4, tokens, id=f"{name}{tokens}", load=f"{name}-{tokens}")
        for name, lengths in (("chat", (128, 512)), ("batch", (128, 1024)))
        for tokens in lengths
    ]
    found = {one.whole_kind: one for one in sweeps_of_lengths(run_of(*named))}
    assert list(found) == ["chat-n, 4 users", "batch-n, 4 users"]
    assert [[load.x for load in own] for one in found.values() for own in one.loads.values()] == [
        [128.0, 512.0],
        [128.0, 1024.0],
    ]
