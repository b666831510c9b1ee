"""Bisection as a table and sentences; its input is the plain data of `harness bisect --json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.comparison import change_text, number_name
from reports.format import THIN, UNKNOWN, count, dotted, shortened
from reports.tables.base import Cell, Table

_SUBJECT = 60
WORDS = {
    "found": ("FIRST BAD", "good"),
    "narrowed": ("NARROWED", "doubtful"),
    "no difference": ("NO DIFFERENCE", ""),
    "poor data": ("POOR DATA", "doubtful"),
}


def title(data: Mapping[str, Any]) -> str:
    """Return the number and both ends in one line."""
    where = dotted((number_name(data), data["load"]))
    return f"{data['good']['short']} → {data['bad']['short']} ({count(data['steps'], 'step')}), {where}"


def tried(data: Mapping[str, Any]) -> Table:
    """Return the evidence: each version that was measured, in its order, against the good one."""
    head = ("version", "subject", "pairs", "change", "95 % interval", "changed by then")
    return Table("Measured against the good version", head, [_row(data, one) for one in data["tried"]], texts=2)


def _row(data: Mapping[str, Any], one: Mapping[str, Any]) -> tuple[Cell, ...]:
    ends = [_change(data, one[end]) for end in ("low", "high")]
    interval = UNKNOWN if UNKNOWN in ends else f"{ends[0]} to {ends[1]}"
    guilty = one["version"] in {each["version"] for each in data["guilty"]} and data["word"] == "found"
    return (
        Cell(one["short"], tone="bad" if guilty else ""),
        Cell(shortened(one["subject"], _SUBJECT)),
        Cell(str(one["pairs"])),
        Cell(_change(data, one["change"])),
        Cell(interval),
        Cell(chance(one["changed_by"])),
    )


def _change(data: Mapping[str, Any], value: float | None) -> str:
    return change_text(value, data["scale"])


def chance(value: float | None) -> str:
    """Return a probability in per cent; never 0 or 100 of a posterior."""
    if value is None:
        return UNKNOWN
    least = 0.001
    sign, shown = ("<", least) if value < least else (">", 1 - least) if value > 1 - least else ("", value)
    return f"{sign}{100 * shown:.3g}{THIN}%"


def verdict(data: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return word, reason and tone."""
    word, tone = WORDS[data["word"]]
    if data["word"] in ("no difference", "poor data"):
        return word, data["poor"] or data["ended"], tone
    named = [f"{one['short']} ({chance(one['chance'])})" for one in data["guilty"]]
    if data["word"] == "found":
        return word, " ".join(filter(None, (named[0], data["guilty"][0]["subject"]))), tone
    more = f" and {len(named) - 6} more" if len(named) > 6 else ""
    return word, f"one of {', '.join(named[:6])}{more}: {data['ended']}", tone


def lines(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the sentences below the table, each with its label."""
    found = [("PAIRS", f"{data['pairs']} pairs of starts, in turns with the good version.")]
    found += [("LEFT OUT", f"{one['short']}: {one['why']}") for one in data["left_out"]]
    found += [("POOR DATA", f"{one['short']}: {one['poor']}") for one in data["tried"] if one["poor"]]
    if stray := [one["short"] for one in data["tried"] if one["stray"]]:
        several = "Several steps may have changed the number, each by a part."
        found.append(("STRAY", f"{', '.join(stray)} fits neither the good nor the bad version. {several}"))
    return found
