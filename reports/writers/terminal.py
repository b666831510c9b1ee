"""Writer of the summary at the end of a run, for a terminal; coloured if the console has colours."""

from __future__ import annotations

from dataclasses import replace
from textwrap import fill

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reports import answer, sections
from reports.data import ReportData
from reports.format import for_terminal
from reports.tables import decision
from reports.tables.base import Cell, Table

STYLES = {"good": "green", "bad": "bold red", "doubtful": "yellow", "": ""}


def show(data: ReportData, console: Console) -> None:
    """Print the tables and the decision; answer and headline last, where they stay in view."""
    for table in sections.ranked(data, "terminal"):
        _print(console, table)
    _print_decisions(console, data)
    console.print(Text(for_terminal(data.calibration)))
    console.print()
    for label, text in answer.labelled(data):
        console.print(Text.assemble((f"{label}: ", "bold"), for_terminal(text)))
    console.print()
    console.print(Text(answer.headline(data), style="bold"))


def _print_decisions(console: Console, data: ReportData) -> None:
    """Print the decision of each model; the results have the numbers under each load."""
    for model in decision.of_models(data, wide=False):
        console.print(Text(for_terminal(model.title), style="bold"))
        for table in model.tables:
            _print(console, _narrowed(table))
        for line in (*model.remarks, ""):
            console.print(Text(for_terminal(line)))
        for number, line in enumerate(model.advice):
            console.print(Text(for_terminal(line), style="" if number else "bold"))


def _print(console: Console, table: Table) -> None:
    """Print a table if every number and every word fits in one piece, else a paragraph for each row."""
    if _width(table, whole=True) <= console.width:
        _print_table(console, table)
        return
    narrow = _narrowed(table)
    if table.texts == len(table.head) or _width(narrow, whole=False) <= console.width:
        _print_table(console, narrow, left=0)
    else:
        _print_stacked(console, narrow)


def _print_table(console: Console, table: Table, left: int = 1) -> None:
    """Print a table; left: additional spaces before each column."""
    title = Text(for_terminal(table.title))
    shown = RichTable(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    shown.padding = (0, 1, 0, left)
    for number, name in enumerate(table.head):
        text = number < table.texts
        whole = not text or all(" " not in words for words in (name, *(row[number].text for row in table.rows)))
        shown.add_column(Text(name), justify="left" if text else "right", overflow="fold", no_wrap=whole)
    for row in table.rows:
        shown.add_row(*(_text(cell) for cell in row))
    console.print(shown)
    _print_notes(console, table)


def _width(table: Table, *, whole: bool) -> int:
    """Return the width of a table; whole: texts in one line, else broken between words."""
    total = (3 if whole else 2) * len(table.head) + 1
    for number, name in enumerate(table.head):
        lines = [*name.splitlines(), *(_text(row[number]).plain for row in table.rows)]
        if number < table.texts and not whole:
            lines = [word for line in lines for word in line.split()]
        total += max(map(len, lines), default=0)
    return total


def _narrowed(table: Table) -> Table:
    """Return a table whose heads of numbers are broken into lines no wider than the numbers."""
    widest = [max(len(_text(row[column]).plain) for row in table.rows) for column in range(len(table.head))]
    heads = [
        name if number < table.texts else fill(name, max(widest[number], *map(len, name.split())))
        for number, name in enumerate(table.head)
    ]
    return replace(table, head=tuple(heads))


def _print_stacked(console: Console, table: Table) -> None:
    """Print a paragraph for each row, for narrow terminals."""
    console.print(Text(for_terminal(table.title), style="bold"))
    heads = [" ".join(name.split()) for name in table.head[table.texts :]]
    for row in table.rows:
        place = [text for text in map(_text, row[: table.texts]) if text.plain]
        console.print(Text(", ").join(place), style="bold")
        values = row[table.texts :]
        if values[0].note and all((cell.text, cell.note) == (values[0].text, values[0].note) for cell in values):
            console.print(Text("  ") + _text(values[0]))
            continue
        named = (Text(f"{name} ") + _text(cell) for name, cell in zip(heads, values, strict=True))
        console.print(Text("  ") + Text(" · ").join(named))
    _print_notes(console, table)


def _print_notes(console: Console, table: Table) -> None:
    for number, note in enumerate(table.notes, 1):
        console.print(Text(for_terminal(f"({number}) {note}")))


def _text(cell: Cell) -> Text:
    text = for_terminal(cell.text)
    return Text(f"{text} ({cell.note})" if cell.note else text, style=STYLES[cell.tone])
