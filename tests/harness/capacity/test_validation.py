"""The check of a plan's rule: what it predicts of several replicas, and what they did."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.capacity.held_out import HeldOut
from harness.capacity.rate import Holds
from harness.capacity.validation import as_record, planned_rate, predictions, scored, validate
from harness.errors import UsageError
from harness.scenario.plan import Assumptions
from tests.planned import FAILS, candidate, point

PAIR = replace(candidate([point(8.0), point(10.0), point(12.0, FAILS)]), run="pair")


def test_two_replicas_are_predicted_from_one() -> None:
    """2 * 5.5 / 1.1 = 10 requests/s, and it was so: 10 hold, 12 fail."""
    found = validate(candidate(), [PAIR], 2, Assumptions())
    assert found.predicted_rps == pytest.approx(10.0)
    assert found.error == (pytest.approx(10 / 12 - 1), pytest.approx(0.0))
    assert [(one.rate_rps, one.measured, one.is_wrong) for one in found.rates] == [
        (8.0, Holds.YES, False), (10.0, Holds.YES, False), (12.0, Holds.NO, False),
    ]  # fmt: skip


def test_a_balancer_that_loses_half_is_an_error_of_the_plan() -> None:
    """The prediction is not fitted to it."""
    slow = replace(candidate([point(5.0), point(6.0, FAILS)]), run="slow")
    found = validate(candidate(), [slow], 2, Assumptions())
    assert found.error == (pytest.approx(10 / 6 - 1), pytest.approx(1.0))
    assert [one.is_wrong for one in found.rates] == [False, True]
    rate = as_record(found, candidate(), HeldOut("slow=2", replicas=2))["rates"][1]
    assert {name: rate[name] for name in ("rate_rps", "measured", "wrong")} == {
        "rate_rps": 6.0, "measured": "no", "wrong": True,
    }  # fmt: skip


def test_what_was_not_measured_has_no_error() -> None:
    """Replicas of which no rate fails give one end; of which none holds, none."""
    known = validate(candidate(), [candidate([point(8.0)])], 2, Assumptions())
    assert known.error == (None, pytest.approx(0.25))
    unknown = validate(candidate(), [candidate([point(8.0, FAILS)])], 2, Assumptions())
    assert unknown.error == (None, None)


def test_the_likeliest_rates_are_compared_where_one_fails() -> None:
    """10 predicted, 10 measured; of a rate that nobody saw fail the largest one is unknown."""
    assert validate(candidate(), [PAIR], 2, Assumptions()).rate_error == pytest.approx(0.0)
    assert validate(candidate(), [candidate([point(8.0)])], 2, Assumptions()).rate_error is None


def test_ttft_and_tokens_are_scored_where_both_are_known() -> None:
    """Predicted 300 ms and 640 tokens/s at 10 requests/s; measured 330 ms, and nothing beyond what was tested."""
    numbers = {"ttft_p95_ms": 330.0, "output_tokens_per_s": 640.0}
    intervals = {"ttft_p95_ms": (310.0, 350.0), "output_tokens_per_s": (600.0, 700.0)}
    several = candidate([point(10.0, numbers=numbers, intervals=intervals), point(20.0, FAILS, overloaded=True)])
    known, beyond = validate(candidate(), [several], 2, Assumptions()).rates
    assert known.error("ttft_p95_ms") == pytest.approx(math.log(300 / 330))
    assert known.error("output_tokens_per_s") == pytest.approx(0.0)
    assert (known.is_inside("ttft_p95_ms"), known.is_inside("output_tokens_per_s")) == (False, True)
    assert (beyond.error("ttft_p95_ms"), beyond.is_inside("ttft_p95_ms")) == (None, None)
    assert beyond.numbers["ttft_p95_ms"] is None


def test_a_point_is_predicted_before_and_scored_by_the_same_numbers() -> None:
    """Measuring changes no prediction."""
    asked, assumed = HeldOut("rate=1.15", 1.15), Assumptions()
    known = candidate().capacity
    assert known is not None
    rate = planned_rate(known, asked, assumed)
    assert rate == pytest.approx(6.325)
    before = predictions(candidate(), asked, rate, assumed)
    measured = candidate([point(rate, FAILS)])
    after = as_record(scored(candidate(), measured, asked, assumed), candidate(), asked)
    assert before["predicted_rps"] == after["predicted_rps"]
    for name in ("ttft_p95_ms", "output_tokens_per_s"):
        assert before["rates"][0][name]["predicted"] == after["rates"][0][name]["predicted"]
    assert before["rates"][0]["chance"] == after["rates"][0]["chance"]


def test_a_rate_above_all_tested_ones_is_no_error_of_the_plan() -> None:
    """None failed, so that the planner says nothing of it."""
    asked, known = HeldOut("rate=1.45", 1.45), candidate([point(4.0), point(5.5)])
    (rate,) = scored(known, candidate([point(8.0)]), asked, Assumptions()).rates
    assert (rate.predicted.chance, rate.measured, rate.is_wrong) == (None, Holds.YES, False)


def test_points_of_every_kind_are_measured_at_the_same_load_of_a_replica() -> None:
    """The rate that the plan rests on, for the busiest replica, in replies of the measured length."""
    known = candidate().capacity
    assert known is not None
    for asked, rate in (
        (HeldOut("", 0.5), 2.75),
        (HeldOut("", output=1.1), 5.0),
        (HeldOut("", replicas=2), 10.0),
        (HeldOut("", None), None),
    ):
        assert planned_rate(known, asked, Assumptions()) == (rate if rate is None else pytest.approx(rate))


def test_other_configurations_and_requirements_are_refused() -> None:
    """What was predicted must be what was measured."""
    others = [candidate(level="q8_0"), candidate(level="q2_k")]
    with pytest.raises(UsageError, match="it has vllm q8_0, vllm q2_k, and none of them is vllm f16"):
        validate(candidate(), others, 2, Assumptions())
    with pytest.raises(UsageError, match="differ in `slo`"):
        validate(candidate(), [candidate(asks={"slo": {"ttft_ms": 1.0}, "limits": []})], 2, Assumptions())
