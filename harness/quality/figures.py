"""The figures of quality: from positions (`harness.quality.divergence`) to estimates with intervals.

Positions of one chunk of text depend on each other, so chunks are what an interval counts. That of a mean is Student's,
from the chunks' means. For a divergence and for the share of positions that disagree, which are skewed and above 0, it
is laid around the logarithm of the mean (delta method). Quantiles draw whole chunks with replacement (cluster
bootstrap, 2,000 times, seeded), from FEWEST_CHUNKS on; with fewer such an interval holds the truth too seldom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.stats import ALPHA, Bound, Estimate, quantile, t_factor

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

LOAD = "quality"
"""The name under `load` in the summary, where figures of quality stand."""
DRAWS = 2_000
SEED = 1_987
DESIGN_EFFECT = 4.0
FEWEST_CHUNKS = 20
_DRAWS_AT_ONCE = 50


def estimates(columns: Columns, k: int | None = None) -> dict[str, Estimate]:
    """Each metric of quality with its 95 % interval, in the order of `metrics`; what cannot be told is not there.

    columns: chunk, nll_reference, nll, kl, kl_lower_bound, top1_same: one entry per position, NaN where unknown.
    k: of how many of its likeliest tokens the engine told; None: of all.
    """
    chunks = _Chunks(np.asarray(columns["chunk"]))
    found: dict[str, Estimate | None] = _divergences(chunks, columns)
    found["top1_agreement"] = _agreement(chunks, np.asarray(columns["top1_same"], dtype=np.float64))
    nll, nll_reference = np.asarray(columns["nll"], float), np.asarray(columns["nll_reference"], float)
    with np.errstate(invalid="ignore"):
        change = nll - nll_reference
    if not np.isnan(change).any():
        found["ppl_ratio"] = chunks.mean(change, _exp)
    # What is not among the k likeliest has a probability of 1 / (k + 1) at most.
    least = np.where(np.isnan(nll), math.log((k or 0) + 1), nll)
    ppl = chunks.mean(least, _perplexity)
    found["ppl"] = ppl if ppl is None or not np.isnan(nll).any() else _at_least(ppl)
    return {name: one for name, one in found.items() if one is not None}


def _exp(mean: float) -> float:
    """Infinite where it is too large for a float, as ends of very wide intervals are."""
    with np.errstate(over="ignore"):
        return float(np.exp(mean))


def _perplexity(mean: float) -> float:
    """No less than 1, whatever an interval's end is."""
    return _exp(max(0.0, mean))


def _divergences(chunks: _Chunks, columns: Columns) -> dict[str, Estimate | None]:
    """Where only a bound is known at some positions, the mean is known from below, the rest of the figures not."""
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
    """What is not below a figure: so not below the lower end of its interval."""
    low = bound.low if math.isfinite(bound.low) else bound.value
    return Estimate(math.nan, low, math.inf, Bound.LOWER, bound.n, bound.n_eff)


def _agreement(chunks: _Chunks, same: Floats) -> Estimate | None:
    """By the share that differs. Where no position does, the rule of three, positions counted as a quarter of an
    independent one each.
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
    """Which positions stand in which chunk."""

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
        """A mean over positions, put through an increasing function; without an interval where there is one chunk.

        above_zero: the mean is no less, and its logarithm is nearer to normal.   least_deviation: that of a position
        which depends on no other; chunks that happen to agree more than that tell no more.
        """
        n = len(values)
        if not n:
            return None
        value = float(values.mean())
        if self.count < 2 or not math.isfinite(value):
            return Estimate(shown(value), n=n, n_eff=self.count)
        away = np.bincount(self._chunk, values - value, self.count)
        error = math.sqrt(float((away**2).sum()) * self.count / (self.count - 1)) / n
        half = t_factor(self.count) * max(error, least_deviation / math.sqrt(n))
        low, high = value - half, value + half
        if above_zero:
            ratio = _exp(half / value) if value > 0 else 1.0
            low, high = value / ratio, value * ratio
        return Estimate(shown(value), shown(low), shown(high), Bound.POINT, n, self.count)

    def quantile(self, values: Floats, p: float) -> Estimate:
        """A quantile over positions (inverse CDF); without an interval where there are few chunks."""
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
