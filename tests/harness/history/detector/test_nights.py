"""Nights by number: days on which none is due lie between none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.history.detector.nights import Calendar, Every, Schedule
from harness.history.series import Point
from tests.histories import WEEKDAYS, night, series


@pytest.mark.parametrize(
    ("schedule", "days", "numbers"),
    [
        (Every(), (0, 1, 8, 9), [0.0, 1.0, 8.0, 9.0]),
        (WEEKDAYS, (1, 2, 5, 8, 9), [0.0, 1.0, 4.0, 5.0, 6.0]),  # Monday, Tuesday, Friday, Monday, Tuesday
        (WEEKDAYS, (5, 6.5, 8), [0.0, 1.0, 2.0]),  # a run by hand on Saturday
        (WEEKDAYS, (1, 1.25, 2), [0.0, 0.25, 1.0]),  # another machine's run on Monday
    ],
)
def test_nights_count_by_the_schedule(schedule: Schedule, days: tuple[float, ...], numbers: list[float]) -> None:
    """Those that were due and are missing count, weekends without a night do not."""
    some = replace(series([]), points=tuple(Point(night(day), 1.0) for day in days))
    calendar = Calendar.of([some, some], schedule)
    assert [calendar.number(night(day)) for day in days] == numbers


def test_other_times_lie_between_nights() -> None:
    """Or before the first and after the last, where the clock counts."""
    calendar = Calendar.of([replace(series([]), points=(Point(night(5), 1.0), Point(night(8), 1.0)))], WEEKDAYS)
    assert [calendar.number(night(day)) for day in (4, 6.5, 8.5)] == [-1.0, 0.5, 1.5]
