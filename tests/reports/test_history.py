"""History as tables: sparklines, marks, and values with their units."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.history import BLOCKS, mark, nights, overview, runs_text, sparkline, value_text

ABOUT = {"unit": "ms", "show": "time", "scale": "ratio", "better": "lower", "control": False, "nights": 1, "runs": 2}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], BLOCKS),
        ([100, None, 200], "▁ █"),
        ([100, 100.1, 99.9], "▅▅▄"),  # noise of a tenth of a per cent is flat
        ([5], "▅"),
        ([0, 0], "▅▅"),
        ([None], ""),
        ([], ""),
    ],
)
def test_a_sparkline_has_a_block_for_each_night(values: list[float | None], line: str) -> None:
    """Low to high; an unknown value is a space."""
    assert sparkline(values) == line


@given(st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), max_size=30))
def test_any_numbers_have_a_sparkline(values: list[float | None]) -> None:
    """As long as the numbers, unless all are unknown."""
    line = sparkline(values)
    assert len(line) == (len(values) if any(value is not None for value in values) else 0)
    assert set(line) <= {*BLOCKS, " "}


def point(**keys: Any) -> dict[str, Any]:
    """A night."""
    usual = {"at": "2026-11-30T02:00:00Z", "label": "abc", "value": 20.0, "low": 19.5, "high": 20.5, "change": 1.1}
    return {**usual, "doubt": "", "events": [], **keys}


def test_a_mark_says_what_is_known_of_a_night() -> None:
    """Its events, and why its data is poor."""
    events = [{"kind": "release", "text": "1.1"}, {"kind": "note", "text": "new fan"}]
    assert mark(point(events=events, doubt="too few requests")) == (
        "release: 1.1; note: new fan; poor data: too few requests"
    )
    assert mark(point()) == ""


def test_nights_have_value_interval_and_change() -> None:
    """What is unknown is a dash and no zero."""
    table = nights({**ABOUT, "points": [point(), point(value=None, low=None, high=None, change=None)]})
    texts = [[cell.text.replace("\u202f", " ") for cell in row] for row in table.rows]
    assert texts[0] == ["2026-11-30 02:00", "abc", "20.0 ms", "19.5 to 20.5", "+10.0 %", ""]
    assert texts[1][2:] == ["—", "—", "—", ""]


def test_series_are_rows_with_the_last_value() -> None:
    """A control says so."""
    one = {**ABOUT, "number": 7, "short": "chat ttft_ms p50", "first": "2026-11-01T02:00:00Z", "value": 20.0}
    table = overview({"series": [{**one, "last": "2026-11-30T02:00:00Z", "values": [1.0, 2.0], "control": True}]})
    texts = [cell.text.replace("\u202f", " ") for cell in table.rows[0]]
    assert texts == ["7", "chat ttft_ms p50 (control)", "1", "2026-11-01", "2026-11-30", "20.0 ms", "▁█"]


def test_numbers_have_units_and_counts_words() -> None:
    """Shares and bytes bring their own."""
    assert value_text(0.015, {"unit": "share", "show": "share"}).replace("\u202f", " ") == "1.50 %"
    assert value_text(2048, {"unit": "bytes", "show": "bytes"}).replace("\u202f", " ") == "2.00 KiB"
    assert runs_text({"nights": 1, "runs": 2}) == "2 runs of 1 night"
    assert runs_text({"nights": 3, "runs": 3}) == "3 nights"
