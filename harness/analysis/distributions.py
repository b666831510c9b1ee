"""Distributions: the observations of a metric, with what its statistics need of them more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.analysis import stats
from harness.analysis.effective import INDEPENDENT, Dependence, Size, Sizes
from harness.analysis.stats import Batched, Estimate, Floats, Ints, Ordered, merged


@dataclass
class Observations:
    """Observations of one metric one by one, in due order."""

    values: Floats  # +inf where censored
    bounds: Floats  # the same with the least possible value instead of +inf
    clusters: Ints | None = None  # observations of each request; None for one each
    places: Ints | None = None  # which of the requests each was observed of; None for several of each
    owners: Ints | None = None  # which of the requests each cluster was observed of
    dependence: Dependence = INDEPENDENT

    @property
    def rows(self) -> Ints | None:
        """Which of the requests gave an observation or a cluster; None if that is unknown."""
        return self.places if self.clusters is None else self.owners

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
    def _sizes(self) -> Sizes:
        return Sizes(self.values, self.ordered, self.dependence, self.clusters)

    def size(self, p: float) -> Size:
        """Return the effective sample size for quantile p."""
        return self._sizes.at(p)


@dataclass
class CountedGaps:
    """Observations in ms that were counted in one pass; names as in `Observations`."""

    ordered: Ordered
    known: Ordered
    censored: int
    sizes: dict[float, float]  # effective sample sizes by level; those of other levels are unknown
    batches: Batched

    def size(self, p: float) -> Size:
        """Return the effective sample size for quantile p: the least of known levels up to p."""
        up_to = [size for level, size in self.sizes.items() if level <= p]
        return Size(self.ordered.n, min(up_to or self.sizes.values(), default=0.0))


Distribution = Observations | CountedGaps


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
            size = sum(run.size(p).n_eff for run in self._runs)
            return stats.ordered_quantile(self._ordered, self._known, [run.ordered for run in self._runs], p, size)
        if statistic == "mean":
            censored = sum(run.censored for run in self._runs)
            return stats.mean_of_batches([run.batches for run in self._runs], censored)
        return stats.extreme_estimate(self._ordered, self._known, largest=statistic == "max")
