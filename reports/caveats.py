"""Caveats: one per cause, merged over the loads that have it, the largest effect first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reports.data import ReportData, keys_of, keys_of_verdict
from reports.format import count
from reports.labels import DATA
from reports.names import ended, namer, noun
from reports.tables.base import groups

MOST = 3
LEVELS = ("invalid", "warn")
ASKED_FOR = ("capped", "retried")
"""Codes of the notes about what the scenario asked to be done to the load; they stand on the first screen."""


@dataclass(frozen=True, slots=True)
class Caveat:
    """Cause of a caveat.

    Attributes:
        level: Worst level, "invalid" or "warn"; "valid" for a note.
        size: Largest finding: as a multiple of what is tolerated, then its effect as a share of the shown value.
        where: Names of the loads or trials that have it, the one with the largest effect first; `of`: number of all.
        finding: Of that load.
    """

    code: str
    level: str
    size: tuple[float, float]
    where: tuple[str, ...]
    of: int
    noun: str
    finding: str
    action: str
    alike: bool

    @property
    def text(self) -> str:
        """Finding and action, with the loads that they are about."""
        place = self.where[0]
        if self.of > 1 and len(self.where) > 1:
            many = f"in {len(self.where)} of {count(self.of, self.noun)}"
            if len(self.where) == self.of:
                many = f"in both {self.noun}s" if self.of == 2 else f"in all {count(self.of, self.noun)}"
            place = many if self.alike else f"{many}, most at {place}"
        opening = f"{place}: " if self.of > 1 else ""
        action = f" {ended(self.action)}" if self.action else ""
        return f"{opening}{ended(self.finding)}{action}"


def caveats(data: ReportData) -> list[Caveat]:
    """Return the caveats of a run, the worst first, then the largest effect, then the most frequent."""
    return _merged(data, "reasons")


def of_the_load(data: ReportData) -> list[str]:
    """Return what a cap and retries did to the load, as sentences, the largest finding first."""
    found = [one for one in _merged(data, "notes") if one.code in ASKED_FOR]
    return [replace(one, action="").text for one in found]


def _merged(data: ReportData, part: str) -> list[Caveat]:
    """Return the `reasons` or the `notes` of a run, one for each code."""
    name, names = namer(data), dict[str, None]()
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    limited = {keys_of_verdict(one) for one in data.verdicts if one["metric"] == "error_rate"}
    for keys, trials in groups(data).items():
        for cell, trial in trials:
            judged = data.validity_of(cell.id, trial.id)
            if judged is None or not data.facts_of(cell.id, trial.id):
                continue  # NOT RUN says why it has no data
            names[name(keys)] = None
            for reason in judged.get(part, ()):
                if reason["code"] == "errors" and keys_of(cell, trial.load) in limited:
                    reason = reason | {"advice": ""}  # the scenario says what is acceptable
                found.setdefault(reason["code"], []).append((name(keys), reason))
    made = [_caveat(code, reasons, len(names), noun(data)) for code, reasons in found.items()]
    return sorted(made, key=lambda one: (_badness(one.level), *_largest_first(one.size), -len(one.where)))


def _badness(level: str) -> int:
    """Return the place of a level, the worst first; notes come last."""
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)


def _caveat(code: str, reasons: Sequence[tuple[str, Mapping[str, Any]]], of: int, noun: str) -> Caveat:
    ordered = sorted(reasons, key=lambda one: (_badness(one[1]["level"]), *_largest_first(_size(one[1]))))
    first = ordered[0][1]
    where = tuple(dict.fromkeys(name for name, _ in ordered))
    alike = len({(reason["sentence"], reason["advice"]) for _, reason in reasons}) == 1
    return Caveat(code, first["level"], _size(first), where, of, noun, first["sentence"], first["advice"], alike)


def _size(reason: Mapping[str, Any]) -> tuple[float, float]:
    """Return a finding as a multiple of what is tolerated, and its effect as a share of the shown value."""
    shares = (
        max(effect["value"] - effect["low"], effect["high"] - effect["value"]) / abs(effect["value"])
        for effect in reason.get("effects", ())
        if effect["value"]
    )
    times = reason.get("size", 0.0)
    return math.inf if times is None else times, max(shares, default=0.0)


def _largest_first(size: tuple[float, float]) -> tuple[float, float]:
    return -size[0], -size[1]


def quality(data: ReportData) -> str:
    """Return the word for the data of a run: good, usable or poor; "" if there is none."""
    return DATA.get(level(data), "")


def level(data: ReportData) -> str:
    """Return the worst validity of the trials that left data; "" if none did."""
    levels = {one["verdict"] for one in data.validity if data.facts_of(one["cell"], one["trial"])}
    return next((one for one in (*LEVELS, "valid") if one in levels), "")


def summary(data: ReportData, rest: str = "in report.html") -> list[str]:
    """Return the largest caveats as sentences, with the number of the others and where they are."""
    found = caveats(data)
    more = [f"{len(found) - MOST} more {rest}"] if len(found) > MOST else []
    return [*(one.text for one in found[:MOST]), *more]
