"""Distributions: the observations of a metric, with what its statistics need of them more than once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.analysis import stats
from harness.analysis.stats import GUARD_LEVELS, LEVELS, Batched, Estimate, Floats, Ints, Ordered, merged
from harness.metrics import METRICS

Cap = Callable[[float], float]


def no_cap(p: float) -> float:
    """Leave the effective sample size for quantile p as it is."""
    return math.inf


@dataclass
class Observations:
    """Observations of one metric one by one, in due order."""

    values: Floats  # +inf where censored
    bounds: Floats  # the same with the least possible value instead of +inf
    clusters: Ints | None = None  # observations of each request; None for one each
    cap: Cap = no_cap  # upper limit of the effective sample size for quantile p

    @cached_property
    def ordered(self) -> Ordered:
        """Values in ascending order, +inf where censored."""
        return Ordered.of(self.values)

    @cached_property
    def known(self) -> Ordered:
        """Bounds in ascending order; the same object as `ordered` if nothing is censored."""
        return Ordered.of(self.bounds) if self.censored else self.ordered

    @cached_property
    def censored(self) -> int:
        return int(np.isinf(self.values).sum())

    @cached_property
    def batches(self) -> Batched:
        """Bounds in batches, for their mean."""
        return stats.batched(self.bounds, self.clusters)

    @cached_property
    def _sizes(self) -> dict[float, float]:
        return stats.sizes_by_level(self.values, LEVELS, self.clusters, self.ordered)

    def effective_size(self, p: float) -> float:
        """Return the effective sample size for quantile p: the minimum over GUARD_LEVELS up to p, at most the cap."""
        if p not in self._sizes:
            self._sizes.update(stats.sizes_by_level(self.values, [p], self.clusters, self.ordered))
        return min(*(self._sizes[level] for level in (*GUARD_LEVELS, p) if level <= p), self.cap(p))


@dataclass
class CountedGaps:
    """Observations in ms that were counted in one pass; names as in `Observations`."""

    ordered: Ordered
    known: Ordered
    censored: int
    sizes: dict[float, float]  # effective sample sizes by level; those of other levels are unknown
    batches: Batched
    cap: Cap = no_cap

    def effective_size(self, p: float) -> float:
        """Return the effective sample size for quantile p: the minimum over known levels up to p, at most the cap."""
        up_to = [size for level, size in self.sizes.items() if level <= p]
        return min(min(up_to or self.sizes.values(), default=0.0), self.cap(p))


Distribution = Observations | CountedGaps


def capped(found: Mapping[str, Distribution], cap: Cap) -> dict[str, Distribution]:
    """Return the distributions by metric name, those of latencies that include queueing with a cap."""
    copies = {name: copy(one) for name, one in found.items()}  # which keep what was computed
    for name, one in copies.items():
        if METRICS[name].queues:
            one.cap = cap
    return copies


class Pool:
    """Distributions of a metric in several repetitions, taken together."""

    def __init__(self, runs: Sequence[Distribution]) -> None:
        self._runs = runs

    @cached_property
    def _ordered(self) -> Ordered:
        return merged([run.ordered for run in self._runs])

    @cached_property
    def _known(self) -> Ordered:
        if all(run.known is run.ordered for run in self._runs):
            return self._ordered
        return merged([run.known for run in self._runs])

    def estimate(self, statistic: str) -> Estimate:
        """Return "mean", "min", "max" or a quantile ("p99.9")."""
        if statistic.startswith("p"):
            p = float(statistic[1:]) / 100
            size = sum(run.effective_size(p) for run in self._runs)
            return stats.ordered_quantile(self._ordered, self._known, [run.ordered for run in self._runs], p, size)
        if statistic == "mean":
            censored = sum(run.censored for run in self._runs)
            return stats.mean_of_batches([run.batches for run in self._runs], censored)
        return stats.extreme_estimate(self._ordered, self._known, largest=statistic == "max")
