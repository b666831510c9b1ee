"""The check of a plan's rule: what it predicts of several replicas, and what they did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.capacity.rate import Holds
from harness.capacity.validation import RECORD, as_record, keep, kept, validate
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
    assert as_record(found, candidate())["rates"][1] == {
        "rate_rps": 6.0, "chance": found.rates[1].chance, "measured": "no", "wrong": True,
    }  # fmt: skip


def test_what_was_not_measured_has_no_error() -> None:
    """Replicas of which no rate fails give one end; of which none holds, none."""
    known = validate(candidate(), [candidate([point(8.0)])], 2, Assumptions())
    assert known.error == (None, pytest.approx(0.25))
    unknown = validate(candidate(), [candidate([point(8.0, FAILS)])], 2, Assumptions())
    assert unknown.error == (None, None)


def test_a_check_is_kept_with_its_run(tmp_path: Path) -> None:
    """Damaged ones are left out: the check can be made again."""
    record = as_record(validate(candidate(), [PAIR], 2, Assumptions()), candidate())
    for name in ("pair", "other", "broken"):
        (tmp_path / name).mkdir()
    keep(record, tmp_path / "pair")
    (tmp_path / "broken" / RECORD).write_text("{")
    assert kept(tmp_path) == [json.loads(json.dumps(record))]


def test_other_configurations_and_requirements_are_refused() -> None:
    """What was predicted must be what was measured."""
    others = [candidate(level="q8_0"), candidate(level="q2_k")]
    with pytest.raises(UsageError, match="it has vllm q8_0, vllm q2_k, and none of them is vllm f16"):
        validate(candidate(), others, 2, Assumptions())
    with pytest.raises(UsageError, match="differ in `slo`"):
        validate(candidate(), [candidate(asks={"slo": {"ttft_ms": 1.0}, "limits": []})], 2, Assumptions())
