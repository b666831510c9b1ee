"""Writer of the summary at the end of a run, for a terminal; coloured if the console has colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from reports import answer, sections
from reports.answer import Line
from reports.data import ReportData
from reports.format import for_terminal
from reports.tables import decision
from reports.tables.base import Cell, Table
from reports.tables.overview import WIDE, foot_of, overview
from reports.writers.grid import STYLES, fitted, grid, grid_of_table

LABEL, NARROW, WIDEST_PART = 13, 100, 40
LEFT_OUT = ("dominated by", "size on disk", "KL, nats", "same top token", "quality", "limits")
"""Columns of a choice, in the order in which they are left out without room."""
IN_CHOICE = ("Quality vs. reference", "Replies (descriptive)")
"""Tables whose gist is in a choice."""
WIDEST_LINE = 120
"""On a terminal, texts are broken at this width: longer lines are hard to read."""


def show(data: ReportData, console: Console, report: str = "") -> None:
    """Print subject, results, decision, the lines of the answer, and the verdict with the exit code.

    Args:
        report: Path of the report, for the last line.
    """
    results = _results(console, data)
    edge = max((line.cell_len for line in results), default=min(console.width, WIDEST_LINE))
    edge = min(console.width, max(edge, min(console.width, NARROW)))
    _print_head(console, data, edge)
    for line in results:
        console.print(line, no_wrap=True, overflow="crop")
    models = decision.of_models(data, wide=False)
    for model in models:
        _print_choice(console, model.tables[0], model.model if len(models) > 1 else "")
    for table in sections.ranked(data, "terminal"):
        if not models or table.title not in IN_CHOICE:
            _print(console, table)
    _print_lines(console, answer.lines(data))
    _print_verdict(console, data, report, edge)


def _print_head(console: Console, data: ReportData, edge: int) -> None:
    """Print title and subject, the totals at the right edge or below."""
    title, subject = for_terminal(data.title), for_terminal(answer.subject(data))
    totals = " · ".join(answer.totals(data))
    left = Text.assemble((title, "bold"), "   ", subject)
    _print_ends(console, left, Text(totals), edge)


def _print_ends(console: Console, left: Text, right: Text, edge: int) -> None:
    """Print two texts at the edges of a line, or in two lines without room."""
    space = edge - left.cell_len - right.cell_len
    if space < 2:
        console.print(left)
        console.print(Text(" ") + right)
        return
    console.print(left + Text(" " * space) + right)


def _results(console: Console, data: ReportData) -> list[Text]:
    """Return the results table with its foot; nothing if nothing was tried."""
    found = overview(data)
    if not found.lines:
        return []
    where = {WIDE: " (all 95 % intervals: report.html)"}
    shown = (cell for column in fitted(found, console.width) if column.number for cell in column.cells)
    marks = (Text(f" {sign} {text}{where.get(sign, '')}", style="dim") for sign, text in foot_of(found, shown))
    foot = (line for mark in marks for line in mark.wrap(console, console.width))
    return [*grid(found, console.width), *foot, Text("")]


def _print_choice(console: Console, table: Table, title: str) -> None:
    """Print the choices between engines and quantizations, with the columns that fit; report.html has the remarks."""
    if title:
        console.print(Text(for_terminal(title), style="bold"))
    for line in grid_of_table(table, console.width, LEFT_OUT):
        console.print(line, no_wrap=True, overflow="crop")
    console.print()


def _print_lines(console: Console, lines: Sequence[Line]) -> None:
    """Print the lines of the answer: each label once, and the parts of its lines in columns."""
    width = min(console.width, WIDEST_LINE) if console.is_terminal else console.width
    for label, group in groupby(lines, lambda line: line.label):
        members = list(group)
        columns = zip(*(line.parts[:-1] for line in members if len(line.parts) > 1), strict=False)
        widths = [max([cell_len(part) for part in column if len(part) <= WIDEST_PART] or [0]) for column in columns]
        for number, line in enumerate(members):
            parts = [Text(for_terminal(part)) for part in line.parts]
            if parts:
                parts[0].stylize(STYLES[line.tone], 0, _styled(line))
            for part, wanted in zip(parts[:-1], widths, strict=False):
                part.pad_right(max(0, wanted - part.cell_len))
            first = Text(f" {'' if number else label:<{LABEL - 1}}", style="bold")
            _print_hanging(console, first, Text("   ").join(part for part in parts if part.plain), width)
    if lines:
        console.print()


def _styled(line: Line) -> int:
    """Return the number of characters that have the tone: a sign, a word or a number before the text."""
    return len(line.parts[0].partition(" ")[0])


def _print_hanging(console: Console, first: Text, text: Text, width: int) -> None:
    """Print a text behind its label, its further lines indented like the first."""
    text.rstrip()
    for number, line in enumerate(text.wrap(console, max(20, width - LABEL), overflow="fold")):
        line.rstrip()
        console.print((first if number == 0 else Text(" " * LABEL)) + line, no_wrap=True, overflow="crop")


def _print_verdict(console: Console, data: ReportData, report: str, edge: int) -> None:
    """Print verdict and exit code at the edges, then the report's path and the command that goes on."""
    word, why, tone = answer.verdict(data)
    parts = [part for part in (why, answer.how_it_ended(data)) if part]
    left = Text.assemble((word, f"bold {STYLES[tone]}".strip()), "  " if word else "", " · ".join(parts))
    code = "" if data.exit_code is None else f"exit {data.exit_code}"
    _print_ends(console, left, Text(code), edge)
    ends = [f"report  {report}"] if report else []
    ends += [f"next    {command}" for command in [answer.next_command(data, report)] if command]
    for line in ends:
        console.print(Text(for_terminal(line)), soft_wrap=True)


def _print(console: Console, table: Table) -> None:
    """Print a table with its title and its footnotes; without room its last columns are missing."""
    console.print(Text(for_terminal(table.title), style="bold"))
    noted = [tuple(replace(cell, text=_with_note(cell)) for cell in row) for row in table.rows]
    lines = grid_of_table(replace(table, rows=noted), console.width, table.head[:0:-1])
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop")
    for number, note in enumerate(table.notes, 1):
        if any(f"({number})" in line.plain for line in lines) or number > max(_notes(table)):
            console.print(Text(f" ({number}) {for_terminal(note)}", style="dim"))
    console.print()


def _notes(table: Table) -> list[int]:
    """Return the numbers of the footnotes that cells have, and 0: further ones are about the whole table."""
    return [0, *(cell.note for row in table.rows for cell in row if cell.note)]


def _with_note(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text
