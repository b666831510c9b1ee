"""The summary at the end of a run, for a terminal. Colours only where the console has them (NO_COLOR, pipes: none)."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from reports import markdown, tables
from reports.data import ReportData
from reports.tables import Cell, Table

STYLES = {"good": "green", "bad": "bold red", "doubtful": "yellow", "": ""}


def show(data: ReportData, console: Console) -> None:
    """Print results, limits, what is missing and what to do, and the verdict last, where it stays in view."""
    for table in (tables.headline(data), tables.limits(data), tables.not_run(data), tables.errors(data)):
        _print(console, table)
    _print(console, tables.reasons(data))
    console.print(Text(markdown.headline(data).strip().replace("**", ""), style="bold"))


def _print(console: Console, table: Table) -> None:
    if not table.rows:
        return
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(table.head):
        shown.add_column(Text(name), justify="left" if number < table.texts else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*(_text(cell) for cell in row))
    console.print(shown)
    for number, note in enumerate(table.notes, 1):
        console.print(Text(f"({number}) {note}"))


def _text(cell: Cell) -> Text:
    # server errors may carry escape sequences
    text = "".join(sign if sign.isprintable() else " " for sign in cell.text)
    return Text(f"{text} ({cell.note})" if cell.note else text, style=STYLES[cell.tone])
