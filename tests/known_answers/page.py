"""The table of these known answers in docs/known-answers.md, and what docs/metrics.md says that there is to know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.known_answers.case import Case
from tests.known_answers.cases import Group, Run, every
from tests.known_answers.measured import Measured

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "known-answers.md"
BEGIN, END = "<!-- known answers of each metric: begin -->", "<!-- known answers of each metric: end -->"
HEAD = ["| metric | case | truth | measured |", "|---|---|---|---|"]
METRIC = re.compile(r"^\| `(\w+)` \| ([^|]+) \|")
SECTION = re.compile(r"^## (.*)$")
WITHIN, SAME = "within it, in every run", "the same, in every run"
WITHOUT_UNIT = ("share", "ratio", "perplexity", "count")


@dataclass(frozen=True, slots=True)
class Named:
    """A metric by docs/metrics.md."""

    name: str
    unit: str
    section: str


def named() -> list[Named]:
    """Every metric of the page, in its order."""
    found, section = [], ""
    for line in (DOCS / "metrics.md").read_text(encoding="utf-8").splitlines():
        if head := SECTION.match(line):
            section = head[1]
        elif row := METRIC.match(line):
            found.append(Named(row[1], row[2], section))
    return found


def table(runs: Mapping[Run, Measured]) -> list[str]:
    """Rows in the order of docs/metrics.md. runs: those whose values stand in the table; of others it says `?`."""
    places = {one.name: (place, one.unit) for place, one in enumerate(named())}
    ordered = sorted(every(), key=lambda one: places[one[1].metric][0])
    return [*HEAD, *(row(group, case, places[case.metric][1], runs) for group, case in ordered)]


def row(group: Group, case: Case, unit: str, runs: Mapping[Run, Measured]) -> str:
    """A case's row."""
    which = "" if case.statistic == "value" else f"{case.statistic}: "
    more = "> " if case.column == "low" else ""
    shown_unit = "" if unit in WITHOUT_UNIT else f" {unit}"
    if case.truth is None:
        place, truth, measured = group.title, case.follows, WITHIN
    else:
        place, truth, measured = f"{group.title}: {case.follows}", f"{more}{number(case.truth)}{shown_unit}", SAME
    if group.repeated:
        measured = more + number(case.measured(runs[group.run])) if group.run in runs else "?"
    return f"| `{case.metric}` | {place} | {which}{truth} | {measured} |"


def number(value: float) -> str:
    """To six digits; of large ones all before the point."""
    return f"{value:.6g}" if abs(value) < 1e6 else f"{value:,.0f}"


def on_the_page() -> list[str]:
    """The rows as the page has them."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()


def write(rows: list[str]) -> None:
    """Put them there."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text("\n".join([before + BEGIN, *rows, END + rest.split(END)[1]]), encoding="utf-8")
