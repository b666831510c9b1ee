"""Histories of any numbers at any times: the board never fails, and says the same of the same nights."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as some

from harness.history.board import make_board
from harness.history.detector.nights import Every
from harness.history.series import Event, Point, Series
from harness.history.tables import board_tables
from tests.histories import KEY, night

NUMBERS = some.one_of(
    some.floats(),
    some.sampled_from([0.0, 1.0, 100.0, -1.0, math.nan, math.inf, 1e-300, 1e300]),
    some.floats(90, 110),
)
POINTS = some.lists(some.tuples(some.floats(0, 3), NUMBERS, some.sampled_from(["", "", "", "late"])), max_size=60)
KINDS = ["plan", "method", "machine", "version", "release", "note"]
METRICS = ["ttft_ms", "error_rate", "unknown_metric"]


@some.composite
def histories(draw: some.DrawFn) -> Series:
    """Nights at growing times, with events and resets anywhere."""
    at, points = 0.0, []
    for gap, value, doubt in draw(POINTS):
        at += gap
        points.append(Point(night(at), value, labels={"commit": f"c{len(points)}"}, doubt=doubt))
    days = some.floats(-2, 100)
    events = draw(
        some.lists(some.builds(Event, days.map(night), some.sampled_from(KINDS), some.text(max_size=3)), max_size=5)
    )
    resets = draw(some.sets(some.integers(0, max(0, len(points) - 1)), max_size=3))
    key = replace(KEY, metric=draw(some.sampled_from(METRICS)))
    better = draw(some.sampled_from(["lower", "higher"]))
    return Series(key, better, tuple(points), tuple(events), draw(some.booleans()), tuple(sorted(resets)))


@given(some.lists(histories(), max_size=4), some.floats(0, 120))
def test_any_history_has_a_board(found: list[Series], days: float) -> None:
    """Whose data is JSON without NaN; told alerts are told no more; the order of the series does not matter."""
    distinct = [replace(one, key=replace(one.key, variant=str(place))) for place, one in enumerate(found)]
    now = night(days)
    made = make_board(distinct, now, Every())
    data = json.dumps(board_tables(made), allow_nan=False)
    assert json.dumps(board_tables(make_board(distinct[::-1], now, Every()))) == data
    told = [alert.as_told(now) for alert in made.alerts]
    assert make_board(distinct, now, Every(), told).new == []


@given(histories())
def test_later_times_only_add_missing_nights(one: Series) -> None:
    """The level is judged by nights, not by the clock."""
    last = max((point.at for point in one.points), default=night(0))
    soon, late = (make_board([one], last + timedelta(days=days)) for days in (0.1, 50))
    assert [judged.state for judged in soon.series] == [judged.state for judged in late.series]
