"""Writer of report.md: at most a comment on a pull request, however large the run; in the order of the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reports import answer, caveats, histogram, sections
from reports.data import ReportData
from reports.format import dotted, for_xml, shortened
from reports.tables import decision, environment
from reports.tables.base import Cell, Table
from reports.tables.decision import Decision

MOST_CHARACTERS = 60_000
"""A comment takes 65,536 characters, with the text that a pipeline puts around the report."""
ROWS = (100, 40, 20, 10, 5, 2)
"""Rows of each table, tried in turn until the report fits."""
FOLDED_FROM = 20
LONGEST_TEXT, LONGEST_COMMAND = 300, 2_000
_SAID = ("KNEE", "LENGTHS", "FIT", "COST", "ENGINE")
_SHORTENED = "the report is shortened here: report.html has all of it"
_REST = "report.html has them, summary.csv their numbers"
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#@!~$&])")
_TICKS, _HARMLESS = re.compile(r"(`[^`]*`)"), re.compile(r"`(?:[\w .,;:={}()/%+-]|[<>]=? )+`")
_ADDRESS = re.compile(r"://|(?<=\bwww)\.", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Contents:
    """Parts of the report before it is fitted."""

    beginning: Sequence[str]
    decisions: Sequence[Decision]
    shown: Sequence[Table]
    said: Sequence[str]
    failures: Sequence[Table]
    folded: Sequence[Table]
    histograms: Sequence[tuple[str, Sequence[str]]]
    calibration: str
    commands: Sequence[str]
    environment: Sequence[tuple[str, str]]


def render(data: ReportData) -> str:
    """Return the report, of at most MOST_CHARACTERS characters."""
    verdict, point, rest = answer.headline(data).partition(" · ")
    commands = [line for line in environment.commands(data) if len(line) <= LONGEST_COMMAND]
    contents = Contents(
        beginning=[
            f"# {escape(data.title, LONGEST_TEXT)}",
            f"\n**{verdict}**{point}{rest}\n",
            escape(dotted((answer.subject(data), *answer.totals(data))), 4 * LONGEST_TEXT),
            "",
        ],
        decisions=decision.of_models(data),
        shown=sections.ranked(data, "markdown"),
        said=list(_said(data)),
        failures=sections.ranked(data, "failures"),
        folded=sections.ranked(data, "folded"),
        histograms=list(histogram.of_run(data)),
        calibration=data.calibration,
        commands=commands,
        environment=[fact for fact in environment.of_run(data) if fact[1] not in commands],
    )
    for rows in ROWS:
        text = "\n".join(_parts(contents, rows)) + "\n"
        if len(text) <= MOST_CHARACTERS:
            return text
    first = [*contents.beginning, *contents.said, escape(contents.calibration), "", f"({_SHORTENED})"]
    return "\n".join(line[: MOST_CHARACTERS // len(first) - 1] for line in first) + "\n"


def _said(data: ReportData) -> Iterator[str]:
    """Yield the lines of the answer that no table has: the knee, needs of the engine, and caveats."""
    lines = [line for line in answer.lines(data) if line.label in _SAID]
    for line in lines:
        yield f"**{line.label.capitalize()}**: {escape(dotted(line.parts), LONGEST_TEXT)}"
        yield ""
    found = [f"- {escape(text, 5 * LONGEST_TEXT)}" for text in caveats.summary(data, "below")]
    yield from ("## Caveats", "", *found, "") if found else ()


def _parts(contents: Contents, rows: int) -> Iterator[str]:
    yield from contents.beginning
    yield from _decisions(contents.decisions, rows)
    for table in contents.shown:
        yield from section(cut_to(table, rows))
    yield from contents.said
    for table in contents.failures:
        yield from section(cut_to(table, rows))
    if contents.folded:
        lines = [line for table in contents.folded for line in section(cut_to(table, rows), 3, folded=False)]
        yield from _folded("Further tables", lines)
    yield from _histograms(contents.histograms, rows)
    yield from (escape(contents.calibration), "")
    yield from _folded("Environment", [*_block(contents.commands), *_environment(contents.environment, rows)])


def escape(text: str, longest: int | None = None) -> str:
    """Return text without markup, mentions or links, in one line of at most `longest` characters; `code` stays."""
    plain = " ".join(for_xml(text).split())
    parts = _TICKS.split(plain if longest is None else shortened(plain, longest))
    return "".join(part if _HARMLESS.fullmatch(part) else _plain(part) for part in parts)


def _plain(text: str) -> str:
    """Return a text without marks and links; in code there are no links, and `&#8203;` would stand as it is."""
    return _ADDRESS.sub(lambda found: f"{found[0][0]}&#8203;{found[0][1:]}", _SPECIAL.sub(r"\\\1", text))


def _decisions(decisions: Sequence[Decision], rows: int) -> list[str]:
    """Return the recommendation, the first table, and the other tables folded."""
    parts = []
    for model in decisions:
        advice = (escape(line, LONGEST_TEXT * rows) for line in model.advice)
        parts += [f"## {escape(model.title)}", "", *(part for line in advice for part in (line, ""))]
        first, *others = (cut_to(table, rows) for table in model.tables)
        parts += section(first, 3)
        behind = [line for table in others for line in section(table, 3, folded=False)]
        remarks = [*(f"- {escape(remark)}" for remark in model.remarks), ""]
        parts += _folded("Sizes, startup, loads and remarks", [*behind, *remarks])
    return parts


def _histograms(found: Sequence[tuple[str, Sequence[str]]], rows: int) -> list[str]:
    """Return the first histograms folded, as text of fixed width."""
    shown = [(escape(title, LONGEST_TEXT), lines) for title, lines in found[:rows]]
    blocks = [line for title, lines in shown for line in (title, "", "```text", *lines, "```", "")]
    rest = [f"({len(found) - rows} more are not shown here)", ""] if len(found) > rows else []
    return _folded("Distributions of latency", [*blocks, *rest]) if found else []


def _folded(summary: str, lines: Sequence[str]) -> list[str]:
    return [f"<details><summary>{summary}</summary>", "", *lines, "</details>", ""]


def cut_to(table: Table, most: int, rest: str = _REST) -> Table:
    """Return a table of at most `most` rows: bad and doubtful ones, then the first of the others.

    Args:
        rest: Where the others are.
    """
    if len(table.rows) <= most:
        return table
    order = sorted(range(len(table.rows)), key=lambda number: (_harmless(table.rows[number]), number))
    kept = [table.rows[number] for number in sorted(order[:most])]
    used = sorted({cell.note for row in kept for cell in row if cell.note})
    notes = [table.notes[number - 1] for number in used]
    renumbered = [
        tuple(replace(cell, note=used.index(cell.note) + 1) if cell.note else cell for cell in row) for row in kept
    ]
    more = f"{len(table.rows) - most} more rows: {rest}"
    return replace(table, rows=renumbered, notes=[*notes, more])


def _harmless(row: tuple[Cell, ...]) -> int:
    tones = {cell.tone for cell in row}
    return 0 if "bad" in tones else 1 if "doubtful" in tones else 2


def section(table: Table, level: int = 2, *, folded: bool = True) -> list[str]:
    """Return a table under its title; a long one folded if requested."""
    rule = ["---" if i < table.texts else "--:" for i in range(len(table.head))]
    lines = [_line([escape(name, LONGEST_TEXT) for name in table.head]), _line(rule)]
    lines += [_line([_cell(cell) for cell in row]) for row in table.rows]
    foot = [escape(" · ".join(table.foot)), ""] if table.foot else []
    notes = [f"{number}. {escape(note, LONGEST_TEXT)}" for number, note in enumerate(table.notes, 1)]
    lines += ["", *foot, *notes, *([""] if notes else [])]
    if folded and len(table.rows) > FOLDED_FROM:
        lines = _folded(f"{len(table.rows)} rows", lines)
    return [f"{'#' * level} {table.title}", "", *lines]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text, LONGEST_TEXT)
    text = f"**{text}**" if cell.tone == "bad" and text else text
    return f"{text} ({cell.note})" if cell.note else text


def _block(commands: Sequence[str]) -> list[str]:
    """Return commands to copy."""
    return ["```sh", *commands, "```", ""] if commands else []


def _environment(facts: Sequence[tuple[str, str]], rows: int) -> list[str]:
    lines = [f"- {escape(name, LONGEST_TEXT)}: {escape(value, 4 * LONGEST_TEXT)}" for name, value in facts[:rows]]
    return [*lines, *([f"- ({len(facts) - rows} more)"] if len(facts) > rows else []), ""]
