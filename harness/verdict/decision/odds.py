"""Odds that one of two speeds is the higher, and the repetitions that would settle it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from harness.analysis.stats import ALPHA, MIN_PAIRS, t_factor
from harness.verdict.limits.held import LIKELY, SURE
from harness.verdict.thresholds import LIKELY_ODDS, MOST_REPETITIONS, SAME_SPEED


@dataclass(frozen=True, slots=True)
class Lead:
    """Ratio of a speed to a lower one.

    Attributes:
        low: Lower end of its 95 % interval; NaN if unknown.
        doubt: Factor by which it is smaller if the worst is true that doubts state of either speed.
        repetitions: Number of repetitions that it comes from.
        paired: Whether its interval is Student's, from the ratios of the repetitions.
    """

    value: float = math.nan
    low: float = math.nan
    repetitions: int = 1
    paired: bool = False
    doubt: float = 1.0

    @property
    def certainty(self) -> str:
        """SURE if the interval is above one, LIKELY by the odds; "" if they are unknown or the speeds are the same."""
        if not self.is_lead:
            return ""
        return SURE if self.low * self.doubt > 1 else LIKELY if self.odds >= LIKELY_ODDS.value else ""

    @property
    def is_lead(self) -> bool:
        """Whether it is more than the speeds of equals differ by, even if the worst is true."""
        return self.value * self.doubt >= 1 + SAME_SPEED.value

    @property
    def odds(self) -> float:
        """Probability that the ratio is above one: Phi(1.96 ln ratio / half width), on the log scale."""
        half = self._half
        return NormalDist().cdf(_z() * math.log(self.value * self.doubt) / half) if half > 0 else math.nan

    @property
    def needed(self) -> int | None:
        """Repetitions that would make it sure; None if more than MOST_REPETITIONS, or without an interval.

        The least n >= 3 with t(n) s / sqrt(n) < ln ratio, where s = half width sqrt(k) / t(k) is the standard deviation
        of k repetitions; for an interval from within them t(k) is 1.96.
        """
        half, lead = self._half, self.value * self.doubt
        tried = range(MIN_PAIRS, int(MOST_REPETITIONS.value) + 1)
        if not self.is_lead or not half > 0:
            return None
        deviation = half * math.sqrt(self.repetitions) / (t_factor(self.repetitions) if self.paired else _z())
        return next((n for n in tried if t_factor(n) * deviation / math.sqrt(n) < math.log(lead)), None)

    @property
    def lacks_interval(self) -> bool:
        """Whether it has no interval, and repetitions would give it one."""
        return self.is_lead and math.isnan(self._half) and self.repetitions < MIN_PAIRS

    @property
    def _half(self) -> float:
        return math.log(self.value / self.low) if 0 < self.low <= self.value else math.nan


def _z() -> float:
    """Return the half width of a normal 95 % interval, in standard errors."""
    return NormalDist().inv_cdf(1 - ALPHA / 2)
