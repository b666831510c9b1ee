"""Writers of a bisection: for a terminal, and Markdown for an issue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from reports import bisection
from reports.format import for_terminal
from reports.writers.grid import STYLES, grid_of_table
from reports.writers.markdown import escape, section

_LABEL = 13


def show(data: Mapping[str, Any], console: Console) -> None:
    """Print the versions, the evidence, and the first bad version with the exit code."""
    console.print(Text(for_terminal(bisection.title(data)), style="bold"))
    table = bisection.tried(data)
    if table.rows:
        for line in grid_of_table(table, console.width, ("subject",), "bisection.md"):
            console.print(line, no_wrap=True, overflow="crop")
    for label, text in bisection.lines(data):
        console.print(Text.assemble((f" {label:<{_LABEL - 1}}", "bold"), for_terminal(text)))
    console.print()
    word, why, tone = bisection.verdict(data)
    said = Text.assemble((word, f"bold {STYLES[tone]}".strip()), f"  {for_terminal(why)}")
    console.print(said, f"  exit {data['exit_code']}", soft_wrap=True)


def as_markdown(data: Mapping[str, Any]) -> str:
    """Return the bisection for an issue: the first bad version, then the evidence."""
    word, why, _ = bisection.verdict(data)
    lines = [f"## {word} {escape(why)}".rstrip(), "", escape(bisection.title(data)), ""]
    table = bisection.tried(data)
    lines += section(table, level=3, folded=False) if table.rows else []
    lines += [f"- **{label.capitalize()}**: {escape(text)}" for label, text in bisection.lines(data)]
    return "\n".join([*lines, ""])
