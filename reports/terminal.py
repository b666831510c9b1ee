"""The summary at the end of a run, for a terminal. Colours only where the console has them (NO_COLOR, pipes: none)."""

from __future__ import annotations

from dataclasses import replace
from textwrap import fill

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reports import answer, decision_table, load_tables, markdown, quality_table, result_tables, trouble_tables
from reports.calibration import calibration_sentence
from reports.data import ReportData
from reports.tables import Cell, Table

WIDE = 120
STYLES = {"good": "green", "bad": "bold red", "doubtful": "yellow", "": ""}


def show(data: ReportData, console: Console) -> None:
    """Print results, limits, what is missing and what to do; answer and verdict last, where they stay in view."""
    results = result_tables.headline(data)
    if console.width < WIDE:
        _print_stacked(console, results)
    else:
        _print(console, results)
    for table in (
        decision_table.single_engines(data),
        result_tables.limits(data),
        *quality_table.tables(data),
        trouble_tables.not_run(data),
        load_tables.servers(data),
        load_tables.bursts(data),
        trouble_tables.errors(data),
        trouble_tables.reasons(data),
    ):
        _print(console, table)
    _print_decisions(console, data)
    console.print(Text(_printable(calibration_sentence(data.manifest))))
    console.print()
    for label, told in answer.labelled(data):
        console.print(Text.assemble((f"{label}: ", "bold"), _printable(told)))
    console.print()
    console.print(Text(markdown.headline(data).strip().replace("**", ""), style="bold"))


def _print_decisions(console: Console, data: ReportData) -> None:
    """What to run; the numbers under each load stand in the results already."""
    for section in decision_table.sections(data, wide=False):
        console.print(Text(_printable(section.title), style="bold"))
        for table in section.tables:
            if console.width < WIDE:
                console.print(Text(table.title, style="bold"))
                _print_stacked(console, table)
            else:
                _print(console, _narrowed(table))
        for line in (*section.remarks, ""):
            console.print(Text(_printable(line)))
        for number, line in enumerate(section.advice):
            console.print(Text(_printable(line), style="" if number else "bold"))


def _print(console: Console, table: Table) -> None:
    if not table.rows:
        return
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(table.head):
        shown.add_column(Text(name), justify="left" if number < table.texts else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(_text(cell) for cell in row))
    console.print(shown)
    _print_notes(console, table)


def _narrowed(table: Table) -> Table:
    """With the heads of numbers in several lines where they are wider than the numbers."""
    widest = [max(len(_text(row[column]).plain) for row in table.rows) for column in range(len(table.head))]
    heads = [
        name if number < table.texts else fill(name, max(widest[number], *map(len, name.split())))
        for number, name in enumerate(table.head)
    ]
    return replace(table, head=tuple(heads))


def _print_stacked(console: Console, table: Table) -> None:
    """For narrow terminals: a paragraph for each row instead of columns of three letters."""
    for row in table.rows:
        place = [text for text in map(_text, row[: table.texts]) if text.plain]
        console.print(Text(", ").join(place), style="bold")
        values = zip(table.head[table.texts :], row[table.texts :], strict=True)
        console.print(Text("  ") + Text(" · ").join(Text(f"{name} ") + _text(cell) for name, cell in values))
    _print_notes(console, table)


def _print_notes(console: Console, table: Table) -> None:
    for number, note in enumerate(table.notes, 1):
        console.print(Text(f"({number}) {note}"))


def _text(cell: Cell) -> Text:
    text = _printable(cell.text)
    return Text(f"{text} ({cell.note})" if cell.note else text, style=STYLES[cell.tone])


def _printable(text: str) -> str:
    """Server errors, and files from elsewhere, may carry escape sequences."""
    return "".join(sign if sign.isprintable() else " " for sign in text)
