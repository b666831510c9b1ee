"""The first screen: whole, at three widths, for known runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.console import Console

from harness.cli.commands.report import report_data
from reports.data import ReportData
from reports.tables.overview import overview
from reports.writers import terminal
from reports.writers.grid import fitted, grid, in_line
from tests.choices import results_of
from tests.fabricated import again
from tests.reports.tables.test_decision import LEVELS, LIMITS

WIDTHS = (80, 100, 200)


@pytest.fixture(scope="module")
def choice() -> ReportData:
    """Five quantizations with quality, one of them skipped; limits that q4_k_m holds fastest."""
    return report_data(results_of(LEVELS, limits=LIMITS))


def screen(data: ReportData, width: int, report: str = "runs/x/report.html") -> str:
    """What a terminal without colours shows."""
    out = io.StringIO()
    terminal.show(data, Console(file=out, width=width), report)
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


@pytest.mark.parametrize("name", ["full", "sweep", "single", "choice", "hostile"])
def test_screens_are_as_agreed(name: str, request: pytest.FixtureRequest, golden: Callable[[str, str], None]) -> None:
    """At 80, 100 and 200 columns; no line is longer, and none has control codes."""
    data = request.getfixturevalue(name)
    screens = {width: screen(data, width) for width in WIDTHS}
    golden(f"terminal-{name}.txt", "".join(f"{'=' * width}\n{text}" for width, text in screens.items()))
    for width, text in screens.items():
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text


@pytest.mark.parametrize("width", [60, 70, 90, 105, 120, 140, 160, 250])
def test_no_number_and_no_name_is_broken(sweep: ReportData, width: int) -> None:
    """Columns are left out instead; the most important number stays."""
    table = "\n".join(line.plain for line in grid(overview(sweep), width))
    assert max(map(len, table.splitlines())) <= width
    for word in ("TTFT", "p95", "1/s", "8/s", "747*", "✗"):
        assert word in table.split() or word in table


def test_a_narrow_terminal_cuts_no_word_of_the_legend(sweep: ReportData) -> None:
    """The meaning of a mark goes on in the next line."""
    text = screen(sweep, 50)
    assert max(map(len, text.splitlines())) <= 50
    assert "(all 95 % intervals:\nreport.html)" in text


def test_more_room_shows_more(sweep: ReportData) -> None:
    """The columns of a table of 80 stand in one of 100, those in one of 200."""
    found = overview(sweep)
    narrow, usual, wide = ({(one.over, one.head) for one in fitted(found, width)} for width in WIDTHS)
    assert narrow < usual < wide
    assert {("rate req/s", "done"), ("TTFT ms (from due)", "p99"), ("SLO", "met")} <= usual


def test_intervals_stand_beside_their_values_where_there_is_room(sweep: ReportData) -> None:
    """In square brackets, with the digits of the value."""
    assert "[" not in "\n".join(line.plain for line in grid(overview(sweep), 100))
    assert "747* [" in "\n".join(line.plain for line in grid(overview(sweep), 200))


def test_a_line_tells_a_load_without_a_table(sweep: ReportData) -> None:
    """For logs: the numbers of highest rank with their names and units."""
    found = overview(sweep)
    numbers = in_line(found, found.lines[3])
    assert numbers[0] == "rate asked 8.00 done 8.00 req/s"
    assert numbers[1].startswith("TTFT p50 87.5* p95 747* ms")
    assert "output 320 tok/s" in numbers


def test_the_verdict_and_the_exit_code_are_the_last_words(sweep: ReportData) -> None:
    """Before the path of the report."""
    *_, verdict, path = screen(sweep, 100).splitlines()
    assert verdict.split() == ["FAIL", "1", "of", "2", "limits", "exit", "1"]
    assert len(verdict) == 100
    assert path == "report  runs/x/report.html"


def test_colours_are_not_the_only_sign(sweep: ReportData) -> None:
    """With a colour terminal the text is the same."""
    out = io.StringIO()
    terminal.show(sweep, Console(file=out, width=100, force_terminal=True, color_system="truecolor"))
    assert "\x1b[" in out.getvalue()


def test_a_run_without_results_says_so(full: ReportData) -> None:
    """No table of dashes."""
    empty = replace(full, manifest=again(full.manifest, cells=[]), facts=[], validity=[], verdicts=[], decisions=[])
    text = screen(replace(empty, summary=full.summary.iloc[:0]), 100)
    assert "nothing measured" in text
    assert "TTFT" not in text
