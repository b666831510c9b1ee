"""Writers of a tuning: for a terminal, Markdown, and a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from reports import tuning
from reports.format import for_terminal
from reports.writers.grid import STYLES, grid_of_table
from reports.writers.markdown import escape, section

_LABEL = 13


def show(data: Mapping[str, Any], console: Console) -> None:
    """Print the candidates, how the best was confirmed, and what to use with the exit code."""
    console.print(Text(for_terminal(tuning.title(data)), style="bold"))
    for line in grid_of_table(tuning.table(data), console.width, ("starts",), "tuning.html"):
        console.print(line, no_wrap=True, overflow="crop")
    for label, text in tuning.lines(data):
        console.print(Text.assemble((f" {label:<{_LABEL - 1}}", "bold"), for_terminal(text)), soft_wrap=True)
    console.print()
    word, why, tone = tuning.verdict(data)
    said = Text.assemble((for_terminal(word), f"bold {STYLES[tone]}".strip()), f"  {for_terminal(why)}")
    console.print(said, f"  exit {data['exit_code']}", soft_wrap=True)


def as_markdown(data: Mapping[str, Any]) -> str:
    """Return the tuning for an issue: what to use, then the candidates."""
    word, why, _ = tuning.verdict(data)
    lines = [f"## {escape(word)}", "", escape(why), "", escape(tuning.title(data)), ""]
    lines += section(tuning.table(data), level=3, folded=False)
    lines += [f"- **{label.capitalize()}**: {escape(text)}" for label, text in tuning.lines(data)]
    return "\n".join([*lines, ""])


def as_html(data: Mapping[str, Any]) -> str:
    """Return the page: what to use first, then every candidate."""
    from reports.writers.html import page

    word, why, tone = tuning.verdict(data)
    return page(
        "tuning.html",
        page_title=f"{word} · {tuning.title(data)}",
        title=data["name"],
        subject=tuning.title(data),
        word=word,
        why=why,
        tone=tone,
        code=data["exit_code"],
        lines=tuning.lines(data),
        table=tuning.table(data),
        footer=data["folder"],
    )
