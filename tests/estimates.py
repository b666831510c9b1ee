"""Estimates of single arrays, by the same steps as `distributions.Pool` takes for a metric."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis import stats
from harness.analysis.effective import INDEPENDENT, Dependence, Sizes
from harness.analysis.stats import Estimate, Floats, Ordered, merged


def effective_size(values: Floats, p: float, dependence: Dependence = INDEPENDENT) -> float:
    """The effective sample size for a quantile."""
    return Sizes(values, Ordered.of(values), dependence).at(p).n_eff


def quantile_estimate(
    runs: Sequence[Floats], p: float, *, bounds: Sequence[Floats] | None = None, n_eff: float | None = None
) -> Estimate:
    """A quantile of all runs together.

    runs: values in due order; +inf where only a lower bound is known (censored).   bounds: the same with that lower
    bound in place of +inf.   n_eff: effective size if already known.
    """
    size = sum(effective_size(run, p) for run in runs) if n_eff is None else n_eff
    own = [Ordered.of(run) for run in runs]
    ordered = merged(own)
    known = ordered if bounds is None else merged([Ordered.of(run) for run in bounds])
    return stats.ordered_quantile(ordered, known, own, p, size)


def mean_estimate(runs: Sequence[Floats], censored: int = 0) -> Estimate:
    """The mean of all runs, of whose values so many are only lower bounds."""
    return stats.mean_of_batches([stats.batched(run) for run in runs], censored)
