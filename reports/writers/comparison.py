"""Writers of a comparison: for a terminal, and Markdown for a comment on a pull request."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from reports import comparison
from reports.format import for_terminal
from reports.tables.base import Table
from reports.writers.grid import STYLES, grid_of_table
from reports.writers.markdown import escape, section

_LABEL = 13


def show(data: Mapping[str, Any], console: Console) -> None:
    """Print both sides, the tables, what differs, and the verdict with the exit code."""
    console.print(Text(for_terminal(comparison.title(data)), style="bold"))
    for table in (comparison.gating(data), comparison.others(data)):
        if table.rows:
            _print(table, console, ("least seen", comparison.interval_name(data), "margin"))
    for label, text in comparison.lines(data):
        console.print(Text.assemble((f" {label:<{_LABEL - 1}}", "bold"), for_terminal(text)))
    console.print()
    word, why, tone = comparison.verdict(data)
    left = Text.assemble((word, f"bold {STYLES[tone]}".strip()), f"  {for_terminal(why)}" if why else "")
    console.print(left, f"  exit {data['exit_code']}", soft_wrap=True)


def _print(table: Table, console: Console, left_out: Sequence[str]) -> None:
    console.print(Text(table.title, style="dim"))
    for line in grid_of_table(table, console.width, left_out):
        console.print(line, no_wrap=True, overflow="crop")
    console.print()


def as_markdown(data: Mapping[str, Any]) -> str:
    """Return the comparison for a comment: the verdict first, the numbers that decide nothing folded."""
    word, why, _ = comparison.verdict(data)
    lines = [f"## {word} {escape(why)}".rstrip(), "", escape(comparison.title(data)), ""]
    lines += section(comparison.gating(data), level=3, folded=False)
    others = comparison.others(data)
    if others.rows:
        lines += [
            "<details><summary>Further numbers</summary>",
            "",
            *section(others, level=3, folded=False),
            "</details>",
            "",
        ]
    lines += [f"- **{label.capitalize()}**: {escape(text)}" for label, text in comparison.lines(data)]
    sure = f"{100 * (1 - data['alpha']):.3g} %"
    lines += [
        "",
        f"Each end of an interval holds with {sure}. *Least seen*: the change found with a chance of 80 %.",
        "",
    ]
    return "\n".join(lines)


def as_csv(data: Mapping[str, Any]) -> str:
    """Return one row for each number."""
    out = io.StringIO()
    rows = [_flat(row) for row in data["rows"]]
    names = list(rows[0]) if rows else []
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in row.items() if not isinstance(value, Mapping)}
    return found | {f"{side}_{name}": value for side in ("base", "head") for name, value in row[side].items()}
