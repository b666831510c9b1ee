"""The list of sections: one line of it brings a table into every report."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from reports import sections
from reports.data import ReportData
from reports.sections import SECTIONS, Section
from reports.tables.base import Cell, Table
from reports.writers import html, markdown, terminal


def made(title: str, rows: int) -> Callable[[ReportData], Table]:
    """A function that makes a table of so many rows."""
    return lambda data: Table(title, ("what", "how many"), [(Cell(f"{title} has it"), Cell("1"))] * rows)


def shown(data: ReportData) -> tuple[str, str, str]:
    """The page, the Markdown and what a terminal shows."""
    out = io.StringIO()
    terminal.show(data, Console(file=out, width=140))
    return html.render(data), markdown.render(data), out.getvalue()


def test_a_line_brings_a_table_into_every_report(full: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the place it names; on the page in a part of its own, with its title among the contents."""
    line = Section("weather", made("Weather", 1), markdown=2, terminal=1)
    monkeypatch.setattr(sections, "SECTIONS", (*SECTIONS, line))
    page, text, told = shown(full)
    assert '<section id="weather">\n<h2>Weather</h2>' in page
    assert '<a href="#weather">Weather</a>' in page
    assert text.index("## Limits") < text.index("## Weather") < text.index("## Caveats")
    assert told.index("Weather has it") < told.index("LIMITS")


def test_a_writer_shows_what_has_a_place_in_it(full: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markdown folds a table that is folded, and the terminal leaves out what has no rank there."""
    monkeypatch.setattr(sections, "SECTIONS", (*SECTIONS, Section("weather", made("Weather", 1), folded=9)))
    _, text, told = shown(full)
    assert text.index("Further tables") < text.index("### Weather")
    assert "Weather" not in told


def test_a_table_without_rows_is_nowhere(full: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its title nor its part."""
    line = Section("weather", made("Weather", 0), markdown=1, terminal=1)
    monkeypatch.setattr(sections, "SECTIONS", (*SECTIONS, line))
    assert not [report for report in shown(full) if "eather" in report]


def test_sections_of_one_part_share_its_heading(full: ReportData, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of them gives the title, also where it has no rows."""
    lines = (Section("weather", made("Weather", 0)), Section("weather", made("Rain", 1)))
    monkeypatch.setattr(sections, "SECTIONS", lines)
    ((anchor, title, tables),) = sections.page(full)
    assert (anchor, title, [table.title for table in tables]) == ("weather", "Weather", ["Rain"])


@pytest.mark.parametrize("writer", ["markdown", "folded", "terminal"])
def test_no_two_sections_have_the_same_place(writer: str) -> None:
    """Or the order would hang on where in the list they stand."""
    ranks = [rank for section in SECTIONS if (rank := getattr(section, writer)) is not None]
    assert len(ranks) == len(set(ranks))
