"""Curves: the distribution of a latency as points, each with the same interval as in the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from harness.analysis.effective import Size
from harness.analysis.series.clouds import stacked
from harness.analysis.stats import LEVELS, Floats, Ints, Ordered, binomial_quantiles, tails

if TYPE_CHECKING:
    import pandas as pd

CURVES = ("ttft_ms", "tpot_ms", "e2e_ms", "icl_ms")
CLASS_CURVES = ("ttft_ms", "e2e_ms")
CURVE_POINTS = 120
NAMED = (0.01, 0.05, 0.1, 0.25, *LEVELS, 0.999, 0.9999)
COLUMNS = ("metric", "share", "ms", "low_ms", "high_ms", "n")
_LOWEST = -2.4  # standard deviations: 0.8 %, the lowest level of interest


class Curved(Protocol):
    """Distribution of one trial, or of several together."""

    @property
    def ordered(self) -> Ordered: ...

    def size(self, p: float) -> Size: ...


def curves_of(found: Mapping[str, Curved], metrics: tuple[str, ...] = CURVES) -> pd.DataFrame:
    """Return the inverse CDF of some metrics, with the columns COLUMNS; at most CURVE_POINTS + len(NAMED) rows of each.

    share: of the requests at most as slow as ms.   low_ms, high_ms: 95 % interval of that quantile, NaN for too few.
    n: observations. Censored requests leave the curve below share 1.
    """
    curves = {metric: _curve(found[metric]) for metric in metrics if metric in found and found[metric].ordered.n}
    return stacked(curves, COLUMNS[1:])


def _curve(distribution: Curved) -> tuple[Floats, Floats, Floats, Floats, Ints]:
    """Return the columns behind `metric`."""
    ordered = distribution.ordered
    n = ordered.n
    levels = _levels(n)
    ranks = np.clip(np.ceil(n * levels - 1e-9), 1, n).astype(np.int64)
    ms = ordered.at_ranks(ranks)
    low, high = _band(distribution, levels)
    seen = np.isfinite(ms)
    return ranks[seen] / n, ms[seen], low[seen], high[seen], np.full(int(seen.sum()), n)


def _levels(n: int) -> Floats:
    """Return the quantiles to draw: every observation of a few, else evenly spaced on the plot's scale, and NAMED."""
    from scipy.special import ndtr, ndtri

    named = np.array([level for level in NAMED if level * n >= 1 and (1 - level) * n >= 1])
    if n <= CURVE_POINTS:
        others = np.arange(1, n + 1) / n
    else:
        others = np.append(ndtr(np.linspace(_LOWEST, ndtri(1 - 0.5 / n), CURVE_POINTS)), 1.0)
    every = np.concatenate([named, others])
    ranks = np.clip(np.ceil(n * every - 1e-9), 1, n)
    _, first = np.unique(ranks, return_index=True)  # the named one where two share a rank
    levels: Floats = every[first]
    return levels


def _band(distribution: Curved, levels: Floats) -> tuple[Floats, Floats]:
    """Return the ends of the intervals, as `stats.ordered_quantile` has them; NaN where one is open.

    Between two of LEVELS the effective sample size is the upper one's.
    """
    ordered, n = distribution.ordered, distribution.ordered.n
    upper_level = np.array(LEVELS)[np.minimum(np.searchsorted(LEVELS, levels), len(LEVELS) - 1)]
    sizes = {level: max(1.0, np.floor(distribution.size(level).n_eff)) for level in np.unique(upper_level)}
    size = np.array([sizes[level] for level in upper_level])
    low, high = np.full((2, len(levels)), np.nan)
    chances = np.array([tails(p, int(m)) for p, m in zip(levels, size, strict=True)])
    closed = (chances > 0).all(axis=1) & (levels < 1)
    if not closed.any():
        return low, high
    m, p = size[closed], levels[closed]
    below, above = chances[closed].T
    k = binomial_quantiles(below, m, p)
    first = np.minimum(np.floor(n * (k - 1) / m) + 1, np.ceil(n * p - 1e-9)).astype(np.int64)
    last = np.ceil(n * (binomial_quantiles(1 - above, m, p) + 1) / m).astype(np.int64)
    low[closed] = np.where(k >= 1, ordered.at_ranks(np.clip(first, 1, n)), np.nan)
    high[closed] = ordered.at_ranks(np.clip(last, 1, n))
    return low, np.where(np.isfinite(high), high, np.nan)
