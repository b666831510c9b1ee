"""The table of thresholds: one place, and the page says what the code does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from harness.verdict import thresholds
from harness.verdict.reason import Level
from harness.verdict.thresholds import TABLE, Threshold, as_markdown, inserted

PAGE = Path(__file__).parents[3] / "docs" / "method.md"


def test_the_page_says_what_the_code_does() -> None:
    """docs/method.md holds the table as it is; `python -m harness.verdict.thresholds` writes it there."""
    assert as_markdown() in PAGE.read_text(encoding="utf-8")


def test_every_threshold_stands_in_the_table() -> None:
    """None is hidden from the reader."""
    defined = [value for value in vars(thresholds).values() if isinstance(value, Threshold)]
    assert {id(one) for one in defined} == {id(one) for one in TABLE}
    assert len({one.subject for one in TABLE}) == len(TABLE)


@pytest.mark.parametrize(
    ("value", "level"),
    [(1.0, Level.VALID), (1.1, Level.WARN), (5.0, Level.WARN), (5.1, Level.INVALID), (math.nan, Level.VALID)],
)
def test_levels(value: float, level: Level) -> None:
    """Above, not at; what is not known speaks against nothing."""
    assert Threshold("x", "ms", 1.0, 5.0).level(value) is level


def test_a_page_without_marks_is_refused() -> None:
    """The table has its place."""
    with pytest.raises(ValueError, match="thresholds: begin"):
        inserted("# Page")
