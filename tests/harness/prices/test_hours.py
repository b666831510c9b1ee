"""Working hours: 45 of 168 a week, and what a clock change makes of them."""

from __future__ import annotations

from datetime import date

import pytest

from harness.prices.hours import parse_hours

USUAL, SPRING, AUTUMN = date(2026, 6, 1), date(2026, 3, 23), date(2026, 10, 19)
"""Mondays: of the weeks of 2026 that end with a clock change in Europe, and of one without."""


@pytest.mark.parametrize(
    ("text", "usual", "spring", "autumn"),
    [
        ("mon-fri 09:00-18:00 Europe/Berlin", 45, 45, 45),
        ("mon-sun 00:00-24:00 Europe/Berlin", 168, 167, 169),
        ("sat 22:00-06:00 Europe/Berlin", 8, 7, 9),
        ("sat-sun 0-12 Europe/Berlin", 24, 23, 25),
        ("mon-fri 9-18", 45, 45, 45),
        ("fri-mon 9-18 UTC", 36, 36, 36),
        ("mon,wed 22:30-06:00 America/New_York", 15, 15, 15),
    ],
)
def test_hours_of_a_week_are_those_that_pass(text: str, usual: float, spring: float, autumn: float) -> None:
    """A night with a clock change is an hour shorter or longer than the clock on the wall shows."""
    hours = parse_hours(text)
    assert hours.usual_hours == usual
    assert [hours.hours_of_week(monday) for monday in (USUAL, SPRING, AUTUMN)] == [usual, spring, autumn]


def test_weekdays_from_nine_to_six_save_three_quarters() -> None:
    """45 of 168 hours are 27 %, so 73 % are saved, and not about 60 %, as a published guide has it."""
    assert parse_hours("mon-fri 09:00-18:00").share == pytest.approx(0.2679, abs=1e-4)


@pytest.mark.parametrize("text", ["mon-fri 09:00-18:00", "sun 22:00-06:00", "sat-mon 9-8", "mon-sun 0-24"])
def test_the_minutes_of_a_week_are_its_hours(text: str) -> None:
    """Minute by minute, past midnight and over the end of the week."""
    hours = parse_hours(text)
    assert sum(hours.covers(minute) for minute in range(168 * 60)) == hours.usual_hours * 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "are no working hours"),
        ("9-18", "are no working hours"),
        ("mon-fri 9-9", "begins and ends at the same time"),
        ("mon-fri 9-25", "`25` is no time of day"),
        ("mon-fry 9-18", "unknown day `fry`; known are mon, tue"),
        ("mon-fri 9-18 Europe/Berlyn", "unknown time zone `Europe/Berlyn`"),
    ],
)
def test_wrong_hours_are_refused(text: str, message: str) -> None:
    """With an example."""
    with pytest.raises(ValueError, match=message):
        parse_hours(text)
