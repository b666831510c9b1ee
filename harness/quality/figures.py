"""Estimates of the quality metrics with intervals, from the comparison at each position.

Positions of one chunk depend on each other, so intervals count chunks. The interval of a mean is Student's, from the
chunks' means. A divergence and the share of disagreeing positions are skewed and above 0: their interval is laid around
the logarithm of the mean (delta method). Quantiles use a cluster bootstrap over chunks (2,000 seeded draws) from
FEWEST_CHUNKS on. With fewer chunks its coverage is too low.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.stats import ALPHA, Bound, Estimate, Floats, quantile, t_factor

Columns = Mapping[str, NDArray[Any]]

LOAD = "quality"
"""Value of `load` in the summary for figures of quality."""
DRAWS = 2_000
SEED = 1_987
DESIGN_EFFECT = 4.0
FEWEST_CHUNKS = 20
_DRAWS_AT_ONCE = 50
_Z_ONE_SIDED = 1.644854


def estimates(columns: Columns, k: int | None = None) -> dict[str, Estimate]:
    """Return each known metric of quality with its 95 % interval, in the order of `metrics`.

    Args:
        columns: chunk, nll_reference, nll, kl, kl_lower_bound, top1_same; an entry per position, NaN if unknown.
        k: Number of likeliest tokens that the engine reports; None for all.
    """
    chunks = _Chunks(np.asarray(columns["chunk"]))
    found: dict[str, Estimate | None] = _divergences(chunks, columns)
    found["top1_agreement"] = _agreement(chunks, np.asarray(columns["top1_same"], dtype=np.float64))
    nll, nll_reference = np.asarray(columns["nll"], float), np.asarray(columns["nll_reference"], float)
    with np.errstate(invalid="ignore"):
        change = nll - nll_reference
    if not np.isnan(change).any():
        found["ppl_ratio"] = chunks.mean(change, _exp)
    # A token outside the k likeliest has a probability of at most 1 / (k + 1).
    least = np.where(np.isnan(nll), math.log((k or 0) + 1), nll)
    ppl = chunks.mean(least, _perplexity)
    found["ppl"] = ppl if ppl is None or not np.isnan(nll).any() else _at_least(ppl)
    return {name: one for name, one in found.items() if one is not None}


def means(columns: Columns) -> dict[str, Estimate]:
    """Return the figures of `estimates` that comparisons need, "kl_mean" and "top1_agreement": no quantile is drawn."""
    chunks = _Chunks(np.asarray(columns["chunk"]))
    same = _agreement(chunks, np.asarray(columns["top1_same"], dtype=np.float64))
    kl = np.asarray(columns["kl"], dtype=np.float64)
    bound = np.where(np.isnan(kl), columns["kl_lower_bound"], kl)
    mean = chunks.mean(bound, above_zero=True)
    if mean is not None and np.isnan(kl).any():
        mean = _at_least(mean)
    found = {"kl_mean": mean, "top1_agreement": same}
    return {name: one for name, one in found.items() if one is not None}


def difference(columns: Columns, base: Columns, name: str) -> Difference:
    """Return by how much the mean of a column is above that of another configuration on the same positions.

    Paired position by position, so that the difficulty of the text cancels, with chunks as the unit.

    Args:
        columns: As of `estimates`; `base` alike, with the same positions in the same order.
        name: "kl", or "top1_same".
    """
    chunks = _Chunks(np.asarray(columns["chunk"]))
    steps = np.asarray(columns[name], dtype=np.float64) - np.asarray(base[name], dtype=np.float64)
    of_share = name == "top1_same"
    error = chunks.error(steps, float(steps.std()) if of_share else 0.0)
    if of_share and not steps.any():  # rule of three, as of an agreement at all positions
        error = 3.0 * DESIGN_EFFECT / len(steps) / _Z_ONE_SIDED if chunks.count > 1 else math.nan
    return Difference(float(steps.mean()), error, chunks.count)


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of two means over positions.

    Attributes:
        error: Standard error over chunks; NaN for a single chunk.
    """

    value: float
    error: float
    chunks: int


def _exp(mean: float) -> float:
    """Return exp, infinite on overflow (ends of very wide intervals)."""
    with np.errstate(over="ignore"):
        return float(np.exp(mean))


def _perplexity(mean: float) -> float:
    """Return exp(mean), at least 1 also for the end of an interval."""
    return _exp(max(0.0, mean))


def _divergences(chunks: _Chunks, columns: Columns) -> dict[str, Estimate | None]:
    """Return the figures of KL. If a position has only a bound, the mean is a bound too and the rest is unknown."""
    kl = np.asarray(columns["kl"], dtype=np.float64)
    if not len(kl):
        return {}
    if np.isnan(kl).any():
        bound = chunks.mean(np.where(np.isnan(kl), columns["kl_lower_bound"], kl), above_zero=True)
        return {"kl_mean": None if bound is None else _at_least(bound), "kl_bound": bound}
    return {
        "kl_mean": chunks.mean(kl, above_zero=True),
        "kl_median": chunks.quantile(kl, 0.5),
        "kl_p99": chunks.quantile(kl, 0.99),
        "kl_max": Estimate(float(kl.max()), n=len(kl), n_eff=chunks.count),
    }


def _at_least(bound: Estimate) -> Estimate:
    """Return an estimate bounded below by the lower end of another's interval."""
    low = bound.low if math.isfinite(bound.low) else bound.value
    return Estimate(math.nan, low, math.inf, Bound.LOWER, bound.n, bound.n_eff)


def _agreement(chunks: _Chunks, same: Floats) -> Estimate | None:
    """Estimate agreement by the share that differs.

    If no position differs: rule of three, each position counted as a quarter of an independent one.
    """
    if not len(same):
        return None
    found = chunks.mean(1.0 - same, above_zero=True, least_deviation=float(same.std()))
    assert found is not None
    low, high = 1.0 - found.high, 1.0 - found.low
    if found.value == 0.0:
        low, high = 1.0 - 3.0 * DESIGN_EFFECT / found.n, 1.0
    return Estimate(1.0 - found.value, max(0.0, low), high, Bound.POINT, found.n, found.n_eff)


class _Chunks:
    """Estimators over positions that are grouped in chunks."""

    def __init__(self, chunks: NDArray[Any]) -> None:
        _, self._chunk = np.unique(chunks, return_inverse=True)
        self.count = int(self._chunk.max()) + 1 if len(self._chunk) else 0

    def mean(
        self,
        values: Floats,
        shown: Callable[[float], float] = float,
        *,
        above_zero: bool = False,
        least_deviation: float = 0.0,
    ) -> Estimate | None:
        """Estimate a mean over positions, transformed by an increasing function; one chunk gives no interval.

        Args:
            values: [positions]
            shown: The increasing function.
            above_zero: The mean is positive and its logarithm is nearer to normal.
            least_deviation: Standard deviation of independent positions: a lower bound, if chunks agree by chance.
        """
        if not (n := len(values)):
            return None
        value = float(values.mean())
        if self.count < 2 or not math.isfinite(value):
            return Estimate(shown(value), n=n, n_eff=self.count)
        half = t_factor(self.count) * self.error(values, least_deviation)
        low, high = value - half, value + half
        if above_zero:
            ratio = _exp(half / value) if value > 0 else 1.0
            low, high = value / ratio, value * ratio
        return Estimate(shown(value), shown(low), shown(high), Bound.POINT, n, self.count)

    def error(self, values: Floats, least_deviation: float = 0.0) -> float:
        """Return the standard error of a mean over positions (see `mean`); NaN for one chunk."""
        if self.count < 2:
            return math.nan
        n = len(values)
        away = np.bincount(self._chunk, values - values.mean(), self.count)
        error = math.sqrt(float((away**2).sum()) * self.count / (self.count - 1)) / n
        return max(error, least_deviation / math.sqrt(n))

    def quantile(self, values: Floats, p: float) -> Estimate:
        """Estimate a quantile over positions (inverse CDF); few chunks give no interval."""
        value = quantile(values, p)
        if self.count < FEWEST_CHUNKS:
            return Estimate(value, n=len(values), n_eff=self.count)
        order = np.argsort(values, kind="stable")
        ordered, cluster = values[order], self._chunk[order]
        times = np.random.default_rng(SEED).multinomial(self.count, np.full(self.count, 1 / self.count), size=DRAWS)
        drawn = []
        for start in range(0, DRAWS, _DRAWS_AT_ONCE):
            reached = np.cumsum(times[start : start + _DRAWS_AT_ONCE, cluster], axis=1)
            rank = np.ceil(reached[:, -1:] * p - 1e-9)
            drawn.append(ordered[(reached >= rank).argmax(axis=1)])
        low, high = np.quantile(np.concatenate(drawn), (ALPHA / 2, 1 - ALPHA / 2), method="inverted_cdf")
        return Estimate(value, float(low), float(high), Bound.POINT, len(values), self.count)
