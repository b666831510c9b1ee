"""What a planner predicted and what was measured, as a reader gets it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.capacity.held_out import HeldOut
from harness.capacity.track_record import errors
from harness.capacity.validation import as_record, scored, validate
from harness.scenario.plan import Assumptions
from reports import plan_checks
from tests.planned import FAILS, candidate, point

PAIR = replace(candidate([point(8.0), point(10.0), point(12.0, FAILS)]), run="pair")
TIMES = {"predicted_utc": None, "measured_utc": "2026-11-30T12:00:00+00:00"}


def data(*checks: dict[str, Any]) -> dict[str, Any]:
    """The part of a plan's data that is about its checks."""
    return {"checks": [*checks], "planner_errors": errors(checks)}


def stored() -> dict[str, Any]:
    """A check of a stored run of two replicas."""
    found = validate(candidate(), [PAIR], 2, Assumptions())
    return as_record(found, candidate(), HeldOut("pair=2", replicas=2)) | TIMES


def held_out() -> dict[str, Any]:
    """A check of a point that was predicted with 300 ms and 384 tokens/s, and measured with 330 ms and 400."""
    asked = HeldOut("rate=0.9", 0.9)
    measured = point(5.0, numbers={"ttft_p95_ms": 330.0, "output_tokens_per_s": 400.0})
    other = replace(candidate([measured]), run="held-out-1")
    return as_record(scored(candidate(), other, asked, Assumptions()), candidate(), asked) | TIMES


def plain(text: str) -> str:
    """The text with ordinary spaces."""
    return text.replace("\u202f", " ")


def test_the_largest_rate_of_replicas_is_a_sentence() -> None:
    """Against the rate that holds, and the one that fails."""
    assert plain(plan_checks.sentence(stored())) == (
        "2 replicas of chat were predicted to hold 10 requests/s. In pair, 10 hold and 12 fail; error −16.7 % to 0 %; "
        "0 of 3 tested rates turned out otherwise."
    )


def test_each_point_has_what_was_measured_and_predicted() -> None:
    """The newest first; an unknown error is no zero."""
    rows = plan_checks.points(data(stored(), held_out())).rows
    assert [plain(cell.text) for cell in rows[0]] == [
        "rate=0.9", "held-out-1", "5", "100 %", "holds", "330", "300", "−9.09 %", "400", "320", "−20 %",
    ]  # fmt: skip
    assert [plain(row[7].text) for row in rows[1:]] == ["0 %", "0 %", "−25.4 %"]


def test_the_errors_so_far_are_a_sentence_with_their_numbers_of_points() -> None:
    """A single kind is told as it is; several are told together."""
    assert plain(plan_checks.record(data(held_out()))) == (
        "Errors of its predictions in this folder: TTFT p95 10 %, at most 10 % (1 point) · "
        "output tokens/s 25 %, at most 25 % (1 point) · whether a rate holds was predicted wrongly at 0 of 1 point."
    )
    both = data(stored(), held_out())
    assert "(4 points)" in plan_checks.record(both)
    kinds = {row[0].text for row in plan_checks.errors(both).rows}
    assert kinds == {"replicas", "rate", "all"}


def test_a_planner_that_was_never_checked_says_so() -> None:
    """With the option that does it."""
    assert "`--validate all`" in plan_checks.record(data())
    assert not plan_checks.points(data()).rows


def test_why_something_was_not_predicted_stands_below() -> None:
    """Each reason once."""
    asked = HeldOut("rate=2", 2.0)
    other = replace(candidate([point(12.0, FAILS)]), run="held-out-2")
    check = as_record(scored(candidate(), other, asked, Assumptions()), candidate(), asked) | TIMES
    assert plan_checks.points(data(check, check)).foot == (
        "TTFT is not predicted at 12 requests/s for a replica: 4 to 7 were tested.",
        "Tokens/s are not predicted above the rate that a replica holds.",
    )


def test_only_the_newest_points_are_shown() -> None:
    """The foot says how many others there are."""
    table = plan_checks.points(data(*[held_out()] * 25))
    assert len(table.rows) == plan_checks.SHOWN
    assert table.foot == ("5 older points in runs/plan-checks.",)


def test_a_small_error_has_its_digits() -> None:
    """No error of a planner is 0.0 %, unless it is zero."""
    row = {"kind": "rate", "number": "rate_rps", "n": 3, "typical": 0.0042, "largest": 0.012, "inside": 0, "judged": 0}
    (found,) = plan_checks.errors({"planner_errors": [row]}).rows
    assert [plain(cell.text) for cell in found[3:5]] == ["0.420 %", "1.2 %"]
