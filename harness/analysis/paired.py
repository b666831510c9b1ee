"""Ratio of a statistic in two trials that sent the same requests, resampled request by request.

The requests of both trials are drawn together, so that what both share, such as long prompts, cancels. Where requests
depend on each other, the deviations are stretched by the root of their autocorrelation time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from harness.analysis.stats import Flags, Floats, Ints, autocorrelation_time, quantile_rank

RESAMPLES = 1000
MOST_BLOCKS = 200  # neighbouring requests are drawn together if there are more
LEAST_BLOCKS = 10
MOST_POINTS = 512
MOST_REMEMBERED = 20_000
MOST_EXACT = 1_000_000  # times the most draws of a block is below 2^24
SEED = 20_240_517


@dataclass(frozen=True, slots=True, eq=False)
class OfRequests:
    """Observations of a trial, each with the number of its request; +inf where censored. Each equals itself alone."""

    requests: Ints
    values: Floats

    def among(self, common: Ints) -> OfRequests:
        """Return the observations of some requests, numbered by their place among these; itself if it was so before."""
        place = np.minimum(np.searchsorted(common, self.requests), len(common) - 1)
        known: Flags = common[place] == self.requests
        if known.all() and np.array_equal(place, self.requests):
            return self
        return OfRequests(place[known], self.values[known])


def resampled_ratios(pairs: Sequence[tuple[OfRequests, OfRequests]], statistic: str) -> Floats:
    """Return the ratios of "mean" or a quantile in resamples of the requests, over the ratio in all of them.

    `pairs` has both trials of each repetition. The result is empty for other statistics, and for too few requests: at
    least one must lie beyond the quantile, or the interval holds the truth too rarely.
    """
    if not (statistic == "mean" or statistic.startswith("p")):
        return np.empty(0)
    p = 0.5 if statistic == "mean" else float(statistic[1:]) / 100
    sides: tuple[list[OfRequests], list[OfRequests]] = ([], [])
    blocks, time = 0, 0.0
    for pair in pairs:
        common = np.intersect1d(pair[0].requests, pair[1].requests)
        length = max(1, math.ceil(len(common) / MOST_BLOCKS))
        both = [one.among(common) for one in pair] if len(common) else []
        both = [one if length == 1 else OfRequests(one.requests // length, one.values) for one in both]
        if any(len(one.values) == 0 for one in both) or not both:
            continue
        count = math.ceil(len(common) / length)
        time += count * autocorrelation_time(_scores(both[0], count, statistic) - _scores(both[1], count, statistic))
        for side, one in zip(sides, both, strict=True):
            side.append(OfRequests(one.requests + blocks, one.values) if blocks else one)
        blocks += count
    if blocks < LEAST_BLOCKS or blocks * min(p, 1 - p) * blocks / time < 1 - 1e-9:
        return np.empty(0)
    first, second = (_of_side(_joined(side), statistic, blocks) for side in sides)
    with np.errstate(invalid="ignore", divide="ignore"):
        logarithms = np.log(first / second)
        relative: Floats = np.exp((logarithms[1:] - logarithms[0]) * math.sqrt(time / blocks))
    return relative if np.isfinite(relative).all() else np.empty(0)


@lru_cache(4)
def _weights(blocks: int) -> Floats:
    """Return how often each resample draws each block, [1 + RESAMPLES, blocks]; the first is everything once."""
    chosen = np.random.default_rng(SEED).multinomial(blocks, np.full(blocks, 1 / blocks), size=RESAMPLES)
    weights = np.vstack([np.ones(blocks), chosen])
    weights.setflags(write=False)
    return weights


def _of_side(side: OfRequests, statistic: str, blocks: int) -> Floats:
    """Return the statistic in each resample. A short side is remembered: a baseline meets many other runs."""
    if len(side.values) > MOST_REMEMBERED:
        return _statistics(side, statistic, blocks)
    return _remembered(side, statistic, blocks)


def _scores(side: OfRequests, blocks: int, statistic: str) -> Floats:
    """Return what each block adds to the statistic: its values, or how many lie at or below the quantile."""
    values = side.values
    if statistic == "mean":
        finite = np.where(np.isfinite(values), values, 0.0)
        scores = finite / (finite.mean() or 1.0)
    else:
        rank = quantile_rank(len(values), float(statistic[1:]) / 100)
        scores = (values <= np.partition(values, rank - 1)[rank - 1]).astype(np.float64)
    found: Floats = np.bincount(side.requests, weights=scores, minlength=blocks) / len(values)
    return found


def _joined(side: Sequence[OfRequests]) -> OfRequests:
    if len(side) == 1:
        return side[0]
    return OfRequests(np.concatenate([one.requests for one in side]), np.concatenate([one.values for one in side]))


def _statistics(side: OfRequests, statistic: str, blocks: int) -> Floats:
    """Return the statistic for each row of the blocks' weights; `side.requests` are numbers of blocks."""
    weights = _weights(blocks)
    if statistic == "mean":
        sums = np.bincount(side.requests, weights=side.values, minlength=blocks)
        means: Floats = (weights @ sums) / (weights @ np.bincount(side.requests, minlength=blocks))
        return means
    p = float(statistic[1:]) / 100
    points = _points(side.values, p, blocks)
    cells = np.searchsorted(points, side.values)
    counts = np.bincount(side.requests * (len(points) + 1) + cells, minlength=blocks * (len(points) + 1))
    # Single precision holds these whole numbers exactly, and multiplies them in half the time.
    exact = np.float32 if len(side.values) < MOST_EXACT else np.float64
    upto = weights.astype(exact) @ np.cumsum(counts.reshape(blocks, -1), axis=1, dtype=exact)
    ranks = np.maximum(1.0, np.ceil(upto[:, -1:].astype(np.float64) * p - 1e-9)).astype(exact)
    found: Floats = np.append(points, np.inf)[(upto >= ranks).argmax(axis=1)]
    return found


_remembered = lru_cache(32)(_statistics)


def _points(values: Floats, p: float, blocks: int) -> Floats:
    """Return the observed values between which a resampled quantile is sought, at most MOST_POINTS."""
    if len(values) <= MOST_POINTS:
        return np.unique(values)
    reach = 6 * math.sqrt(p * (1 - p) / blocks)
    levels = np.linspace(max(0.0, p - reach), min(1.0, p + reach), MOST_POINTS)
    ranks = np.maximum(1, np.ceil(levels * len(values) - 1e-9)).astype(np.int64) - 1
    return np.unique(np.partition(values, np.unique(ranks))[ranks])
