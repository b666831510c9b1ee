"""Quantiles, means, shares, rates and ratios of dependent measurements, each with a 95 % interval.

Requests that queue behind each other carry less information than their number suggests, so every interval uses the
effective sample size. A run is an array in due order. Several runs are pooled without correlating the end of one with
the start of the next.
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
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

ALPHA = 0.05
GUARD_LEVELS = (0.5, 0.75, 0.9)
LEVELS = (*GUARD_LEVELS, 0.95, 0.99)
MIN_RUNS_FOR_SPREAD = 3
SPREAD_FACTOR = 1.5
DIRECT_PAIRS = 16
MAX_STEPS = 2**17
SIZE_OF_A_WALK = 4.0
MOST_REMEMBERED = 4096  # similar trials need the same quantiles
MOST_FOR_BLAS = 10_000  # above it BLAS starts threads, and synchronising them costs more than it saves
MAX_CENSORED_SHARE_FOR_MEAN = 0.001
MAX_BATCHES = 30
MIN_BATCHES = 4  # Student's factor is 3.2 for four, 4.3 for three and 12.7 for two: an interval without information
MIN_PAIRS = 3
ROUNDING = 1e-9  # so that a chance that is all of a tail is not above it


@dataclass(frozen=True, slots=True)
class Ordered:
    """Values in ascending order."""

    values: Floats
    upto: Ints | None = None  # cumulative number of observations per value; None: one each

    @classmethod
    def of(cls, values: Floats) -> Ordered:
        return cls(np.sort(values))

    @classmethod
    def counted(cls, values: Floats, counts: Ints) -> Ordered:
        """Put values in order that occur several times each."""
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.cumsum(counts[order]))

    @property
    def n(self) -> int:
        return len(self.values) if self.upto is None else int(self.upto[-1]) if len(self.upto) else 0

    def at(self, rank: int) -> float:
        """Return the observation of a rank, from 1 to n."""
        return float(self.values[rank - 1 if self.upto is None else int(np.searchsorted(self.upto, rank))])

    def at_ranks(self, ranks: Ints) -> Floats:
        found: Floats = self.values[ranks - 1 if self.upto is None else np.searchsorted(self.upto, ranks)]
        return found

    def counts(self) -> Ints:
        ones: Ints = np.ones(len(self.values), dtype=np.int64)
        return ones if self.upto is None else np.diff(self.upto, prepend=0)


def merged(parts: Sequence[Ordered]) -> Ordered:
    """Merge the observations of all parts into one order."""
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([*(part.values for part in parts), np.empty(0)])
    if all(part.upto is None for part in parts):
        return Ordered.of(values)
    return Ordered.counted(values, np.concatenate([part.counts() for part in parts]))


class Bound(StrEnum):
    """Which ends of an interval are known: both, or only that one."""

    POINT = "point"
    LOWER = "lower"
    UPPER = "upper"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its uncertainty."""

    value: float  # the sample's own; NaN without observations, or where it is censored
    low: float = math.nan  # ends of the 95 % interval; NaN where there is none, infinite where open
    high: float = math.nan
    bound: Bound = Bound.POINT
    n: int = 0
    n_eff: float = math.nan  # effective sample size
    needed: int | None = None  # effective sample size required for both ends


NOTHING = Estimate(math.nan, n_eff=0.0)


def quantile(values: Floats, p: float) -> float:
    """Return the inverse-CDF quantile x_(ceil(n p)): an observed value, without interpolation; NaN without values."""
    if len(values) == 0:
        return math.nan
    rank = quantile_rank(len(values), p)
    return float(np.partition(values, rank - 1)[rank - 1])


def quantile_of(ordered: Ordered, p: float) -> float:
    """Return the same of ordered values."""
    return ordered.at(quantile_rank(ordered.n, p)) if ordered.n else math.nan


def quantile_rank(n: int, p: float) -> int:
    """Return the rank ceil(n p), from 1; the tolerance keeps 100 * 0.07 = 7.000000000000001 at 7."""
    return min(n, max(1, math.ceil(n * p - 1e-9)))


def floor_two_sided(p: float) -> int:
    """Return the least effective n for a distribution-free interval with two ends: p^m + (1 - p)^m <= alpha."""
    m = math.ceil(math.log(ALPHA) / math.log(max(p, 1 - p)))
    return m if p**m + (1 - p) ** m <= ALPHA else m + 1


@dataclass(frozen=True, slots=True)
class Memory:
    """How long a series of n values remembers."""

    n: int
    time: float  # integrated autocorrelation time, at least 1
    lags: float = 0.0  # lags that were summed

    @property
    def size(self) -> float:
        """The effective sample size n / time, the time's bias taken off: (2 lags + 1) / n of it (Wolff 2004)."""
        return self.n / (self.time * (1 + (2 * self.lags + 1) / self.n)) if self.time > 1 else float(self.n)


def less_seeming(size: float, n: int) -> float:
    """Return an effective sample size of n values, less what a series seems to have that never comes back.

    Within any window such a series, as a random walk, crosses its own mean a few times: its size is estimated at
    SIZE_OF_A_WALK on average, whatever n. Of independent values nothing is taken off.
    """
    return max(1.0, size - SIZE_OF_A_WALK * (1 - size / n))


def autocorrelation_time(series: Floats) -> float:
    """Return the integrated autocorrelation time 1 + 2 sum rho_k over Geyer's initial positive sequence; at least 1."""
    return memory_of(series).time


def memory_of(series: Floats) -> Memory:
    """Return the memory by Geyer's initial positive sequence.

    A series of more than MAX_STEPS is averaged in blocks of b: tau = b var(block means) tau(block means) / var, since
    both give the variance of the overall mean.
    """
    n = len(series)
    if n < 4:
        return Memory(n, 1.0)
    if n > MAX_STEPS:
        return _memory_by_blocks(series, 2 * n // MAX_STEPS + 1)
    centred = series - series.mean()
    variance = float(centred @ centred) / n
    if _is_constant(series, variance):
        return Memory(n, 1.0)
    total = 0.0
    for pair in range(min(DIRECT_PAIRS, n // 2)):
        step = (_product(centred, 2 * pair) + _product(centred, 2 * pair + 1)) / (n * variance)
        if step <= 0:
            return Memory(n, max(1.0, 2 * total - 1), 2 * pair)
        total += step
    return _memory_by_fft(centred)


def _is_constant(series: Floats, variance: float) -> bool:
    return variance <= 1e-15 * max(1.0, float(np.abs(series).max()) ** 2)


def _memory_by_blocks(series: Floats, block: int) -> Memory:
    variance = float(series.var())
    if _is_constant(series, variance):
        return Memory(len(series), 1.0)
    means = series[: len(series) // block * block].reshape(-1, block).mean(axis=1)
    found = memory_of(means)
    time = max(1.0, block * float(means.var()) * found.time / variance)
    return Memory(len(series), time, block * found.lags)


def _product(centred: Floats, lag: int) -> float:
    early, late = centred[: len(centred) - lag], centred[lag:]
    return float(np.einsum("i,i->", early, late) if len(early) > MOST_FOR_BLAS else early @ late)


def _memory_by_fft(centred: Floats) -> Memory:
    """Sum the autocorrelation of a long memory, all lags at once."""
    n = len(centred)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    covariance = np.fft.irfft(spectrum * np.conj(spectrum), size)[:n]
    pairs = (covariance / covariance[0])[: n - n % 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    end = int(negative[0]) if len(negative) else len(pairs)
    return Memory(n, max(1.0, float(2 * pairs[:end].sum() - 1)), 2 * end)


def cluster_starts(cluster_sizes: Ints) -> Ints:
    """Return the index of the first value of each cluster that is not empty."""
    sizes = cluster_sizes[cluster_sizes > 0]
    starts: Ints = np.cumsum(sizes) - sizes
    return starts


def size_of_clusters(sums: Floats, share: float, n: int) -> float:
    """Return the effective sample size of n clustered observations.

    `sums` are those of each cluster's indicators of a level, less their mean `share`.
    """
    spread = float(sums.var()) * len(sums) * autocorrelation_time(sums)
    return float(n) if spread <= 1e-12 else min(float(n), share * (1 - share) * n * n / spread)


def ordered_quantile(ordered: Ordered, known: Ordered, own: Sequence[Ordered], p: float, size: float) -> Estimate:
    """Estimate quantile p of several runs together, at an effective sample size.

    `ordered` has +inf where censored, `known` lower bounds instead; `own` has each run. The value is the sample's own.
    Its interval has one end below the required sample size. A rank among censored values gives a lower bound: every
    true value is above its own bound, so order statistics of the bounds are below the true ones.
    """
    n = ordered.n
    if n == 0:
        return NOTHING
    needed, rank = floor_two_sided(p), quantile_rank(n, p)
    value = ordered.at(rank)
    if math.isinf(value):
        return Estimate(math.nan, known.at(rank), math.inf, Bound.LOWER, n, size, needed)
    low, high, bound = _ends(ordered, known, p, size)
    if bound is Bound.POINT:
        each = [run.at(quantile_rank(run.n, p)) for run in own if run.n]
        low, high = widen_by_spread(each, value, low, high)
    return Estimate(value, low, high, bound, n, size, needed)


def _ends(ordered: Ordered, known: Ordered, p: float, size: float) -> tuple[float, float, Bound]:
    """Return the exact binomial ranks at the effective sample size, scaled to the n observations, and which are known.

    Observation k of m stands for those from (k - 1) n / m to k n / m: the lower end is the first, the upper the last.
    """
    n, m = ordered.n, max(1, math.floor(size))
    below, above = tails(p, m)
    low, high = -math.inf, math.inf
    if below > 0 and (k := _binomial_quantile(below, m, p)) >= 1:
        low = known.at(min(math.floor(n * (k - 1) / m) + 1, quantile_rank(n, p)))
    if above > 0:
        high = ordered.at(min(n, math.ceil(n * (_binomial_quantile(1 - above, m, p) + 1) / m)))
    both = math.isfinite(low) and above > 0
    return low, high, Bound.POINT if both else Bound.UPPER if above > 0 else Bound.LOWER


def tails(p: float, m: int) -> tuple[float, float]:
    """Share ALPHA between the chances that quantile p of m values lies below and above its interval; 0 for no end.

    An end can miss no more seldom than all values lie on one side of the quantile: p^m above, (1 - p)^m below. So from
    59 values on a p95 has two ends; with a half of ALPHA for each they would begin at 72.
    """
    least_below, least_above = (1 - p) ** m, p**m
    if min(least_below, least_above) > ALPHA:
        return 0.0, 0.0
    if least_below + least_above > ALPHA:
        return (ALPHA, 0.0) if least_below <= least_above else (0.0, ALPHA)
    above = min(max(ALPHA / 2, least_above), ALPHA - least_below)
    return (ALPHA - above) * (1 + ROUNDING), above * (1 + ROUNDING)


def widen_by_spread(own: Sequence[float], value: float, low: float, high: float) -> tuple[float, float]:
    """Return the interval from the runs' own values, if they differ far more than one run's noise explains.

    If the own value of one is among censored ones, nobody knows how far they differ: the upper end is open.
    """
    k = len(own)
    if k < MIN_RUNS_FOR_SPREAD:
        return low, high
    if any(map(math.isinf, own)):
        return low, math.inf
    half = t_factor(k) * math.sqrt(float(((np.array(own) - value) ** 2).sum()) / (k - 1) / k)
    if math.isfinite(half) and math.isfinite(high - low) and 2 * half > SPREAD_FACTOR * (high - low):
        return value - half if min(own) < 0 else max(0.0, value - half), value + half
    return low, high


@lru_cache(MOST_REMEMBERED)
def t_factor(k: int) -> float:
    """Return the half width of Student's interval for the mean of k values, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(k - 1, 1 - ALPHA / 2))


@lru_cache(MOST_REMEMBERED)
def _binomial_quantile(q: float, m: int, p: float) -> int:
    return int(binomial_quantiles(q, m, p))


def binomial_quantiles(q: Floats | float, m: Floats | float, p: Floats | float) -> Floats:
    """Return the least k with P(Bin(m, p) <= k) >= q, for each of several m (whole numbers) and p."""
    from scipy.special import bdtr, bdtrik

    k = np.ceil(bdtrik(q, m, p))
    below = np.maximum(k - 1, 0)
    least: Floats = np.where((k >= 1) & (bdtr(below, np.asarray(m, dtype=np.int64), p) >= q), below, k)
    return least


def t_interval(values: Sequence[float] | Floats) -> Estimate:
    """Return the mean of independent values (repetitions, batches) with Student's interval; none for fewer than two."""
    array: Floats = np.asarray(values, dtype=np.float64)
    k = len(array)
    if k == 0:
        return NOTHING
    mean = float(array.mean())
    if k == 1:
        return Estimate(mean, n=1, n_eff=1.0)
    half = t_factor(k) * float(array.std(ddof=1)) / math.sqrt(k)
    return Estimate(mean, mean - half, mean + half, Bound.POINT, k, float(k))


def extreme_estimate(ordered: Ordered, known: Ordered, *, largest: bool) -> Estimate:
    """Return the largest or smallest value: a fact about this run, without interval; a bound where it is censored."""
    n = ordered.n
    if n == 0:
        return NOTHING
    rank = n if largest else 1
    value = ordered.at(rank)
    if math.isinf(value):
        return Estimate(math.nan, known.at(rank), math.inf, Bound.LOWER, n)
    return Estimate(value, n=n)


def share_estimate(
    runs: Sequence[NDArray[Any]], sizes: Sequence[float] | None = None, seen: Sequence[float] | None = None
) -> Estimate:
    """Return the share of true flags with the Clopper-Pearson interval at the effective sample size.

    With k of n flags true and effective size m the interval is that of k m / n successes among m. `sizes` are those of
    each run; by default as its autocorrelation has it. `seen` are those for the upper end, by default the same.
    """
    from scipy.special import betaincinv

    flags = [np.asarray(run, dtype=np.float64) for run in runs]
    n = sum(len(run) for run in flags)
    if n == 0:
        return NOTHING
    m = sum([memory_of(run).size for run in flags] if sizes is None else sizes)
    most = m if seen is None else sum(seen)
    share = float(sum(run.sum() for run in flags)) / n
    low = 0.0 if share <= 0 else float(betaincinv(share * m, m - share * m + 1, ALPHA / 2))
    high = 1.0 if share >= 1 else float(betaincinv(share * most + 1, most - share * most, 1 - ALPHA / 2))
    low, high = widen_by_spread([float(run.mean()) for run in flags if len(run)], share, low, high)
    return Estimate(share, min(max(low, 0.0), share), max(min(high, 1.0), share), Bound.POINT, n, m)


@dataclass(frozen=True, slots=True)
class Trend:
    """Drift of a series: the p-value against no trend, and the slope per step (Theil-Sen)."""

    p_value: float
    slope: float


def trend(series: Floats) -> Trend:
    """Test for a trend by Kendall's tau against the index, two-sided, normal approximation; from about ten values on.

    The deviation is scaled by the root of the autocorrelation time of the residuals (after Hamed and Rao 1998). Slow
    excursions of a series with memory are then no drift.
    """
    n = len(series)
    first, second = np.triu_indices(n, k=1)
    rises = series[second] - series[first]
    score = abs(float(np.sign(rises).sum()))
    slope = float(np.median(rises / (second - first)))
    time = autocorrelation_time(series - slope * np.arange(n))
    deviation = math.sqrt(time * n * (n - 1) * (2 * n + 5) / 18)
    return Trend(math.erfc(max(0.0, score - 1) / deviation / math.sqrt(2)), slope)


@dataclass(frozen=True, slots=True)
class Batched:
    """Observations of one run, summed for their mean: in total and as means of batches. `n_eff`: effective size."""

    n: int
    total: float
    means: Floats
    n_eff: float


def batched(run: Floats, cluster_sizes: Ints | None = None) -> Batched:
    """Sum a run in batches. Values of one cluster are consecutive and stay in one batch."""
    if len(run) == 0 or cluster_sizes is None:
        return batched_clusters(run, np.ones(len(run)))
    sums = np.add.reduceat(run, cluster_starts(cluster_sizes))
    found = batched_clusters(sums, cluster_sizes[cluster_sizes > 0].astype(np.float64))
    return replace(found, total=float(run.mean()) * len(run))


def batched_clusters(sums: Floats, sizes: Floats) -> Batched:
    """Sum clusters in batches, from the sum and the size of each cluster that is not empty.

    There are at most MAX_BATCHES, each at least five autocorrelation times long.
    """
    if len(sums) == 0:
        return Batched(0, 0.0, np.empty(0), 0.0)
    time = autocorrelation_time(sums)
    length = max(math.ceil(len(sums) / MAX_BATCHES), math.ceil(5 * time) if time > 1.5 else 1)
    count = len(sums) // length
    total, size = (part[: count * length].reshape(count, length).sum(axis=1) for part in (sums, sizes))
    return Batched(int(sizes.sum()), float(sums.sum()), total / size, len(sums) / time)


def mean_of_batches(parts: Sequence[Batched], censored: int = 0) -> Estimate:
    """Return the mean of several runs by non-overlapping batch means; fewer than MIN_BATCHES give no interval.

    `censored` of the values are only lower bounds. Above MAX_CENSORED_SHARE_FOR_MEAN the mean is a lower bound.
    """
    n, n_eff = sum(part.n for part in parts), float(sum(part.n_eff for part in parts))
    if n == 0:
        return NOTHING
    mean = sum(part.total for part in parts) / n
    if censored > MAX_CENSORED_SHARE_FOR_MEAN * n:
        return Estimate(math.nan, mean, math.inf, Bound.LOWER, n, n_eff)
    batches = np.concatenate([part.means for part in parts])
    if len(batches) < MIN_BATCHES:
        return Estimate(mean, math.nan, math.nan, Bound.POINT, n, n_eff)
    half = t_factor(len(batches)) * float(batches.std(ddof=1)) / math.sqrt(len(batches))
    low, high = widen_by_spread([part.total / part.n for part in parts if part.n], mean, mean - half, mean + half)
    return Estimate(mean, low, high, Bound.POINT, n, n_eff)


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
    """A ratio with its interval, NaN where unknown. `method`: source of the interval, or why there is none."""

    value: float
    low: float
    high: float
    method: str


def ratio(
    one: Measured,
    other: Measured,
    pairs: Sequence[tuple[float, float]] = (),
    resampled: Floats | None = None,
) -> Ratio:
    """Divide one by the other. `pairs` are both numbers of each repetition.

    From three repetitions on, all numbers known and above zero: the geometric mean of the pairs' ratios with Student's
    interval of their logarithms. To leave out a pair with time-outs or without any failure would bias it.
    Else: from `resampled`, the ratio in resamples of the same requests over that of all of them (see `paired`); else
    from both intervals on the log scale (MOVER: Zou and Donner, 2008). Neither holds the variation between starts.
    Otherwise no interval.
    """
    usable = [(a, b) for a, b in pairs if a > 0 and b > 0]
    if MIN_PAIRS <= len(usable) == len(pairs):
        found = t_interval([math.log(a / b) for a, b in usable])
        method = f"from {len(usable)} repetitions, paired"
        return Ratio(math.exp(found.value), math.exp(found.low), math.exp(found.high), method)
    if not (one.value > 0 and other.value > 0):
        return Ratio(math.nan, math.nan, math.nan, "one of the two numbers is unknown")
    value = one.value / other.value
    if resampled is not None and len(resampled):
        low, high = (float(value * end) for end in np.quantile(resampled, [ALPHA / 2, 1 - ALPHA / 2]))
        method = "request by request; how much another start would change is not in it"
        return Ratio(value, min(low, value), max(high, value), method)
    if not (one.has_interval and other.has_interval):
        return Ratio(value, math.nan, math.nan, "no interval: too few requests for one")
    below = math.hypot(math.log(one.value / one.low), math.log(other.high / other.value))
    above = math.hypot(math.log(one.high / one.value), math.log(other.value / other.low))
    method = "from the intervals of both; how much another start would change is not in it"
    return Ratio(value, value * math.exp(-below), value * math.exp(above), method)
