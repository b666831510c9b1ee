"""A number held against the bound of a limit: the outcome, and how sure it is."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from enum import StrEnum

_OPERATORS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}
SURE, LIKELY = "sure", "likely"


class Outcome(StrEnum):
    """Outcome of a limit."""

    PASS = "pass"
    FAIL = "fail"
    INVALID = "invalid"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True)
class Held:
    """A number, the ends of its 95 % interval and the bound, in one unit. NaN and infinite ends are unknown.

    A value of NaN is censored: the truth lies between the ends. `exact`: without ends it is a fact, such as a maximum.
    """

    op: str
    bound: float
    value: float
    low: float = math.nan
    high: float = math.nan
    exact: bool = False

    @property
    def outcome(self) -> Outcome:
        """The value decides; if it is censored, the end that it is known to be beyond, where that suffices."""
        if not math.isnan(self.value):
            return Outcome.PASS if self._holds(self.value) else Outcome.FAIL
        best, worst = (self.low, self.high) if self.op[0] == "<" else (self.high, self.low)
        if math.isfinite(worst) and self._holds(worst):
            return Outcome.PASS
        return Outcome.FAIL if math.isfinite(best) and not self._holds(best) else Outcome.CANNOT_TELL

    @property
    def certainty(self) -> str:
        """Return "sure" if the whole interval is on the value's side, else "likely"; "" for facts and the unknown."""
        if self.outcome is Outcome.CANNOT_TELL or (self.exact and math.isnan(self.low) and math.isnan(self.high)):
            return ""
        passes = self.outcome is Outcome.PASS
        nearest = self.high if (self.op[0] == "<") is passes else self.low
        known = not math.isnan(self.value) and not math.isnan(nearest)
        return SURE if known and self._holds(nearest) is passes else LIKELY

    def _holds(self, number: float) -> bool:
        return bool(_OPERATORS[self.op](number, self.bound))
