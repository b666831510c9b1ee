"""Distributions: the observations of a metric with what its statistics need of them more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from harness.analysis import stats
from harness.analysis.columns import Columns
from harness.analysis.latencies import Observations
from harness.analysis.queue import QueueGuard
from harness.analysis.stats import LEVELS, Batched, Estimate, Ordered, merged
from harness.metrics import METRICS


class Distribution(Protocol):
    """One metric of one trial; `Listed` has each value, `gap_counts.CountedGaps` counted them."""

    @property
    def ordered(self) -> Ordered:
        """The values in order, +inf where censored."""
        ...

    @property
    def known(self) -> Ordered:
        """The same with the least value there; the same object where nothing is censored."""
        ...

    @property
    def censored(self) -> int:
        """How many are."""
        ...

    @property
    def batches(self) -> Batched:
        """The known values, for their mean."""
        ...

    def effective_size(self, p: float) -> float:
        """Independent observations that they are worth for a quantile: the least over the levels up to p."""
        ...


@dataclass(frozen=True)
class Listed:
    """Observations one by one."""

    observations: Observations

    @cached_property
    def ordered(self) -> Ordered:
        """See Distribution."""
        return Ordered.of(self.observations.values)

    @cached_property
    def known(self) -> Ordered:
        """See Distribution."""
        return Ordered.of(self.observations.bounds) if self.censored else self.ordered

    @cached_property
    def censored(self) -> int:
        """See Distribution."""
        return int(np.isinf(self.observations.values).sum())

    @cached_property
    def batches(self) -> Batched:
        """See Distribution."""
        return stats.batched(self.observations.bounds, self.observations.clusters)

    @cached_property
    def sizes(self) -> dict[float, float]:
        """Effective sizes at the usual levels."""
        return stats.sizes_by_level(self.observations.values, LEVELS, self.observations.clusters, self.ordered)

    def effective_size(self, p: float) -> float:
        """See Distribution."""
        if p not in self.sizes:
            self.sizes.update(
                stats.sizes_by_level(self.observations.values, [p], self.observations.clusters, self.ordered)
            )
        return min(self.sizes[level] for level in (*(level for level in stats.GUARD_LEVELS if level < p), p))


@dataclass(frozen=True)
class Guarded:
    """Latencies that cannot be worth more than the states of the queue they waited in."""

    inner: Distribution
    guard: QueueGuard

    @property
    def ordered(self) -> Ordered:
        """See Distribution."""
        return self.inner.ordered

    @property
    def known(self) -> Ordered:
        """See Distribution."""
        return self.inner.known

    @property
    def censored(self) -> int:
        """See Distribution."""
        return self.inner.censored

    @property
    def batches(self) -> Batched:
        """See Distribution."""
        return self.inner.batches

    def effective_size(self, p: float) -> float:
        """See Distribution."""
        return min(self.inner.effective_size(p), self.guard.cap(p))


def guarded(found: dict[str, Distribution], guard: QueueGuard) -> dict[str, Distribution]:
    """The latencies among them held down by the queue."""
    return {name: Guarded(one, guard) if METRICS[name].queues else one for name, one in found.items()}


def distributions(columns: Columns, observed: dict[str, Observations]) -> dict[str, Distribution]:
    """Every distribution of the measured requests, by metric name."""
    found: dict[str, Distribution] = {name: Listed(one) for name, one in observed.items()}
    if columns.counted is not None:
        found.update(columns.counted.gaps)
    return found


class Pool:
    """The distributions of a metric in several repetitions, taken together."""

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
        """One statistic."""
        if statistic.startswith("p"):
            p = float(statistic[1:]) / 100
            size = sum(run.effective_size(p) for run in self._runs)
            return stats.ordered_quantile(self._ordered, self._known, [run.ordered for run in self._runs], p, size)
        if statistic == "mean":
            censored = sum(run.censored for run in self._runs)
            return stats.mean_of_batches([run.batches for run in self._runs], censored)
        return stats.extreme_estimate(self._ordered, self._known, largest=statistic == "max")
