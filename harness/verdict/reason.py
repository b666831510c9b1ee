"""How good a trial is, and the observations that speak against it."""

from __future__ import annotations

from dataclasses import dataclass
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


def mildest(*levels: Level) -> Level:
    """The best of some levels: where a reading spoils a trial only together with others."""
    return min(levels, key=lambda level: level.badness)


@dataclass(frozen=True, slots=True)
class Reason:
    """One observation against a trial: a stable code, how bad it is, what was seen, what to do."""

    code: str
    level: Level
    sentence: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Validity:
    """The judgement of a trial."""

    verdict: Level
    reasons: tuple[Reason, ...] = ()

    @classmethod
    def of(cls, reasons: list[Reason]) -> Validity:
        """From every reason there is; those that spoil the trial come first."""
        return cls(
            worst(*(reason.level for reason in reasons)),
            tuple(sorted(reasons, key=lambda reason: reason.level is not Level.INVALID)),
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for reports."""
        reasons = [
            {"code": r.code, "level": r.level.value, "sentence": r.sentence, "advice": r.advice} for r in self.reasons
        ]
        return {"verdict": self.verdict.value, "reasons": reasons}
