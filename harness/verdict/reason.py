"""Validity of a trial: its reasons, each with the numbers that it concerns and the effect on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How good a trial is; the worst of its reasons decides."""

    VALID = "valid"
    WARN = "warn"
    INVALID = "invalid"

    @property
    def badness(self) -> int:
        """0 for the best."""
        return tuple(Level).index(self)


def worst(*levels: Level) -> Level:
    """The worst of some levels; valid if there is none."""
    return max(levels, key=lambda level: level.badness, default=Level.VALID)


@dataclass(frozen=True, slots=True)
class Effect:
    """Shown number that a doubt is about, and the ends between which the true one lies, in the metric's unit."""

    metric: str
    statistic: str
    value: float
    low: float
    high: float

    @property
    def off(self) -> float:
        """Largest distance of the truth from the shown value."""
        return max(self.value - self.low, self.high - self.value)


@dataclass(frozen=True, slots=True)
class Reason:
    """Doubt or note about a trial.

    Attributes:
        code: Stable name, for programs.
        level: WARN if numbers may be off by a stated amount, INVALID if nobody can say by how much, VALID for a note.
        sentence: Finding, with its size, and its cause.
        advice: Action.
        metrics: Names of the metrics whose numbers it concerns; empty if it concerns the load alone.
        effects: Shown numbers with the ends between which the true ones lie.
        size: Finding as a multiple of what is tolerated; the largest is told first.
    """

    code: str
    level: Level
    sentence: str
    advice: str = ""
    metrics: tuple[str, ...] = ()
    effects: tuple[Effect, ...] = ()
    size: float = 0.0

    @property
    def is_of_load(self) -> bool:
        """Whether it means that the load was not the planned one."""
        return self.level is Level.INVALID and (self.code in LOAD_CODES or not self.metrics)


LOAD_CODES = frozenset({"load_missing", "errors", "client_late", "client_slow"})
"""Doubts that, if invalid, mean that the load was not the planned one."""


@dataclass(frozen=True, slots=True)
class Validity:
    """The judgement of a trial: its doubts, the worst and then the largest first, and its notes."""

    verdict: Level
    reasons: tuple[Reason, ...] = ()
    notes: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Reason]) -> Validity:
        """Sort what was found; reasons of level VALID are notes, which change no verdict."""
        known = list(found)
        doubts = [reason for reason in known if reason.level is not Level.VALID]
        doubts.sort(key=lambda reason: (-reason.level.badness, -reason.size))
        notes = tuple(reason for reason in known if reason.level is Level.VALID)
        return cls(worst(*(reason.level for reason in doubts)), tuple(doubts), notes)

    def with_more(self, found: Iterable[Reason]) -> Validity:
        """Return this judgement with further doubts or notes."""
        return Validity.of([*self.reasons, *self.notes, *found])

    @property
    def load_failed(self) -> bool:
        """Whether the load was not the planned one, so that no number describes it."""
        return any(one.is_of_load for one in self.reasons)

    @property
    def poor(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Findings for which data is poor, each with the metrics that it is about; none for all."""
        found = [reason for reason in self.reasons if reason.level is Level.INVALID]
        return tuple((reason.sentence, tuple(reason.metrics)) for reason in found)

    def level_of(self, metric: str) -> Level:
        """Return the worst level of the doubts about a metric."""
        return worst(*(reason.level for reason in self.reasons if metric in reason.metrics))

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for reports."""
        reasons, notes = ([_as_dict(one) for one in part] for part in (self.reasons, self.notes))
        return {
            "verdict": self.verdict.value,
            "load_failed": self.load_failed,
            "reasons": reasons,
            "notes": notes,
        }


def _as_dict(reason: Reason) -> dict[str, Any]:
    effects = [asdict(effect) for effect in reason.effects]
    shown = {"code": reason.code, "level": reason.level.value, "sentence": reason.sentence, "advice": reason.advice}
    size = round(float(reason.size), 3) if math.isfinite(reason.size) else None
    return shown | {"metrics": list(reason.metrics), "effects": effects, "size": size}
