"""Change of a number between two sides, with its uncertainty; pure.

A number above zero changes by a ratio, whose logarithm is estimated. A share changes by a difference. Each end of an
interval holds with 95 %, so both together with 90 %: whether something got worse is a question with one side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.analysis.stats import Floats, Measured
from harness.scenario.compare import ALPHA, LEAST_PAIRS
from harness.scenario.margins import Scale

POWER = 0.8
SAME = "the same in all starts"
"""Why a share has no interval over the starts: no failure in some requests is not none in a million."""
LEAST_RANKED = 6
"""Pairs from which the signed-rank test can be sure: of five, none is below p = 0.06."""
_CHOICE = 0.8
"""Price of taking the narrower interval: with k pairs of independent noise and 1 + 0.8 / (k + 1) times as wide, it
misses as rarely as it says (simulated for 4 to 12 pairs and 0.6 to 5 %); if neighbours share noise, more rarely."""
_Z95, _Z90 = 1.959964, 1.644854


@dataclass(frozen=True, slots=True)
class Change:
    """Change from one side to the other.

    Attributes:
        at: Logarithm of the ratio, or difference.
        below, above: Standard errors downwards and upwards; NaN if unknown.
        degrees: Degrees of freedom of both; infinite for normal ones.
        pairs: Pairs of starts; 0 if it is not from pairs.
        method: Where the interval is from, or why there is none.
    """

    scale: Scale
    at: float
    below: float
    above: float
    degrees: float = math.inf
    pairs: int = 0
    method: str = ""

    @property
    def value(self) -> float:
        """Ratio, or difference."""
        return self._out(self.at)

    @property
    def known(self) -> bool:
        """Whether it has an interval."""
        return math.isfinite(self.at) and math.isfinite(self.below) and math.isfinite(self.above)

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Return the ends, each of which holds with a chance of 1 - `alpha`; NaN if unknown."""
        if not self.known:
            return math.nan, math.nan
        factor = one_sided_factor(self.degrees, alpha)
        return self._out(self.at - factor * self.below), self._out(self.at + factor * self.above)

    def p_above(self, limit: float) -> float:
        """Return the p-value against a change of at most `limit`, a ratio or a difference; 1.0 if unknown."""
        return self._p(self.at - self._in(limit), self.below)

    def p_below(self, limit: float) -> float:
        """Return the p-value against a change of at least `limit`."""
        return self._p(self._in(limit) - self.at, self.above)

    @property
    def least_seen(self) -> float:
        """Smallest change that such a comparison tells from none (two-sided 5 %) with a chance of 80 %.

        A ratio above 1, or a difference above 0; NaN if unknown.
        """
        if not self.known:
            return math.nan
        return self._out(noticed(self.degrees) * math.sqrt((self.below**2 + self.above**2) / 2))

    def inverse(self) -> Change:
        """Return the change with both sides swapped."""
        return Change(self.scale, -self.at, self.above, self.below, self.degrees, self.pairs, self.method)

    def _p(self, beyond: float, error: float) -> float:
        from scipy.special import stdtr

        if not self.known:
            return 1.0
        if error == 0:
            return 0.0 if beyond > 0 else 1.0
        degrees = min(self.degrees, 1e9)
        return float(stdtr(degrees, -beyond / error))

    def _in(self, number: float) -> float:
        return number if self.scale is Scale.DIFFERENCE else math.log(number) if number > 0 else -math.inf

    def _out(self, number: float) -> float:
        return number if self.scale is Scale.DIFFERENCE else math.exp(number)


def unknown(scale: Scale, why: str, at: float = math.nan) -> Change:
    """Return a change without an interval, and without a value unless `at` is one."""
    return Change(scale, at, math.nan, math.nan, method=why)


def of_pairs(scale: Scale, pairs: Sequence[tuple[float, float]]) -> Change:
    """Return the mean change over pairs (one side, other side) with Student's standard error.

    Each pair is one start of each side. Pairs cancel noise that neighbours share, but have half the degrees of freedom
    of starts that are taken for independent. The narrower of both intervals is taken, wider by `_CHOICE`. There is no
    interval for fewer than LEAST_PAIRS, and for a ratio none if a number is not above zero.
    """
    table = _table(scale, pairs)
    if table is None:
        return unknown(scale, "a number is zero or unknown")
    steps, k = table[:, 1] - table[:, 0], len(table)
    at = float(steps.mean()) if k else math.nan
    if k < LEAST_PAIRS:
        return unknown(scale, f"{k} pairs are too few for an interval", at)
    error = float(steps.std(ddof=1)) / math.sqrt(k)
    if error == 0 and scale is Scale.DIFFERENCE:
        return unknown(scale, SAME, at)
    both = ((error, k - 1.0), _apart(table[:, 0], table[:, 1]))
    error, degrees = min(both, key=lambda one: one[0] * one_sided_factor(one[1]))
    error *= 1 + _CHOICE / (k + 1)
    return Change(scale, at, error, error, degrees, k, f"from {k} pairs of starts")


def unpaired(scale: Scale, one: Sequence[float], other: Sequence[float]) -> Change:
    """Return the change between the means of starts that are no pairs, with Welch's standard error."""
    sides = [np.asarray(values, dtype=np.float64) for values in (one, other)]
    if scale is Scale.RATIO:
        if any((values <= 0).any() or not np.isfinite(values).all() for values in sides):
            return unknown(scale, "a number is zero or unknown")
        sides = [np.log(values) for values in sides]
    at = float(sides[1].mean() - sides[0].mean())
    if min(map(len, sides)) < LEAST_PAIRS:
        return unknown(scale, "too few starts for an interval", at)
    error, degrees = _apart(*sides)
    if error == 0 and scale is Scale.DIFFERENCE:
        return unknown(scale, SAME, at)
    return Change(scale, at, error, error, degrees, method=f"from {len(one)} and {len(other)} starts, not paired")


def _apart(one: Floats, other: Floats) -> tuple[float, float]:
    """Return the standard error of the difference of two means, and its degrees of freedom (Welch, 1947)."""
    parts = [float(values.var(ddof=1)) / len(values) for values in (one, other)]
    shares = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (one, other), strict=True))
    degrees = sum(parts) ** 2 / shares if shares > 0 else float(min(len(one), len(other)) - 1)
    return math.sqrt(sum(parts)), degrees


def of_requests(value: float, relative: Floats) -> Change:
    """Return a ratio with the errors of its resamples, `relative` to it (see `analysis.paired`)."""
    low, high = (math.log(end) for end in np.quantile(relative, [ALPHA, 1 - ALPHA]))
    below, above = max(0.0, -low) / _Z90, max(0.0, high) / _Z90
    return Change(Scale.RATIO, math.log(value), below, above, method="request by request")


def of_intervals(scale: Scale, one: Measured, other: Measured) -> Change:
    """Return the change between two numbers with 95 % intervals (MOVER: Zou and Donner, 2008)."""
    numbers = [(side.low, side.value, side.high) for side in (one, other)]
    if scale is Scale.RATIO:
        if not (one.value > 0 and other.value > 0):
            return unknown(scale, "a number is zero or unknown")
        numbers = [(_log(low), _log(value), _log(high)) for low, value, high in numbers]
    (low_1, at_1, high_1), (low_2, at_2, high_2) = numbers
    at = at_2 - at_1
    below, above = math.hypot(at_2 - low_2, high_1 - at_1), math.hypot(high_2 - at_2, at_1 - low_1)
    if not (math.isfinite(below) and math.isfinite(above)):
        return unknown(scale, "too few requests for an interval", at)
    return Change(scale, at, below / _Z95, above / _Z95, method="from the intervals of both sides")


def _log(number: float) -> float:
    return math.log(number) if 0 < number < math.inf else math.nan if number != math.inf else math.inf


def _table(scale: Scale, pairs: Sequence[tuple[float, float]]) -> Floats | None:
    """Return the numbers of each pair on the scale of `Change.at`; None if one is unknown."""
    table = np.asarray(pairs, dtype=np.float64).reshape(-1, 2)
    if not np.isfinite(table).all() or (scale is Scale.RATIO and (table <= 0).any()):
        return None
    found: Floats = np.log(table) if scale is Scale.RATIO else table
    return found


@lru_cache(256)
def one_sided_factor(degrees: float, alpha: float = ALPHA) -> float:
    """Return the quantile of Student's distribution that one side exceeds with a chance of `alpha`."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(1 - alpha) if math.isinf(degrees) else stdtrit(degrees, 1 - alpha))


@lru_cache(256)
def noticed(degrees: float) -> float:
    """Return the change, in standard errors, that a two-sided test at 5 % notices with a chance of 80 %."""
    from scipy.special import nctdtrinc, ndtri, stdtrit

    if degrees > 1e4:
        return float(ndtri(1 - ALPHA / 2) + ndtri(POWER))
    # The chance of the wrong sign is below 1e-4 and left out.
    return float(nctdtrinc(degrees, 1 - POWER, stdtrit(degrees, 1 - ALPHA / 2)))


def pairs_needed(deviation: float, margin: float, most: int = 200) -> int | None:
    """Return the least number of pairs with which `margin` is noticed, at this standard deviation of a pair.

    Both on the scale of `Change.at`. None if more than `most` are needed.
    """
    for k in range(LEAST_PAIRS, most + 1):
        if noticed(k - 1) * deviation / math.sqrt(k) <= margin:
            return k
    return None


@dataclass(frozen=True, slots=True)
class Ranked:
    """Check of a change by ranks: Hodges and Lehmann's estimate, and the p-value of the exact signed-rank test."""

    value: float
    p_value: float


def ranked(scale: Scale, pairs: Sequence[tuple[float, float]]) -> Ranked | None:
    """Return the check; None for fewer than LEAST_RANKED pairs or an unknown number."""
    from scipy.stats import wilcoxon

    table = _table(scale, pairs)
    if table is None or len(table) < LEAST_RANKED:
        return None
    steps = table[:, 1] - table[:, 0]
    first, second = np.triu_indices(len(steps))
    middle = float(np.median((steps[first] + steps[second]) / 2))
    p_value = 1.0 if not steps.any() else float(wilcoxon(steps).pvalue)
    return Ranked(math.exp(middle) if scale is Scale.RATIO else middle, p_value)
