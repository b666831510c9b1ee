"""report.md: fits a comment on a pull request; the verdict comes first."""

from __future__ import annotations

import re

from reports import circumstances, decision_table, load_tables, quality_table, result_tables, trouble_tables
from reports.calibration import calibration_sentence
from reports.data import ReportData
from reports.requests_table import requests
from reports.tables import Cell, Table

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#@!~])")


def render(data: ReportData) -> str:
    """The report."""
    parts = [f"# {escape(data.title)}", headline(data), *_decisions(data)]
    for table in (
        result_tables.limits(data),
        result_tables.headline(data),
        requests(data),
        decision_table.single_engines(data),
        *quality_table.tables(data),
        trouble_tables.not_run(data),
        load_tables.servers(data),
        load_tables.bursts(data),
        trouble_tables.errors(data),
    ):
        parts += _section(table)
    parts += _section(trouble_tables.reasons(data))
    parts += [escape(calibration_sentence(data.manifest)), ""]
    parts += ["<details><summary>Circumstances</summary>", "", *_circumstances(data), "</details>"]
    return "\n".join(parts) + "\n"


def headline(data: ReportData) -> str:
    """Validity and limits in one line."""
    without_trials = "QUALITY ONLY" if quality_table.scored(data) else "NOTHING MEASURED"
    words = [f"**{data.verdict().upper() or without_trials}**"]
    outcomes = [verdict["outcome"] for verdict in data.verdicts]
    kinds = [kind for kind in ("fail", "invalid", "cannot_tell", "pass") if kind in outcomes]
    if kinds:
        words.append("limits: " + ", ".join(f"{outcomes.count(kind)} {kind.replace('_', ' ')}" for kind in kinds))
    if data.manifest.get("status") != "complete":
        words.append(f"the run is {data.manifest.get('status')}")
    if data.exit_code is not None:
        words.append(f"exit code {data.exit_code}{_why_zero(data)}")
    return "\n" + " · ".join(words) + "\n"


def _why_zero(data: ReportData) -> str:
    """What makes a run a success in which something is invalid or broken."""
    spoiled = data.verdict() == "invalid" or any(one["outcome"] in ("fail", "invalid") for one in data.verdicts)
    chosen = (data.manifest.get("scenario") or {}).get("decide") == "any"
    return ": one cell holds every limit (decide: any)" if chosen and spoiled and data.exit_code == 0 else ""


def escape(text: str) -> str:
    """Text that shows as itself: no markup, no mentions, no links, one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split())).replace("://", ":&#8203;//")


def _decisions(data: ReportData) -> list[str]:
    """What to run; the tables behind it folded, but for the first."""
    parts = []
    for section in decision_table.sections(data):
        parts += [f"## {escape(section.title)}", "", *(part for line in section.advice for part in (escape(line), ""))]
        first, *others = section.tables
        parts += [*_section(first, 3), "<details><summary>Sizes, starts, loads, and how to read it</summary>", ""]
        parts += [line for table in others for line in _section(table, 3)]
        parts += [*(f"- {escape(remark)}" for remark in section.remarks), "", "</details>", ""]
    return parts


def _section(table: Table, level: int = 2) -> list[str]:
    if not table.rows:
        return []
    rule = ["---" if i < table.texts else "--:" for i in range(len(table.head))]
    lines = [f"{'#' * level} {table.title}", "", _line(table.head), _line(rule)]
    lines += [_line([_cell(cell) for cell in row]) for row in table.rows]
    notes = [f"{number}. {escape(note)}" for number, note in enumerate(table.notes, 1)]
    return [*lines, "", *notes, ""] if notes else [*lines, ""]


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"**{text}**" if cell.tone == "bad" and text else text
    return f"{text} ({cell.note})" if cell.note else text


def _circumstances(data: ReportData) -> list[str]:
    return [f"- {escape(name)}: {escape(value)}" for name, value in circumstances.of_run(data)] + [""]
