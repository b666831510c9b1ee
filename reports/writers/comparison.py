"""Writers of a comparison: for a terminal, and Markdown for a comment on a pull request."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.text import Text

from reports import comparison, hardware
from reports.format import for_terminal, for_xml
from reports.tables.base import Table
from reports.writers.grid import STYLES, grid_of_table
from reports.writers.markdown import MOST_CHARACTERS, ROWS, cut_to, escape, section
from reports.writers.summaries import safe_cell

if TYPE_CHECKING:
    from reports.plots.comparison import Curves

_LABEL = 13
_REST = "comparison.html has them, comparison.csv their numbers"


def show(data: Mapping[str, Any], console: Console) -> None:
    """Print both sides, the tables, what differs, and the verdict with the exit code."""
    console.print(Text(for_terminal(comparison.title(data)), style="bold"))
    for table in (comparison.gating(data), comparison.others(data)):
        if table.rows:
            _print(table, console, ("least seen", comparison.interval_name(data), "margin", "head", "base"))
    for label, text in comparison.lines(data):
        console.print(Text.assemble((f" {label:<{_LABEL - 1}}", "bold"), for_terminal(text)))
    console.print()
    word, why, tone = comparison.verdict(data)
    left = Text.assemble((word, f"bold {STYLES[tone]}".strip()), f"  {for_terminal(why)}" if why else "")
    console.print(left, f"  exit {data['exit_code']}", soft_wrap=True)


def show_hardware(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print the machines of several comparisons, each run once; nothing if they are not compared."""
    rows = [row for data in found for row in data.get("hardware", ())]
    once = list({(row["run"], row["configuration"], row["load"]): row for row in rows}.values())
    for table in hardware.tables(once):
        _print(table, console, ("J/token", "tokens per $", "1M tokens", "1M input", "parameters"))
        for line in table.foot:
            console.print(Text(f" {for_terminal(line)}", style="dim"), soft_wrap=True)
        if table.foot:
            console.print()


def show_many(found: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print a line for each of many comparisons with the same baseline, and how many have each word."""
    table = comparison.many(found)
    console.print(Text(for_terminal(table.title), style="bold"))
    widths = [max(len(row[place].text) for row in table.rows) for place in range(4)]
    for row in table.rows:
        texts = [f"{for_terminal(cell.text):<{width}}" for cell, width in zip(row[:4], widths, strict=True)]
        style = STYLES[row[3].tone]
        line = Text.assemble(f" {'  '.join(texts[:3])}  ", (texts[3], style), f"  {for_terminal(row[4].text)}")
        console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    console.print()
    console.print(f"{comparison.counted(found)}; numbers: --json, or fewer runs", soft_wrap=True)


def _print(table: Table, console: Console, left_out: Sequence[str]) -> None:
    console.print(Text(table.title, style="dim"))
    names = [row[0].text for row in table.rows]
    shown = ["" if name == before else name for name, before in zip(names, ["", *names], strict=False)]
    rows = [(replace(row[0], text=name), *row[1:]) for row, name in zip(table.rows, shown, strict=True)]
    for line in grid_of_table(replace(table, rows=rows), console.width, left_out, "comparison.html (--open)"):
        console.print(line, no_wrap=True, overflow="crop")
    console.print()


def as_markdown(data: Mapping[str, Any]) -> str:
    """Return the comparison for a comment, of at most MOST_CHARACTERS characters: long tables keep what is worst."""
    for rows in (len(data["rows"]), *ROWS):
        text = _as_markdown(data, rows)
        if len(text) <= MOST_CHARACTERS:
            return text
    return text[:MOST_CHARACTERS]


def _as_markdown(data: Mapping[str, Any], rows: int) -> str:
    """Return the verdict first, the numbers that decide nothing folded; tables of at most so many rows."""
    word, why, _ = comparison.verdict(data)
    lines = [f"## {word} {escape(why)}".rstrip(), "", escape(comparison.title(data)), ""]
    for table in hardware.tables(data.get("hardware", ())):
        lines += section(table, level=3, folded=False)
    lines += section(cut_to(comparison.gating(data), rows, _REST), level=3, folded=False)
    others = comparison.others(data)
    if others.rows:
        lines += [
            "<details><summary>Further numbers</summary>",
            "",
            *section(cut_to(others, rows, _REST), level=3, folded=False),
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


def as_html(data: Mapping[str, Any], curves: Sequence[Curves] = ()) -> str:
    """Return the page: the verdict with the changes first, then all numbers and pictures."""
    from reports.plots.comparison import of_comparison
    from reports.plots.hardware import of_machines
    from reports.writers.html import page

    word, why, tone = comparison.verdict(data)
    machines = data.get("hardware", ())
    plots = [*of_comparison(data, curves), *of_machines(machines)]
    return page(
        "comparison.html",
        page_title=f"{word} · {comparison.title(data)}",
        names=f"{data['base']['name']} → {data['head']['name']}",
        title=comparison.title(data),
        word=word,
        why=why,
        tone=tone,
        code=data["exit_code"],
        first=plots[:1],
        plots=plots[1:],
        lines=comparison.lines(data),
        gate=comparison.gating(data),
        others=comparison.others(data),
        hardware=hardware.tables(machines),
        sure=f"{100 * (1 - data['alpha']):.3g} %",
        footer=f"{data['base']['path']} · {data['head']['path']}",
    )


def as_junit(data: Mapping[str, Any]) -> str:
    """Return a test case for each gating number: a failure if it regressed, an error if nobody can tell."""
    suite = ET.Element("testsuite", name=for_xml(comparison.title(data)), hostname="localhost", time="0")
    rows = [row for row in data["rows"] if row["gates"]]
    for row, load in zip(rows, comparison.loads_of(rows), strict=True):
        name = for_xml(comparison.number_name(row))
        case = ET.SubElement(suite, "testcase", classname=for_xml(load), name=name, time="0")
        told = for_xml(comparison.sentence(row))
        if row["word"] in ("regressed", "worse", "cannot tell"):
            kind = "error" if row["word"] == "cannot tell" else "failure"
            ET.SubElement(case, kind, {"type": row["word"], "message": told}).text = told
        else:
            ET.SubElement(case, "system-out").text = told
    for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        suite.set(name, str(sum(1 for _ in suite.iter(tag))))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def as_csv(data: Mapping[str, Any]) -> str:
    """Return one row for each number; no text in it is a formula."""
    out = io.StringIO()
    rows = [_flat(row) for row in data["rows"]]
    names = list(rows[0]) if rows else []
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: safe_cell(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in row.items() if not isinstance(value, Mapping | list)}
    return found | {f"{side}_{name}": value for side in ("base", "head") for name, value in row[side].items()}
