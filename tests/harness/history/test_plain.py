"""Series as plain data: the change against the nights before, labels, and the events of each night."""

from __future__ import annotations

import json
import math
from datetime import timedelta

import pytest

from harness.history.plain import nights, overview
from harness.history.series import Series
from harness.history.store.assembly import assembled
from harness.history.store.night import Night
from harness.history.store.notes import Note
from harness.history.store.settings import Settings
from tests.nights import BEGIN, SETUP, night, row, what, year

USUAL = Settings.model_validate({})


def series_of(given: list[Night], notes: list[Note] | None = None) -> Series:
    """The only series of these nights."""
    (found,) = assembled(given, notes or [], USUAL)
    return found


def changes(one: Series) -> list[float | None]:
    """The change of each night."""
    return [point["change"] for point in nights(one, 1, "release")["points"]]


def test_a_night_is_compared_with_the_median_of_up_to_seven_before() -> None:
    """Three at least; an unknown value counts on neither side."""
    found = changes(series_of(year([10, 10, 12, 11, math.nan, 10, 30])))
    assert found[:3] == [None, None, None]
    assert found[3] == pytest.approx(1.1)
    assert found[4] is None
    assert found[5] == pytest.approx(10 / 10.5)
    assert found[6] == pytest.approx(3.0)
    long = changes(series_of(year([1] * 20 + [2] * 7 + [2])))
    assert long[-1] == 1.0


def test_nights_before_a_reset_are_no_measure() -> None:
    """The count begins again."""
    given = [night(day, row(10.0 + day, setup=SETUP._replace(plan="1:x" if day < 4 else "1:y"))) for day in range(9)]
    found = changes(series_of(given))
    assert [one is None for one in found] == [True] * 3 + [False] + [True] * 3 + [False] * 2
    assert found[7] == pytest.approx(17 / 15)


def test_a_share_changes_by_a_difference() -> None:
    """As in a comparison."""
    errors = what("error_rate", "value")
    found = series_of([night(day, row(share, errors)) for day, share in enumerate([0.0, 0.0, 0.0, 0.02])])
    assert nights(found, 1, "release")["scale"] == "difference"
    assert changes(found)[3] == pytest.approx(0.02)


def test_data_is_json_with_null_for_the_unknown() -> None:
    """Never NaN, which is no JSON."""
    found = series_of(year([math.nan, 1.0]))
    for data in (overview([found], [0]), nights(found, 3, "release")):
        assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert overview([found], [0])["series"][0]["values"] == [None, 1.0]
    assert nights(found, 3, "release", last=1)["points"][0]["at"] == "2026-06-02T02:00:00Z"


def test_a_label_is_the_release_and_the_commit() -> None:
    """A hash is short; other labels are shown if there is neither."""
    labels = [{"commit": "a" * 40, "branch": "x"}, {"commit": "b" * 40, "release": "1.0"}, {"branch": "x"}, {}]
    found = series_of([night(day, 1.0, labels=one) for day, one in enumerate(labels)])
    named = [point["label"] for point in nights(found, 1, "release")["points"]]
    assert named == ["a" * 10, "1.0 " + "b" * 10, "branch=x", ""]


def test_notes_stand_at_their_night() -> None:
    """Of a day without a run at the next one; of a moment at the run that began then."""
    again = night(9, 1.0, at=BEGIN + timedelta(days=3, hours=1))
    given = [night(0, 1.0), night(3, 1.0), again]
    notes = [Note("2026-06-02", "between", {}, ""), Note("2026-06-04T03:00", "second", {}, "")]
    points = nights(series_of(given, notes), 1, "release")["points"]
    assert [[event["text"] for event in point["events"]] for point in points] == [[], ["between"], ["second"]]
