"""Pictures of nights: whole numbers within the picture, a gap for a missing night, no spike that hides the rest."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.board import Series
from reports.plots import nights
from tests.boards import change, night, point, series

VALUES = st.lists(st.none() | st.floats(-1e9, 1e12, allow_nan=False), min_size=1, max_size=40)
_STEP = re.compile(r"([MmlhHVz])(-?\d+)?(?:\s?(-?\d+))?")


def of(values: list[float | None], **others: Any) -> Series:
    """A series with a night for each value."""
    return series("one", [point(number, value) for number, value in enumerate(values)], **others)


def corners(path: str) -> list[tuple[int, int]]:
    """The places that a path goes through."""
    x = y = 0
    found = []
    for kind, one, other in _STEP.findall(path):
        if kind == "M":
            x, y = int(one), int(other)
        elif kind in "ml":
            x, y = x + int(one), y + int(other)
        elif kind == "h":
            x += int(one)
        elif kind == "H":
            x = int(one)
        elif kind == "V":
            y = int(one)
        found.append((x, y))
    return found


@given(VALUES)
def test_every_place_lies_within_the_picture(values: list[float | None]) -> None:
    """Whatever the values are, also where most are unknown or all are equal."""
    made = nights.chart(of(values))
    known = [value for value in values if value is not None]
    assert (made is None) is (not known)
    spark = corners(nights.sparkline(of(values)))
    assert all(0 <= x <= nights.SPARK_WIDTH and 0 <= y <= nights.SPARK_HEIGHT for x, y in spark)
    assert bool(spark) is bool(known)
    few = corners(nights.sparkline(of(values), nights.spark_nights([of(values)])))
    assert len(few) == len(spark)
    assert all(0 <= x <= nights.SPARK_WIDTH for x, _ in few)
    assert not known or max(x for x, _ in few) - min(x for x, _ in few) >= max(x for x, _ in spark) - min(
        x for x, _ in spark
    )
    if made is not None:
        for path in (made.line, made.dots, made.beyond, made.levels):
            assert "nan" not in path
            assert all(-3 <= x <= nights.WIDTH + 3 and 0 <= y <= nights.HEIGHT for x, y in corners(path))
        dots = [*corners(made.dots)[::2], *corners(made.beyond)[::2]]
        assert len(dots) == len(known)
        assert all(0 <= mark.at <= 100 for mark in (*made.across, *made.up))


def test_a_missing_week_is_a_gap_in_the_line() -> None:
    """Nights that are there on both sides are not joined across it."""
    points = [point(number, 100.0 + number) for number in range(20) if not 7 <= number < 14]
    made = nights.chart(series("one", points))
    assert made is not None
    assert made.line.count("M") == 2
    assert made.band.count("M") == 2
    unknown = nights.chart(of([1.0, 2.0, None, 2.0, 1.0]))
    assert unknown is not None
    assert unknown.line.count("M") == 2


def test_the_chart_goes_on_to_the_last_night_of_all_series() -> None:
    """So nights that are missing at the end are seen."""
    made = nights.chart(of([1.0, 2.0, 3.0]), until=night(4))
    assert made is not None
    assert made.share(night(2)) == 50.0


def test_one_spike_does_not_flatten_the_others_and_a_step_is_shown_whole() -> None:
    """A spike of one night is drawn at the edge and marked; the first nights of a new level never are."""
    calm = [100.0 + number % 3 for number in range(30)]
    spike = nights.chart(of([*calm[:15], 5000.0, *calm[15:]]))
    assert spike is not None
    assert corners(spike.beyond)[0][1] == 0
    assert float(spike.up[-1].text) < 110
    step = nights.chart(of([*calm, 300.0, 301.0, 299.0]))
    assert step is not None
    assert step.beyond == ""
    assert float(step.up[-1].text) >= 250


def test_a_level_is_the_median_between_changes() -> None:
    """An event of the method, the plan or the machine begins a new one as well; a note does not."""
    made = of([10.0, 11.0, 12.0, 20.0, 21.0, 22.0, 30.0, 31.0], changes=[change(3, 2.0, "regressed")])
    told: Any = {**made, "events": [{"at": night(6), "kind": "machine", "text": ""}]}
    assert [part.level for part in nights.segments(made)] == [11.0, 22.0]
    assert [part.level for part in nights.segments(told)] == [11.0, 21.0, 30.5]
    noted: Any = {**made, "events": [{"at": night(6), "kind": "note", "text": ""}]}
    assert [part.level for part in nights.segments(noted)] == [11.0, 22.0]


@pytest.mark.parametrize(("unit", "value", "ends"), [("bytes", 2.3e9, "GiB"), ("share", 0.97, "%"), ("ms", 230.0, "")])
def test_marks_of_the_axis_have_the_unit_of_the_values(unit: str, value: float, ends: str) -> None:
    """Bytes and shares are shown as the table shows them, and marks are round in that unit."""
    made = nights.chart(of([value * (1 + 0.01 * (number % 4)) for number in range(20)], unit=unit))
    assert made is not None
    for mark in made.up:
        number, _, name = mark.text.partition("\u202f")
        assert name == ends
        assert len(number) <= 7, mark.text


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_round_marks_are_few_and_within(low: float, width: float) -> None:
    """At most five and one between two ends."""
    high = low + width
    if high <= low:
        return
    marks = nights.round_marks(low, high)
    assert 1 <= len(marks) <= nights.MOST_MARKS + 1
    room = 1e-6 * max(abs(low), abs(high), width)
    assert all(low - room <= mark <= high + room and math.isfinite(mark) for mark in marks)
