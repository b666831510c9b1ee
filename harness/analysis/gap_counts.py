"""Gap counts: the distribution of more gaps than can be kept, counted in one pass.

Gaps are counted in buckets of BUCKETS per octave. Each bucket stands for the mean of what fell into it, so that a
quantile is off by less than 1 / BUCKETS of its value (0.012 %; nothing where the gaps of a bucket are equal); counts,
means, the least and the greatest are exact. Effective sizes are those of indicators of thresholds near the levels,
which are found in a sample beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.analysis.stats import (
    Batched,
    Ordered,
    batched_clusters,
    cluster_starts,
    merged,
    quantile_rank,
    size_of_clusters,
)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

BUCKETS = 2**13
OCTAVES = 60
NS_PER_MS = 1e6
_SHIFT = 52 - 13
_LEAST_KEY = 1023 << 13


@dataclass(frozen=True, slots=True)
class CountedGaps:
    """A distribution in ms. ordered: +inf where censored.   known: with the least value there; the same object where
    nothing is censored.   sizes: effective sizes by level.   batches: for the mean, over the known values.
    """

    ordered: Ordered
    known: Ordered
    censored: int
    sizes: dict[float, float]
    batches: Batched

    def effective_size(self, p: float) -> float:
        """Independent gaps that they are worth for a quantile: the least over the levels up to p, of those known."""
        up_to = [size for level, size in self.sizes.items() if level <= p]
        return min(up_to or self.sizes.values(), default=0.0)


class GapCounter:
    """Takes the gaps of one trial's requests, block by block, in any order of the requests.

    requests: how many there are.   thresholds_ns: by level, for the effective sizes.
    """

    def __init__(self, requests: int, thresholds_ns: Mapping[float, float]) -> None:
        self._levels = sorted(thresholds_ns)
        self.thresholds_ns = [thresholds_ns[level] for level in self._levels]
        self._counts = np.zeros(OCTAVES * BUCKETS, dtype=np.int64)
        self._sums = np.zeros(OCTAVES * BUCKETS)
        self._sizes = np.zeros(requests, dtype=np.int64)
        self._totals = np.zeros(requests)
        self._below = np.zeros((len(self._levels), requests), dtype=np.int32)
        self._least, self._greatest = np.inf, -np.inf

    def add(self, part: Part, places: Ints) -> None:
        """Take a part. places: of its requests."""
        if not len(part.counts):
            return
        self._counts[part.first : part.first + len(part.counts)] += part.counts
        self._sums[part.first : part.first + len(part.counts)] += part.sums
        self._least, self._greatest = min(self._least, part.least), max(self._greatest, part.greatest)
        self._sizes[places] = part.sizes
        self._totals[places] = part.totals
        self._below[:, places] = part.below

    def part(self, gaps_ns: Floats | Ints, times: Ints | None, of_request: Ints) -> Part:
        """Count some gaps. times: how often each occurs, None: once.   of_request: how many gaps each request has."""
        requests = len(of_request)
        numbers = np.repeat(np.arange(requests), of_request)
        if not len(gaps_ns):
            nothing = np.zeros((len(self._levels), requests), dtype=np.int32)
            none = np.zeros(requests, dtype=np.int64)
            return Part(0, none[:0], np.empty(0), np.inf, -np.inf, none, np.zeros(requests), nothing)
        above_zero = np.maximum(gaps_ns, 0).astype(np.float64) + 1.0
        keys = (above_zero.view(np.int64) >> _SHIFT) - _LEAST_KEY
        first = int(keys.min())
        keys -= first
        weights: Floats = above_zero if times is None else above_zero * times
        counts = np.bincount(keys, times).astype(np.int64)
        sizes = of_request if times is None else np.bincount(numbers, times, requests).astype(np.int64)
        sums: Floats = np.asarray(np.bincount(keys, weights), dtype=np.float64)
        totals: Floats = np.zeros(requests)
        some = of_request > 0
        totals[some] = np.add.reduceat(gaps_ns if times is None else gaps_ns * times, cluster_starts(of_request))
        return Part(
            first=first,
            counts=counts,
            sums=sums,
            least=float(gaps_ns.min()),
            greatest=float(gaps_ns.max()),
            sizes=sizes,
            totals=totals,
            below=self._below_thresholds(gaps_ns, times, numbers, requests),
        )

    def _below_thresholds(
        self, gaps_ns: Floats | Ints, times: Ints | None, numbers: Ints, requests: int
    ) -> NDArray[np.int32]:
        """How many gaps of each request lie at or below each threshold, shape (levels, requests)."""
        whole = gaps_ns.dtype == np.int64
        above = np.zeros(len(gaps_ns), dtype=np.int8)
        for threshold in self.thresholds_ns:
            above += gaps_ns > (math.floor(threshold) if whole else threshold)  # integers are compared faster
        width = len(self._levels) + 1
        held = np.bincount(numbers * width + above, times, requests * width).reshape(requests, width)
        return np.cumsum(held, axis=1)[:, :-1].T.astype(np.int32)

    def finish(self, cut_off_ns: Floats) -> CountedGaps:
        """The distribution. cut_off_ns: for each request the wait that was cut off, a last, censored gap; else NaN."""
        cut = np.isfinite(cut_off_ns)
        cuts = cut_off_ns[cut] / NS_PER_MS
        filled = np.flatnonzero(self._counts)
        counts = self._counts[filled]
        means = (self._sums[filled] / counts - 1.0) / NS_PER_MS
        gaps = _with_ends(Ordered.counted(means, counts), self._least / NS_PER_MS, self._greatest / NS_PER_MS)
        infinite = Ordered(np.full(len(cuts), np.inf))
        ordered = merged([gaps, infinite]) if len(cuts) else gaps
        known = merged([gaps, Ordered.of(cuts)]) if len(cuts) else gaps
        sizes = self._sizes + cut
        totals = (self._totals + np.where(cut, cut_off_ns, 0.0)) / NS_PER_MS
        some = sizes > 0
        batches = batched_clusters(totals[some], sizes[some].astype(np.float64))
        return CountedGaps(ordered, known, len(cuts), self._effective(sizes, some), batches)

    def _effective(self, sizes: Ints, some: Flags) -> dict[float, float]:
        n = int(sizes.sum())
        found: dict[float, float] = {}
        for level, below in zip(self._levels, self._below, strict=True):
            share = float(below.sum(dtype=np.int64)) / max(n, 1)
            found[level] = size_of_clusters(below[some] - share * sizes[some], share, n) if n else 0.0
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """What was counted in a block: buckets from `first` on with their counts and sums in ns (plus 1 each), the least
    and greatest gap, and for each request how many gaps it has, their sum and how many lie below each threshold.
    """

    first: int
    counts: Ints
    sums: Floats
    least: float
    greatest: float
    sizes: Ints
    totals: Floats
    below: NDArray[np.int32]


def thresholds(sample_ns: Floats | Ints, levels: tuple[float, ...]) -> dict[float, float]:
    """Where the levels lie in a sample."""
    ordered = np.sort(sample_ns)
    return {level: float(ordered[quantile_rank(len(ordered), level) - 1]) for level in levels} if len(ordered) else {}


def _with_ends(gaps: Ordered, least: float, greatest: float) -> Ordered:
    """The first and the last observation as they are instead of their buckets' means."""
    if gaps.n < 2:
        return gaps
    counts = gaps.counts()
    counts[0] -= 1
    counts[-1] -= 1
    values = np.concatenate(([least], gaps.values, [greatest]))
    every = np.concatenate(([1], counts, [1]))
    return Ordered(values[every > 0], np.cumsum(every[every > 0]))
