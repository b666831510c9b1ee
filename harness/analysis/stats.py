"""Statistics for measurements that depend on each other: quantiles, means, shares and rates, each with a 95 % interval.

Pure: arrays in, `Estimate` out. Requests that queue behind each other carry less information than their number says,
so every interval uses the effective sample size. A run is an array in the order in which its requests fell due;
several runs are pooled without correlating the end of one with the start of the next.

Ordered: observations in ascending order, one by one or counted, which is all that a quantile needs of them.

Means of measurements that depend on each other, by batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ordered:
    """Values in ascending order.

    upto: how many observations each value and those before it stand for; None: one each.
    """

    values: Floats
    upto: Ints | None = None

    @classmethod
    def of(cls, values: Floats) -> Ordered:
        """Put single values in order."""
        return cls(np.sort(values))

    @classmethod
    def counted(cls, values: Floats, counts: Ints) -> Ordered:
        """Put values in order that occur several times each."""
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.cumsum(counts[order]))

    @property
    def n(self) -> int:
        """The number of observations."""
        return len(self.values) if self.upto is None else int(self.upto[-1]) if len(self.upto) else 0

    def at(self, rank: int) -> float:
        """The observation of a rank, from 1 to n."""
        return float(self.values[rank - 1 if self.upto is None else int(np.searchsorted(self.upto, rank))])

    def counts(self) -> Ints:
        """How many observations each value stands for."""
        ones: Ints = np.ones(len(self.values), dtype=np.int64)
        return ones if self.upto is None else np.diff(self.upto, prepend=0)


def merged(parts: Sequence[Ordered]) -> Ordered:
    """The observations of all parts in one order."""
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([*(part.values for part in parts), np.empty(0)])
    if all(part.upto is None for part in parts):
        return Ordered.of(values)
    return Ordered.counted(values, np.concatenate([part.counts() for part in parts]))


ALPHA = 0.05
GUARD_LEVELS = (0.5, 0.75, 0.9)
LEVELS = (*GUARD_LEVELS, 0.95, 0.99)
MIN_RUNS_FOR_SPREAD = 3
SPREAD_FACTOR = 1.5
DIRECT_PAIRS = 16
MAX_STEPS = 2**17
MOST_REMEMBERED = 4096  # trials alike ask for the same
MOST_FOR_BLAS = 10_000  # beyond it starts threads, whose waiting for each other costs more


class Bound(StrEnum):
    """What an estimate is: a number with its interval, or only a statement that the truth is above or below."""

    POINT = "point"
    LOWER = "lower"
    UPPER = "upper"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and how well it is known.

    value: NaN unless bound is "point".   low, high: ends of the 95 % interval, NaN where it is unknown, infinite where
    it is open.   bound: "lower": the truth is above `low`; "upper": it is below `high` (and above `low` if finite).
    n: observations.   n_eff: independent observations they are worth.   needed: effective observations for a point.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    bound: Bound = Bound.POINT
    n: int = 0
    n_eff: float = math.nan
    needed: int | None = None


def quantile(values: Floats, p: float) -> float:
    """The inverse-CDF quantile x_(ceil(n p)): always an observed value, no interpolation; NaN of nothing."""
    if len(values) == 0:
        return math.nan
    rank = quantile_rank(len(values), p)
    return float(np.partition(values, rank - 1)[rank - 1])


def quantile_rank(n: int, p: float) -> int:
    """The rank ceil(n p), from 1; the tolerance keeps 100 * 0.07 = 7.000000000000001 at 7."""
    return min(n, max(1, math.ceil(n * p - 1e-9)))


def floor_two_sided(p: float, alpha: float = ALPHA) -> int:
    """The least effective n for which a quantile has a two-sided distribution-free interval: ln(alpha/2) / ln(p)."""
    tail = max(p, 1 - p)
    return math.ceil(math.log(alpha / 2) / math.log(tail))


def floor_upper(p: float, alpha: float = ALPHA) -> int:
    """The least effective n for which a quantile has a one-sided upper bound: ln(alpha) / ln(p)."""
    return math.ceil(math.log(alpha) / math.log(p))


def autocorrelation_time(series: Floats) -> float:
    """The integrated autocorrelation time 1 + 2 sum rho_k, summed over Geyer's initial positive sequence; at least
    1.

    A series of more than MAX_STEPS is taken in blocks of b: tau = b var(block means) tau(block means) / var, since
    both say how far the mean of all can be off.
    """
    n = len(series)
    if n < 4:
        return 1.0
    if n > MAX_STEPS:
        return _autocorrelation_time_by_blocks(series, 2 * n // MAX_STEPS + 1)
    centred = series - series.mean()
    variance = float(centred @ centred) / n
    if variance <= 1e-15 * max(1.0, float(np.abs(series).max()) ** 2):
        return 1.0
    total = 0.0
    for pair in range(min(DIRECT_PAIRS, n // 2)):
        step = (_product(centred, 2 * pair) + _product(centred, 2 * pair + 1)) / (n * variance)
        if step <= 0:
            return max(1.0, 2 * total - 1)
        total += step
    return _autocorrelation_time_by_fft(centred)


def _autocorrelation_time_by_blocks(series: Floats, block: int) -> float:
    variance = float(series.var())
    if variance <= 1e-15 * max(1.0, float(np.abs(series).max()) ** 2):
        return 1.0
    means = series[: len(series) // block * block].reshape(-1, block).mean(axis=1)
    return max(1.0, block * float(means.var()) * autocorrelation_time(means) / variance)


def _product(centred: Floats, lag: int) -> float:
    early, late = centred[: len(centred) - lag], centred[lag:]
    if len(early) > MOST_FOR_BLAS:
        return float(np.einsum("i,i->", early, late))
    return float(early @ late)


def _autocorrelation_time_by_fft(centred: Floats) -> float:
    """The same for a long memory: all lags at once."""
    n = len(centred)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum), size)[:n]
    pairs = (covariance / covariance[0])[: n - n % 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    end = int(negative[0]) if len(negative) else len(pairs)
    return max(1.0, float(2 * pairs[:end].sum() - 1))


def effective_size(values: Floats, levels: Sequence[float]) -> float:
    """The effective size for quantiles: the least n / tau over indicator series 1{x <= q_u} of the given levels.

    Formula: quantile ESS (Vehtari et al. 2021) with Geyer's truncation. +inf among the values is allowed.
    """
    return min(sizes_by_level(values, levels).values()) if len(values) else 0.0


def sizes_by_level(
    values: Floats,
    levels: Sequence[float],
    cluster_sizes: NDArray[np.int64] | None = None,
    ordered: Ordered | None = None,
) -> dict[float, float]:
    """The effective size at each level.

    cluster_sizes: where the values come in clusters (the gaps of one reply), consecutive, how many each cluster has.
    Then m = p (1 - p) N^2 / (J var(s) tau), with s_j = sum over cluster j of (1{x <= q_u} - p) and tau over the s_j.
    ordered: the values in order, if they are already.
    """
    n = len(values)
    if n == 0:
        return dict.fromkeys(levels, 0.0)
    ordered = Ordered.of(values) if ordered is None else ordered
    return {level: _size(values, ordered.at(quantile_rank(n, level)), cluster_sizes) for level in levels}


def _size(values: Floats, threshold: float, cluster_sizes: NDArray[np.int64] | None) -> float:
    below = (values <= threshold).astype(np.float64)
    if cluster_sizes is None:
        return len(below) / autocorrelation_time(below)
    share = float(below.mean())
    return size_of_clusters(np.add.reduceat(below - share, cluster_starts(cluster_sizes)), share, len(below))


def cluster_starts(cluster_sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each cluster that is not empty begins."""
    sizes = cluster_sizes[cluster_sizes > 0]
    starts: NDArray[np.int64] = np.cumsum(sizes) - sizes
    return starts


def size_of_clusters(sums: Floats, share: float, n: int) -> float:
    """The effective size of n observations in clusters.

    sums: of the indicators of a level, less their mean `share`, over each cluster.
    """
    spread = float(sums.var()) * len(sums) * autocorrelation_time(sums)
    return float(n) if spread <= 1e-12 else min(float(n), share * (1 - share) * n * n / spread)


def quantile_estimate(
    runs: Sequence[Floats],
    p: float,
    *,
    bounds: Sequence[Floats] | None = None,
    n_eff: float | None = None,
    m_cap: float | None = None,
    alpha: float = ALPHA,
) -> Estimate:
    """A quantile of all runs together, with its interval.

    runs: values in due order; +inf where only a lower bound is known (censored).   bounds: the same with that lower
    bound in place of +inf.   n_eff: effective size if already known.   m_cap: an upper limit for it (a queue that
    mixes slowly). Below the floor of C.3 no point is given: an upper bound where one exists, else a lower one. A rank
    among censored values is a lower bound: every true value is above its own bound, so order statistics of the bounds
    are below the true ones.
    """
    levels = [*(level for level in GUARD_LEVELS if level < p), p]
    size = sum(effective_size(run, levels) for run in runs) if n_eff is None else n_eff
    size = min(size, m_cap) if m_cap is not None else size
    own = [Ordered.of(run) for run in runs]
    known = merged([Ordered.of(run) for run in bounds]) if bounds is not None else None
    return ordered_quantile(merged(own), known, own, p, size, alpha)


def ordered_quantile(
    ordered: Ordered, known: Ordered | None, own: Sequence[Ordered], p: float, size: float, alpha: float = ALPHA
) -> Estimate:
    """The same of observations in order. known: with lower bounds in place of +inf, None where nothing is censored.
    own: of each run.   size: what they are worth.
    """
    known = ordered if known is None else known
    n = ordered.n
    if n == 0:
        return Estimate(math.nan, n=0, n_eff=0.0)
    needed = floor_two_sided(p, alpha)
    rank = quantile_rank(n, p)
    value = ordered.at(rank)
    if math.isinf(value):
        return Estimate(math.nan, known.at(rank), math.inf, Bound.LOWER, n, size, needed)
    if math.floor(size) < needed:
        return _one_sided(ordered, known, p, size, alpha)
    low, high = _two_sided(ordered, p, size, alpha)
    each = [run.at(quantile_rank(run.n, p)) for run in own if run.n]
    low, high = widen_by_spread(each, value, low, high, alpha)
    return Estimate(value, low, high, Bound.POINT, n, size, needed)


def _two_sided(ordered: Ordered, p: float, size: float, alpha: float) -> tuple[float, float]:
    """Exact binomial ranks at the effective size, carried over to the n observations."""
    n, m = ordered.n, math.floor(size)
    lower = math.floor(n * _binomial_quantile(alpha / 2, m, p) / m)
    upper = math.ceil(n * (_binomial_quantile(1 - alpha / 2, m, p) + 1) / m)
    low = ordered.at(lower) if lower >= 1 else -math.inf
    high = ordered.at(upper) if upper <= n else math.inf
    return low, high


def _one_sided(ordered: Ordered, known: Ordered, p: float, size: float, alpha: float) -> Estimate:
    n, m = ordered.n, max(1, math.floor(size))
    needed = floor_two_sided(p, alpha)
    lower = math.floor(n * _binomial_quantile(alpha, m, p) / m)
    low = known.at(lower) if lower >= 1 else -math.inf
    if m >= floor_upper(p, alpha):
        upper = math.ceil(n * (_binomial_quantile(1 - alpha, m, p) + 1) / m)
        high = ordered.at(min(upper, n))
        if math.isfinite(high):
            return Estimate(math.nan, low, high, Bound.UPPER, n, size, needed)
    return Estimate(math.nan, low, math.inf, Bound.LOWER, n, size, needed)


def widen_by_spread(
    own: Sequence[float], value: float, low: float, high: float, alpha: float = ALPHA
) -> tuple[float, float]:
    """The interval from the runs' own values instead, where they differ far more than one run's noise explains."""
    k = len(own)
    if k < MIN_RUNS_FOR_SPREAD:
        return low, high
    half = t_factor(k, alpha) * math.sqrt(float(((np.array(own) - value) ** 2).sum()) / (k - 1) / k)
    if math.isfinite(half) and math.isfinite(high - low) and 2 * half > SPREAD_FACTOR * (high - low):
        return value - half, value + half
    return low, high


@lru_cache(MOST_REMEMBERED)
def t_factor(k: int, alpha: float = ALPHA) -> float:
    """Half the width of Student's interval for the mean of k values, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(k - 1, 1 - alpha / 2))


@lru_cache(MOST_REMEMBERED)
def _binomial_quantile(q: float, m: int, p: float) -> int:
    """The least k with P(Bin(m, p) <= k) >= q."""
    from scipy.special import bdtr, bdtrik

    k = math.ceil(float(bdtrik(q, m, p)))
    return k - 1 if k >= 1 and float(bdtr(k - 1, m, p)) >= q else k


def t_interval(values: Sequence[float] | Floats, alpha: float = ALPHA) -> Estimate:
    """The mean of independent values (repetitions, batches) with Student's interval; without one for fewer than two."""
    array: Floats = np.asarray(values, dtype=np.float64)
    k = len(array)
    if k == 0:
        return Estimate(math.nan, n=0, n_eff=0.0)
    mean = float(array.mean())
    if k == 1:
        return Estimate(mean, n=1, n_eff=1.0)
    half = t_factor(k, alpha) * float(array.std(ddof=1)) / math.sqrt(k)
    return Estimate(mean, mean - half, mean + half, Bound.POINT, k, float(k))


def extreme_estimate(ordered: Ordered, known: Ordered, *, largest: bool) -> Estimate:
    """The largest or smallest value seen: a fact about this run, so it has no interval; a bound where it is
    censored.
    """
    n = ordered.n
    if n == 0:
        return Estimate(math.nan, n=0, n_eff=0.0)
    rank = n if largest else 1
    value = ordered.at(rank)
    if math.isinf(value):
        return Estimate(math.nan, known.at(rank), math.inf, Bound.LOWER, n)
    return Estimate(value, n=n)


def share_estimate(
    runs: Sequence[NDArray[Any]], alpha: float = ALPHA, *, caps: Sequence[float] | None = None
) -> Estimate:
    """The share of true flags with the Clopper-Pearson interval at the effective size.

    With k of n flags true and effective size m the interval is that of k m / n successes among m. caps: the most that
    each run's flags can be worth (a queue that mixes slowly).
    """
    from scipy.special import betaincinv

    flags = [np.asarray(run, dtype=np.float64) for run in runs]
    n = sum(len(run) for run in flags)
    if n == 0:
        return Estimate(math.nan, n=0, n_eff=0.0)
    most = [math.inf] * len(flags) if caps is None else caps
    m = sum(min(len(run) / autocorrelation_time(run), cap) for run, cap in zip(flags, most, strict=True))
    share = float(sum(run.sum() for run in flags)) / n
    k = share * m
    low = 0.0 if share <= 0 else float(betaincinv(k, m - k + 1, alpha / 2))
    high = 1.0 if share >= 1 else float(betaincinv(k + 1, m - k, 1 - alpha / 2))
    low, high = widen_by_spread([float(run.mean()) for run in flags if len(run)], share, low, high, alpha)
    return Estimate(share, min(max(low, 0.0), share), max(min(high, 1.0), share), Bound.POINT, n, m)


@dataclass(frozen=True, slots=True)
class Trend:
    """A drift of a series: how likely chance alone gives one as clear, and its slope per step (Theil-Sen)."""

    p_value: float
    slope: float


def trend(series: Floats) -> Trend:
    """Kendall's tau against the index, two-sided by the normal approximation; good from about ten values on.

    Its deviation grows with the root of the autocorrelation time of what the slope leaves over, so that a series with
    a memory is not called drifting for its own slow turns (after Hamed and Rao 1998).
    """
    n = len(series)
    first, second = np.triu_indices(n, k=1)
    rises = series[second] - series[first]
    score = abs(float(np.sign(rises).sum()))
    slope = float(np.median(rises / (second - first)))
    time = autocorrelation_time(series - slope * np.arange(n))
    deviation = math.sqrt(time * n * (n - 1) * (2 * n + 5) / 18)
    z = max(0.0, score - 1) / deviation
    return Trend(math.erfc(z / math.sqrt(2)), slope)


MAX_CENSORED_SHARE_FOR_MEAN = 0.001
MAX_BATCHES = 30
MIN_BATCHES = 4  # Student's factor is 3.2 for four, 4.3 for three and 12.7 for two: an interval that says nothing


def mean_estimate(
    runs: Sequence[Floats],
    *,
    bounds: Sequence[Floats] | None = None,
    clusters: Sequence[NDArray[np.int64] | None] | None = None,
    alpha: float = ALPHA,
) -> Estimate:
    """The mean of all runs, by non-overlapping batch means.

    Batches are at most 30 per run and at least five autocorrelation times long. Censored values enter with their
    lower bound; when they are more than 0.1 % there is no mean: the value is a lower bound. Fewer than four batches
    give no interval.
    """
    known = list(bounds) if bounds is not None else list(runs)
    censored = sum(int(np.isinf(run).sum()) for run in runs)
    every = clusters or [None] * len(known)
    parts = [batched(run, sizes) for run, sizes in zip(known, every, strict=True)]
    return mean_of_batches(parts, censored, alpha)


@dataclass(frozen=True, slots=True)
class Batched:
    """Observations of one run summed up for their mean: of all, and in batches. n_eff: what they are worth."""

    n: int
    total: float
    means: Floats
    n_eff: float


def batched(run: Floats, cluster_sizes: NDArray[np.int64] | None = None) -> Batched:
    """A run in batches. cluster_sizes: consecutive values that belong together and are not parted."""
    if len(run) == 0 or cluster_sizes is None:
        return batched_clusters(run, np.ones(len(run)))
    sums = np.add.reduceat(run, cluster_starts(cluster_sizes))
    found = batched_clusters(sums, cluster_sizes[cluster_sizes > 0].astype(np.float64))
    return replace(found, total=float(run.mean()) * len(run))


def batched_clusters(sums: Floats, sizes: Floats) -> Batched:
    """The same from the sum and the number of values of each cluster that is not empty."""
    if len(sums) == 0:
        return Batched(0, 0.0, np.empty(0), 0.0)
    n = int(sizes.sum())
    time = autocorrelation_time(sums)
    length = max(math.ceil(len(sums) / MAX_BATCHES), math.ceil(5 * time) if time > 1.5 else 1)
    count = len(sums) // length
    total = sums[: count * length].reshape(count, length).sum(axis=1)
    means = total / sizes[: count * length].reshape(count, length).sum(axis=1)
    return Batched(n, float(sums.sum()), means, len(sums) / time)


def mean_of_batches(parts: Sequence[Batched], censored: int, alpha: float = ALPHA) -> Estimate:
    """The mean of several runs. censored: how many of the values are only lower bounds."""
    n, n_eff = sum(part.n for part in parts), float(sum(part.n_eff for part in parts))
    if n == 0:
        return Estimate(math.nan, n=0, n_eff=0.0)
    mean = sum(part.total for part in parts) / n
    if censored > MAX_CENSORED_SHARE_FOR_MEAN * n:
        return Estimate(math.nan, mean, math.inf, Bound.LOWER, n, n_eff)
    batches = np.concatenate([part.means for part in parts])
    if len(batches) < MIN_BATCHES:
        return Estimate(mean, math.nan, math.nan, Bound.POINT, n, n_eff)
    half = t_factor(len(batches), alpha) * float(batches.std(ddof=1)) / math.sqrt(len(batches))
    low, high = widen_by_spread(
        [part.total / part.n for part in parts if part.n], mean, mean - half, mean + half, alpha
    )
    return Estimate(mean, low, high, Bound.POINT, n, n_eff)
