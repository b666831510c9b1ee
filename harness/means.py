"""Means of measurements that depend on each other, by batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.stats import (
    ALPHA,
    Bound,
    Estimate,
    Floats,
    autocorrelation_time,
    cluster_starts,
    t_factor,
    widen_by_spread,
)

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
