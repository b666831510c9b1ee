"""Effective sample size: how many independent requests those of a trial are worth at a quantile, or for a share.

Three things make requests alike, and each has its place in 1/m = R2 / states + (1 - R2) / own:

- own: neighbours are alike, so the indicator 1{x <= q} has an autocorrelation time. In a closed loop it is that of
  whole rounds: within a round one request more is slow because another one is not, which no single lag shows.
- states: every latency depends on the requests in flight, which change slowly. R2 is the share of the indicator's
  variance that they explain.

`docs/adr/0020-sample-value-always.md` has what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from harness.analysis.stats import (
    ALPHA,
    GUARD_LEVELS,
    Floats,
    Ints,
    Ordered,
    cluster_starts,
    less_seeming,
    memory_of,
    quantile_rank,
    size_of_clusters,
    t_factor,
)

BINS = 10
WIDER = 5  # times as many requests beyond the next level that is looked at
ENOUGH_BEYOND = 30
LEAST_ROUNDS, MANY_ROUNDS = 8, 100
NORMAL = 1.959964
TAIL = 0.95  # level from which binomial ranks leave room for few rounds (ADR 0020)
MOST_ALIKE = 0.95  # first lag of rounds, corrected: of few it may come out at 1 or more
CHANCE = 1.644854  # standard errors that the first lag of independent rounds exceeds in one of twenty


@dataclass(frozen=True, slots=True)
class Size:
    """Effective sample size of n observations. `explained`: R2."""

    n: int
    n_eff: float
    explained: float = 0.0


@dataclass(frozen=True)
class Dependence:
    """Sources of correlation between observations; arrays with one value each, in due order.

    states: independent states of the requests in flight.   met: requests in flight that each met, None if they do not
    matter.   rounds: number of the round of a closed loop that each belongs to, None if there are too few.
    seen: states as they seem, without care for those that the run never met.   careful: whether such care is taken.
    """

    states: float = math.inf
    met: Floats | None = None
    rounds: Ints | None = None
    seen: float = math.inf
    careful: bool = True

    def of(self, places: Ints) -> Dependence:
        """Return that of some observations, by their places in ascending order."""
        if len(places) in (len(one) for one in (self.met, self.rounds) if one is not None):
            return self
        met = None if self.met is None else self.met[places]
        return replace(self, met=met, rounds=None if self.rounds is None else self.rounds[places])

    @property
    def as_seen(self) -> Dependence:
        """The same by what the run met alone."""
        return replace(self, states=self.seen if math.isfinite(self.seen) else self.states, careful=False)

    @cached_property
    def _bins(self) -> tuple[Ints, Ints] | None:
        """The bin of each observation by the requests it met, and the size of each bin; None if all met alike."""
        if self.met is None or not len(self.met) or not math.isfinite(self.states):
            return None
        edges = np.unique(np.quantile(self.met, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, self.met, side="right")
        counts = np.bincount(bins, minlength=len(edges) + 1)
        return (bins, counts) if (counts > 0).sum() > 1 else None

    @cached_property
    def _round_sizes(self) -> Ints | None:
        if self.rounds is None or not len(self.rounds):
            return None
        sizes = np.bincount(self.rounds - self.rounds[0])
        return sizes[sizes > 0] if (sizes > 0).sum() >= LEAST_ROUNDS else None

    def explained(self, below: Floats) -> float:
        """Return the adjusted share of the variance of an indicator that the requests in flight explain.

        A share that chance gives one indicator of twenty counts as none.
        """
        variance = float(below.var())
        if self._bins is None or self._round_sizes is not None or variance <= 0:
            return 0.0
        bins, counts = self._bins
        used, n = counts > 0, len(below)
        groups = int(used.sum())
        means = np.bincount(bins, below, len(counts))[used] / counts[used]
        between = float((counts[used] * (means - below.mean()) ** 2).sum()) / (n * variance)
        if between * n < by_chance(groups):
            return 0.0
        return min(1.0, max(0.0, 1 - (1 - between) * (n - 1) / max(1, n - groups)))

    def own(self, below: Floats, *, tail: bool = False) -> float:
        """Return the effective sample size of an indicator by itself."""
        sizes = self._round_sizes
        size = memory_of(below).size if sizes is None else size_of_rounds(below, sizes, tail=tail)
        return less_seeming(size, len(below)) if self.careful else size

    def sure(self, own: float, p: float = 0.0) -> float:
        """Return the effective sample size less what the variance between few rounds is uncertain by, at quantile p.

        That is Student's factor for a variance, and its root for a tail: there, ranks are wider than they must be.
        """
        sizes = self._round_sizes
        return own if sizes is None else own * (NORMAL / t_factor(len(sizes))) ** (1 if p >= TAIL else 2)

    def joined(self, own: float, explained: float, *, hides: bool = True) -> float:
        """Return the effective sample size by all that makes the observations alike.

        R2 rests on few states, so its standard error is added, 2 (1 - R2) sqrt(R2 / states). It is at least that of
        the share of one state, 2 / states: a queue that came up in none of them leaves an R2 of 0.

        Without care it is half of the error.

        Args:
            hides: Whether such a queue may hide what is measured: latencies, and the shares that they decide.
        """
        if own <= self.states:
            return own
        error = 2 * (1 - explained) * math.sqrt(explained / self.states)
        hidden = 2 / self.states if hides and self._bins is not None else 0.0
        sure = min(1.0, explained + (max(error, hidden) if self.careful else error / 2))
        return 1 / (sure / self.states + (1 - sure) / own)


INDEPENDENT = Dependence()


@cache
def by_chance(groups: int) -> float:
    """Return what n R2 of that many groups exceeds by chance once in twenty (chi-square)."""
    from scipy.special import chdtri

    return float(chdtri(groups - 1, ALPHA))


def size_of_rounds(series: Floats, sizes: Ints, *, tail: bool = False) -> float:
    """Return the effective sample size of a series in rounds of consecutive requests."""
    n, sums = len(series), _sums(series, sizes)
    spread = float(sums.var(ddof=1)) * len(sizes)
    if spread > 1e-12:
        spread *= time_of_rounds(sums, tail=tail)
    return float(n) if spread <= 1e-12 else min(float(n), float(series.var()) * n * n / spread)


def _sums(below: Floats, sizes: Ints) -> Floats:
    found: Floats = np.add.reduceat(below - below.mean(), cluster_starts(sizes))
    return found


def time_of_rounds(sums: Floats, *, tail: bool) -> float:
    """Return the autocorrelation time of what rounds add up to.

    Fewer than MANY_ROUNDS show it badly: their first lag is corrected for its bias, (1 + 3 lag) / rounds (Kendall), and
    used even if it may be chance. At a tail, less is enough (see `Dependence.sure`): the root of the time, and that
    only of a lag of more than its standard error.
    """
    k, centred = len(sums), sums - sums.mean()
    if k >= MANY_ROUNDS:
        return k / memory_of(sums).size
    power = float(centred @ centred)
    first_lag = float(centred[:-1] @ centred[1:]) / power if power > 0 else 0.0
    alike = min(MOST_ALIKE, max(0.0, first_lag + (1 + 3 * first_lag) / k))
    time = (1 + alike) / (1 - alike)
    if first_lag > CHANCE / math.sqrt(k):
        return max(time, k / memory_of(sums).size)
    if tail:
        return math.sqrt(time) if alike > 1 / math.sqrt(k) else 1.0
    return time


def wider(p: float) -> Iterator[float]:
    """Yield p and lower levels, each with WIDER times as many observations beyond it."""
    while p > 0:
        yield round(p, 12)
        p = 1 - WIDER * (1 - p)


class Sizes:
    """Effective sample sizes of observations at quantiles; +inf among the values is allowed.

    A few slow requests say little of how they come together. So the autocorrelation at p is also that of lower levels,
    until one has ENOUGH_BEYOND requests beyond it, and R2 is the larger one of p and the next lower level.

    `cluster_sizes` are those of consecutive values that belong together (the gaps of a reply), None for one each. Then
    the size is the least of GUARD_LEVELS up to p: thresholds near p may split equal gaps this way or that.
    """

    def __init__(
        self, values: Floats, ordered: Ordered, dependence: Dependence = INDEPENDENT, cluster_sizes: Ints | None = None
    ) -> None:
        self._values, self._ordered, self._clusters = values, ordered, cluster_sizes
        self._dependence = dependence
        self._owns: dict[tuple[float, bool], float] = {}
        self._shares: dict[float, float] = {}
        self._clustered: dict[float, float] = {}

    def at(self, p: float) -> Size:
        """Return the size for quantile p."""
        n = self._ordered.n
        if n == 0:
            return Size(0, 0.0)
        if self._clusters is not None:
            up_to = [*(level for level in GUARD_LEVELS if level < p), p]
            return Size(n, min(self._of_clusters(level, self._clusters) for level in up_to))
        levels = list(wider(p))
        enough = next((i for i, level in enumerate(levels) if n * (1 - level) >= ENOUGH_BEYOND), len(levels) - 1)
        own = self._dependence.sure(min(self._own(level, p >= TAIL) for level in levels[: enough + 1]), p)
        shares = [self._explained(level) for level in levels[:2]]
        return Size(n, self._dependence.joined(own, max(shares)), max(shares))

    def _below(self, p: float) -> Floats:
        return (self._values <= self._ordered.at(quantile_rank(self._ordered.n, p))).astype(np.float64)

    def _own(self, level: float, tail: bool) -> float:
        """Return the size by itself of the indicator of a level."""
        if (level, tail) not in self._owns:
            self._owns[level, tail] = self._dependence.own(self._below(level), tail=tail)
        return self._owns[level, tail]

    def _explained(self, level: float) -> float:
        """Return R2 of the indicator of a level."""
        if level not in self._shares:
            self._shares[level] = self._dependence.explained(self._below(level))
        return self._shares[level]

    def _of_clusters(self, p: float, cluster_sizes: Ints) -> float:
        """Return p (1 - p) N^2 / (J var(s) tau), with s_j = sum over cluster j of (1{x <= q} - p)."""
        if p not in self._clustered:
            below = self._below(p)
            self._clustered[p] = size_of_clusters(_sums(below, cluster_sizes), float(below.mean()), len(below))
        return self._clustered[p]


@dataclass(frozen=True, slots=True)
class ShareSize:
    """Effective sample size of flags. seen: by what the run met alone; a queue that it did not meet makes flags worse.

    So a share of good requests is at least what `n_eff` leaves, and at most what `seen` does.
    """

    n_eff: float
    seen: float


def share_size(flags: Floats, dependence: Dependence = INDEPENDENT, explained: float | None = None) -> ShareSize:
    """Return the effective sample size of flags, 1 or 0. `explained`: R2 of the latencies behind them, if any."""
    size = _share_size(flags, dependence, explained)
    if explained is None:  # errors are seen where they are
        return ShareSize(size, size)
    return ShareSize(size, max(size, _share_size(flags, dependence.as_seen, explained)))


def _share_size(flags: Floats, dependence: Dependence, explained: float | None) -> float:
    if not len(flags):
        return 0.0
    shares = [dependence.explained(flags), *([] if explained is None else [explained])]
    own = dependence.sure(dependence.own(flags))
    return dependence.joined(own, max(shares), hides=explained is not None)
