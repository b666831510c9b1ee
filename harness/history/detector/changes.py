"""Change points of a sequence by energy statistics, each with a t-test; pure.

Hierarchical division by Matteson and James (2014, arXiv 1306.4933): of all divisions of a stretch into (left, right),
with the right part ending anywhere, the one with the largest energy statistic is the candidate. As in Hunter (Fleming
and others, 2023, arXiv 2301.03034), Student's t-test takes the place of permutations, stretches are windows that
overlap by half, and weak points are removed again once their neighbours are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Floats

P = 1e-4
WEAK = 10.0
"""Factor of the p-value that a point may have before its neighbours are known."""
WINDOW = 100
LEAST = 3
"""Nights on each side of a change: of one or two nobody knows the spread."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """First index of a new level.

    Attributes:
        p: Student's p-value, two-sided, of the stretches on both sides.
    """

    index: int
    p: float


def change_points(
    values: Floats, p: float = P, window: int = WINDOW, least: int = LEAST, *, whole: bool = False
) -> list[ChangePoint]:
    """Return the change points of finite values, in order.

    Args:
        values: Numbers, oldest first.
        p: Largest p-value of a change point.
        window: Length of the stretches that are divided.
        least: Least length of a part.
        whole: Test a candidate against the whole rest of its stretch, as Hunter does. Two shifts in opposite directions
            can then hide each other. By default the test ends where the statistic ends.
    """
    return _strong(values, _weak(values, min(p * WEAK, 1.0), window, least, whole), p)


def student_p(left: Floats, right: Floats, inflation: float = 1.0) -> float:
    """Return the two-sided p-value of Student's t-test with a pooled variance; 1.0 for fewer than three values.

    inflation: Factor of the variance of a mean, above 1 where nights depend on each other.
    """
    n, m = len(left), len(right)
    if min(n, m) == 0 or n + m < 3:
        return 1.0
    mean_1, mean_2 = left.sum() / n, right.sum() / m
    squares = float(((left - mean_1) ** 2).sum() + ((right - mean_2) ** 2).sum())
    return p_of(float(mean_2 - mean_1), squares / (n + m - 2), 1 / n + 1 / m, n + m - 2, inflation)


def p_of(shift: float, variance: float, inverse: float, degrees: float, inflation: float = 1.0) -> float:
    """Return the two-sided p-value of a difference of means whose variance is `variance` times `inverse`."""
    from scipy.special import stdtr

    error = math.sqrt(max(variance, 0.0) * inverse * inflation)
    if error <= 1e-12 * abs(shift):
        return 0.0 if shift else 1.0
    return min(1.0, 2 * float(stdtr(degrees, -abs(shift) / error)))


def _weak(values: Floats, p: float, window: int, least: int, whole: bool) -> list[int]:
    """Return candidates from windows that overlap by half."""
    found: set[int] = set()
    begin = 0
    while begin < len(values):
        end = min(begin + window, len(values))
        inside = [begin + one for one in divide(values[begin:end], p, least, whole=whole)]
        found.update(inside)
        begin = max(begin + window // 2, max(inside, default=0))
    return sorted(found)


def divide(values: Floats, p: float, least: int = LEAST, *, whole: bool = False) -> list[int]:
    """Return the points at which a stretch is divided, until the best candidate has a p-value above `p`."""
    if len(values) < 2 * least:
        return []
    sums = pair_sums(values)
    cuts: list[int] = []
    best = {(0, len(values)): candidate(sums, 0, len(values), least)}
    while best:
        stretch = max(best, key=lambda one: best[one][0])
        _, cut, until = best.pop(stretch)
        if cut < 0:
            break
        begin, end = stretch
        if student_p(values[begin:cut], values[cut : end if whole else until]) > p:
            break
        cuts.append(cut)
        best[begin, cut] = candidate(sums, begin, cut, least)
        best[cut, end] = candidate(sums, cut, end, least)
    return sorted(cuts)


def pair_sums(values: Floats) -> Floats:
    """Return the table W with W[a, b] = sum of |x_i - x_j| over all pairs a <= i < j < b."""
    n = len(values)
    distances = np.triu(np.abs(values[:, None] - values[None, :]))
    from_row = np.cumsum(distances[::-1], axis=0)[::-1]  # [a, j]: distances of j to a, ..., j - 1
    sums = np.zeros((n + 1, n + 1))
    np.cumsum(from_row, axis=1, out=sums[:n, 1:])
    return sums


def candidate(sums: Floats, begin: int, end: int, least: int = 1) -> tuple[float, int, int]:
    """Return the largest energy statistic of a stretch, its division and its end; (-inf, -1, -1) if it is too short.

    For parts X = [begin, t) of n values and Y = [t, k) of m: nm / (n + m) times twice the mean distance between X and
    Y, less the mean distances within each.
    """
    if end - begin < 2 * least:
        return -math.inf, -1, -1
    t = np.arange(begin + least, end - least + 1)[:, None]
    k = np.arange(begin + 2 * least, end + 1)[None, :]
    n, m = (t - begin).astype(float), (k - t).astype(float)
    left = sums[begin, begin + least : end - least + 1][:, None]
    right = sums[begin + least : end - least + 1, begin + 2 * least : end + 1]
    across = sums[begin, begin + 2 * least : end + 1][None, :] - left - right
    within = left * (m / np.maximum(n - 1, 1)) + right * (n / np.maximum(m - 1, 1))
    energy = np.where(m >= least, 2 * (across - within) / (n + m), -math.inf)
    at = int(np.argmax(energy))
    row, column = divmod(at, energy.shape[1])
    return float(energy[row, column]), begin + least + row, begin + 2 * least + column


def _strong(values: Floats, weak: Sequence[int], p: float) -> list[ChangePoint]:
    """Remove the weakest point until all have a p-value below `p`."""
    cuts = list(weak)
    chances = [_chance(values, cuts, place) for place in range(len(cuts))]
    while cuts and max(chances) >= p:
        place = chances.index(max(chances))
        del cuts[place], chances[place]
        for neighbour in (place - 1, place):
            if 0 <= neighbour < len(cuts):
                chances[neighbour] = _chance(values, cuts, neighbour)
    return [ChangePoint(cut, chance) for cut, chance in zip(cuts, chances, strict=True)]


def _chance(values: Floats, cuts: Sequence[int], place: int) -> float:
    edges = [0, *cuts, len(values)]
    begin, cut, end = edges[place : place + 3]
    return student_p(values[begin:cut], values[cut:end])


def placed(values: Floats, cut: int, sure: float = 0.95) -> tuple[int, int]:
    """Return the first and last index at which a single step could lie, by its least squares, and `cut` among them.

    The posterior of the place for normal noise and a flat prior; both ends have at least one value on each side.
    """
    n = len(values)
    if n < 3:
        return cut, cut
    upto = np.cumsum(values - values.mean())[:-1]
    places = np.arange(1, n)
    explained = upto**2 * n / (places * (n - places))  # sum of squares that a step at this place explains
    rest = float(((values - values.mean()) ** 2).sum() - explained[cut - 1])
    variance = rest / max(n - 2, 1)
    if variance <= 0:
        return cut, cut
    weights = np.exp((explained - explained.max()) / (2 * variance))
    share = np.cumsum(weights) / weights.sum()
    low, high = (int(np.searchsorted(share, end)) for end in ((1 - sure) / 2, (1 + sure) / 2))
    first, last = int(places[low]), int(places[min(high, n - 2)])
    return min(first, cut), max(last, cut)
