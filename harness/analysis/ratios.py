"""The ratio of two measured numbers with its 95 % interval, and how the interval came about."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.stats import t_interval

MIN_PAIRS = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """A number above zero with its interval; NaN where the ends are unknown."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known, so that they can be put on a log scale."""
        return 0 < self.low <= self.value <= self.high < math.inf


@dataclass(frozen=True, slots=True)
class Ratio:
    """value: NaN where there is none.   low, high: NaN without an interval.   method: whence it comes, or why none."""

    value: float
    low: float
    high: float
    method: str


def ratio(one: Measured, other: Measured, pairs: Sequence[tuple[float, float]] = ()) -> Ratio:
    """One by the other. pairs: both numbers in each repetition.

    From three repetitions on: the geometric mean of the pairs' ratios with Student's interval of their logarithms.
    With fewer: from both intervals on the log scale (MOVER: Zou and Donner, 2008), which knows nothing of how much
    another start would change. Otherwise no interval.
    """
    usable = [(a, b) for a, b in pairs if a > 0 and b > 0]
    if len(usable) >= MIN_PAIRS:
        found = t_interval([math.log(a / b) for a, b in usable])
        method = f"from {len(usable)} repetitions, paired"
        return Ratio(math.exp(found.value), math.exp(found.low), math.exp(found.high), method)
    if not (one.value > 0 and other.value > 0):
        return Ratio(math.nan, math.nan, math.nan, "one of the two numbers is unknown")
    value = one.value / other.value
    if not (one.has_interval and other.has_interval):
        return Ratio(value, math.nan, math.nan, "no interval: too few requests for one")
    below = math.hypot(math.log(one.value / one.low), math.log(other.high / other.value))
    above = math.hypot(math.log(one.high / one.value), math.log(other.value / other.low))
    method = "from the intervals of both; how much another start would change is not in it"
    return Ratio(value, value * math.exp(-below), value * math.exp(above), method)
