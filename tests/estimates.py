"""Estimates of single arrays, by the same steps as `distributions.Pool` takes for a metric."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import stats
from harness.analysis.stats import GUARD_LEVELS, Estimate, Floats, Ordered, merged


def effective_size(values: Floats, levels: Sequence[float]) -> float:
    """The least effective sample size over the levels."""
    return min(stats.sizes_by_level(values, levels).values())


def quantile_estimate(
    runs: Sequence[Floats],
    p: float,
    *,
    bounds: Sequence[Floats] | None = None,
    n_eff: float | None = None,
    m_cap: float | None = None,
) -> Estimate:
    """A quantile of all runs together.

    runs: values in due order; +inf where only a lower bound is known (censored).   bounds: the same with that lower
    bound in place of +inf.   n_eff: effective size if already known.   m_cap: an upper limit for it.
    """
    levels = [*(level for level in GUARD_LEVELS if level < p), p]
    size = sum(effective_size(run, levels) for run in runs) if n_eff is None else n_eff
    size = min(size, m_cap) if m_cap is not None else size
    own = [Ordered.of(run) for run in runs]
    ordered = merged(own)
    known = ordered if bounds is None else merged([Ordered.of(run) for run in bounds])
    return stats.ordered_quantile(ordered, known, own, p, size)


def mean_estimate(runs: Sequence[Floats], censored: int = 0) -> Estimate:
    """The mean of all runs, of whose values so many are only lower bounds."""
    return stats.mean_of_batches([stats.batched(run) for run in runs], censored)
