"""Estimated use of a plan, and the check against the budget."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from harness.errors import UsageError
from harness.scenario.loads.kinds import Load, LoadItem
from harness.scenario.model import Scenario
from harness.schedule.estimate import check_budget, estimate, over_budget
from harness.schedule.matrix import expand
from harness.units import Range

LOAD: TypeAdapter[Load] = TypeAdapter(LoadItem)


def scenario_of(load: dict[str, Any], **keys: Any) -> Scenario:
    """A scenario with one load."""
    return Scenario.model_validate(
        {"engines": [{"engine": "simulated"}], "load": [load], "workload": {"prompt_tokens": 10, "output_tokens": 5}}
        | keys
    )


@pytest.mark.parametrize(
    ("load", "requests", "time_s"),
    [
        ({"kind": "single_user", "requests": 3, "think_time": "2s", "timeout": "10s"}, (3, 3), (4, 36)),
        ({"kind": "single_user", "duration": "30s", "warmup": "5s", "timeout": "10s"}, (1, None), (35, 45)),
        ({"kind": "sustained", "users": 4, "requests": 10, "timeout": "10s"}, (10, 10), (0, 30)),
        ({"kind": "sustained", "rate": 2, "requests": 10, "warmup": "5s", "timeout": "10s"}, (20, 20), (10, 20)),
        ({"kind": "sustained", "rate": 2, "duration": "60s", "warmup": "5s", "timeout": "10s"}, (130, 130), (65, 75)),
        (
            {"kind": "burst", "rate": 1, "burst_rate": 11, "burst_for": "1s", "every": "10s", "duration": "60s"}
            | {"timeout": "10s"},
            (120, 120),
            (60, 70),
        ),
        ({"kind": "burst", "spike": {"requests": 9, "within": "2s"}, "timeout": "10s"}, (9, 9), (2, 12)),
        (
            {"kind": "burst", "rate": 1, "spike": {"requests": 9, "within": "2s"}, "duration": "30s", "timeout": "10s"},
            (39, 39),
            (30, 40),
        ),
        (
            {"kind": "steps", "steps": [{"rate": 2, "for": "10s"}, {"rate": 8, "for": "5s"}], "warmup": "5s"}
            | {"timeout": "10s"},
            (70, 70),
            (20, 30),
        ),
        (
            {"kind": "sustained", "rate": 2, "ramp": {"to": 8, "over": "10s"}, "duration": "20s", "warmup": "5s"}
            | {"timeout": "10s"},
            (140, 140),
            (25, 35),
        ),
        (
            {"kind": "mixed", "rate": 8, "ramp": {"over": "10s"}, "requests": 48, "timeout": "10s"},
            (48, 48),
            (11, 21),
        ),
    ],
)  # fmt: skip
def test_requests_and_time_are_bounded_from_both_sides(
    load: dict[str, Any], requests: tuple[float, float | None], time_s: tuple[float, float | None]
) -> None:
    """An unknown bound stays unknown."""
    one = LOAD.validate_python(load)
    assert one.expected_requests() == Range(*requests)
    assert one.expected_time_s() == Range(*time_s)


def test_a_plan_is_the_sum_of_its_cells() -> None:
    """Skipped cells use nothing; load that goes on for a time-out of 5 s may come on top, 10 requests each."""
    load = {"kind": "sustained", "rate": 2, "duration": "10s", "timeout": "5s"}
    block = {"engine": "simulated", "quantization": ["q8_0", "no-such-level"]}
    found = estimate(expand(scenario_of(load, engines=[block], repetitions=3)))
    assert (found.cells, found.skipped, found.trials) == (3, 3, 3)
    assert found.requests == Range(60, 90)
    assert found.tokens == Range(900, 1350)


@pytest.mark.parametrize(
    ("load", "most"),
    [
        ({"kind": "sustained", "rate": 2, "duration": "60s"}, 20),
        ({"kind": "sustained", "rate": 2, "requests": 10}, 10),
        ({"kind": "sustained", "rate": 2, "requests": 100}, 20),
        ({"kind": "sustained", "rate": 2, "ramp": {"to": 8, "over": "10s"}, "duration": "20s"}, 80),
        ({"kind": "steps", "steps": [{"rate": 2, "for": "10s"}, {"rate": 8, "for": "5s"}]}, 80),
        ({"kind": "sustained", "users": 4, "requests": 10}, 10),
        ({"kind": "sustained", "users": 4, "duration": "60s"}, None),
        ({"kind": "single_user", "requests": 10}, 0),
        ({"kind": "burst", "spike": {"requests": 9, "within": "2s"}}, 0),
        ({"kind": "burst", "rate": 1, "spike": {"requests": 9, "within": "2s"}, "duration": "30s"}, 10),
        ({"kind": "sessions", "rate": 2, "sessions": 5, "turns": 3}, 15),
        ({"kind": "sessions", "rate": 2, "duration": "60s", "turns": 3}, 60),
    ],
)
def test_load_that_goes_on_is_as_much_again_or_that_of_a_time_out(load: dict[str, Any], most: float | None) -> None:
    """The timeout is 10 s; after a single user, a trace or a lone spike, no load goes on."""
    assert LOAD.validate_python(load | {"timeout": "10s"}).further_requests() == Range(0, most)


def test_tokens_of_mixed_traffic_follow_the_weights() -> None:
    """Each class counts by its share."""
    classes = {"a": {"weight": 3}, "b": {"weight": 1, "workload": {"output_tokens": 45}}}
    found = estimate(expand(scenario_of({"kind": "mixed", "rate": 1, "requests": 100}, classes=classes)))
    assert found.tokens.low == pytest.approx(75 * 15 + 25 * 55)
    assert found.tokens.high == pytest.approx(2 * (75 * 15 + 25 * 55))


@pytest.mark.parametrize(
    ("budget", "load", "sentence"),
    [
        (
            {"requests": 50},
            {"kind": "sustained", "rate": 2, "duration": "60s"},
            "the plan needs about 120 requests, `budget` allows 50; shorten it or raise the budget",
        ),
        (
            {"tokens": 100},
            {"kind": "single_user", "requests": 10},
            "the plan needs about 150 tokens, `budget` allows 100; shorten it or raise the budget",
        ),
        (
            {"time": "1m"},
            {"kind": "sustained", "rate": 2, "duration": "2m"},
            "the plan needs about 120 seconds, `budget` allows 60; shorten it or raise the budget",
        ),
        (
            {"requests": 125},
            {"kind": "sustained", "rate": 2, "duration": "60s", "timeout": "5s"},
            "the plan needs about 120 requests and at most 130 with the load that goes on until the measured requests "
            "have ended, `budget` allows 125; raise it or lower `timeout`",
        ),
        (
            {"requests": 50},
            {"kind": "single_user", "duration": "9s"},
            "`budget` allows 50 requests, but the plan has no upper bound; "
            "give closed loads (`users`, `single_user`) `requests` instead of `duration`",
        ),
    ],
)
def test_a_plan_beyond_its_budget_is_refused(budget: dict[str, Any], load: dict[str, Any], sentence: str) -> None:
    """Beforehand, with what to do about it; a consent does not help."""
    scenario = scenario_of(load, budget=budget)
    with pytest.raises(UsageError) as refusal:
        check_budget(scenario, expand(scenario), consent=True)
    assert str(refusal.value) == sentence


def test_a_plan_that_costs_more_than_its_budget_is_refused() -> None:
    """An hour of the machine has a price; without it, or without an end, nobody knows."""

    def problems(load: dict[str, Any], **keys: Any) -> list[str]:
        scenario = scenario_of({"kind": "sustained", "timeout": "5s", **load}, budget={"usd": 0.5}, **keys)
        return over_budget(scenario, estimate(expand(scenario)))

    hour = {"rate": 0.1, "duration": "1h"}
    assert problems({**hour, "duration": "25m"}, instance="g5.xlarge") == []
    assert problems(hour, instance="g5.xlarge") == [
        "the plan costs about 1.01 USD (g5.xlarge at $1.006 an hour (on demand, as of 2026-11)), `budget` allows 0.50; "
        "shorten it or raise the budget"
    ]
    assert problems(hour) == ["`budget.usd` needs the machine's price; name it, such as `instance: g5.xlarge`"]
    with pytest.raises(UsageError, match="no instance 'mine' in the shipped prices"):
        problems(hour, instance="mine")


def test_another_machine_is_loaded_only_with_a_budget_or_a_consent() -> None:
    """Nobody loads a stranger's server by mistake."""
    load = {"kind": "single_user", "requests": 1}
    engines = [{"engine": "http", "url": "http://192.0.2.1:8000"}]
    scenario = scenario_of(load, engines=engines)
    planned = expand(scenario)
    with pytest.raises(UsageError, match=r"http://192.0.2.1:8000 is not on this machine; add a `budget` such as"):
        check_budget(scenario, planned, consent=False)
    check_budget(scenario, planned, consent=True)
    check_budget(scenario_of(load, engines=engines, budget={"requests": 5}), planned, consent=False)
    check_budget(scenario_of(load), expand(scenario_of(load)), consent=False)


@given(st.floats(0.1, 50), st.integers(1, 500), st.integers(0, 60))
def test_open_loads_send_at_their_rate(rate: float, requests: int, warmup_s: int) -> None:
    """Measured requests and those of the warm-up."""
    load = {"kind": "sustained", "rate": rate, "requests": requests, "warmup": f"{warmup_s}s"}
    assert LOAD.validate_python(load).expected_requests().low == pytest.approx(requests + rate * warmup_s)
