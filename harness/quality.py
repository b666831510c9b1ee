"""The figures of quality: from positions (`harness.divergence`) to estimates with intervals, and the words for them.

Positions of one chunk of text depend on each other, so intervals come from drawing whole chunks with replacement
(cluster bootstrap, 2,000 times, seeded): percentiles of the drawn figures; for the mean divergence, whose distribution
is skewed, bias-corrected and accelerated (BCa; Efron 1987).

`python -m harness.quality` writes the words into docs/quality.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.stats import ALPHA, Bound, Estimate, quantile

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]

LOAD = "quality"
"""The name under `load` in the summary, where figures of quality stand."""
DRAWS = 2_000
SEED = 1_987
DESIGN_EFFECT = 4.0
FLOOR_FACTOR = 3.0
_DRAWS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Grade:
    """A word and what it takes: a mean divergence of at most `kl`, and at least `top1` agreement."""

    word: str
    kl: float
    top1: float


GRADES = (Grade("near-lossless", 0.001, 0.985), Grade("good", 0.01, 0.95), Grade("degraded", 0.05, 0.0))
WORST = "poor"


def word(kl_mean: float, top1: float) -> str:
    """The first grade whose bounds both figures keep, else "poor"; figures that are NaN keep no bound."""
    return next((grade.word for grade in GRADES if kl_mean <= grade.kl and top1 >= grade.top1), WORST)


def indistinguishable(kl_mean: float, floor: float | None) -> bool:
    """Whether a mean divergence is no more than three times that of the reference from itself."""
    return floor is not None and kl_mean <= FLOOR_FACTOR * floor


def estimates(columns: Columns) -> dict[str, Estimate]:
    """Each metric of quality with its 95 % interval, in the order of `metrics`; what cannot be told is not there.

    columns: chunk, nll_reference, nll, kl, kl_lower_bound, top1_same: one entry per position, NaN where unknown.
    """
    draws = _Draws(np.asarray(columns["chunk"]))
    found: dict[str, Estimate | None] = {}
    kl = np.asarray(columns["kl"], dtype=np.float64)
    if not np.isnan(kl).any() and len(kl):
        found["kl_mean"] = draws.mean(kl, accelerated=True)
        found["kl_median"], found["kl_p99"] = draws.quantile(kl, 0.5), draws.quantile(kl, 0.99)
        found["kl_max"] = Estimate(float(kl.max()), n=len(kl), n_eff=draws.clusters)
    bound = np.asarray(columns["kl_lower_bound"], dtype=np.float64)
    found["kl_bound"] = draws.mean(bound, accelerated=True)
    found["top1_agreement"] = _agreement(draws, np.asarray(columns["top1_same"], dtype=np.float64))
    nll, nll_reference = np.asarray(columns["nll"], float), np.asarray(columns["nll_reference"], float)
    found["ppl_ratio"] = draws.mean(nll - nll_reference, np.exp)
    found["ppl"] = draws.mean(nll, np.exp)
    return {name: one for name, one in found.items() if one is not None}


def _agreement(draws: _Draws, same: Floats) -> Estimate | None:
    """Where no position differs, the bootstrap knows no less than 1; then the rule of three, positions counted as a
    quarter of an independent one each.
    """
    found = draws.mean(same)
    if found is None or found.value < 1.0:
        return found
    return Estimate(1.0, max(0.0, 1.0 - 3.0 * DESIGN_EFFECT / found.n), 1.0, Bound.POINT, found.n, found.n_eff)


class _Draws:
    """Chunks drawn with replacement, so many times; the same draws for every figure."""

    def __init__(self, chunks: NDArray[Any]) -> None:
        _, self._cluster = np.unique(chunks, return_inverse=True)
        self.clusters = int(self._cluster.max()) + 1 if len(self._cluster) else 0
        random = np.random.default_rng(SEED)
        shares = np.full(self.clusters, 1.0 / max(1, self.clusters))
        self._times = random.multinomial(self.clusters, shares, size=DRAWS)

    def mean(
        self, values: Floats, shown: Callable[[Any], Any] = float, *, accelerated: bool = False
    ) -> Estimate | None:
        """A mean over positions, put through an increasing function; positions that are NaN are left out."""
        known = ~np.isnan(values)
        n = int(known.sum())
        if not n:
            return None
        sums = np.bincount(self._cluster, np.where(known, values, 0.0), self.clusters)
        counts = np.bincount(self._cluster, known.astype(np.float64), self.clusters)
        value = float(sums.sum() / counts.sum())
        if int((counts > 0).sum()) < 2 or not math.isfinite(value):
            return Estimate(float(shown(value)), n=n, n_eff=self.clusters)
        sizes = self._times @ counts
        drawn = (self._times @ sums)[sizes > 0] / sizes[sizes > 0]
        levels = _accelerated(drawn, value, sums, counts) if accelerated else (ALPHA / 2, 1 - ALPHA / 2)
        low, high = np.quantile(drawn, levels)
        ends = min(low, value), max(high, value)
        return Estimate(
            float(shown(value)), float(shown(ends[0])), float(shown(ends[1])), Bound.POINT, n, self.clusters
        )

    def quantile(self, values: Floats, p: float) -> Estimate:
        """A quantile over positions (inverse CDF)."""
        value = quantile(values, p)
        if self.clusters < 2:
            return Estimate(value, n=len(values), n_eff=self.clusters)
        order = np.argsort(values, kind="stable")
        ordered, cluster = values[order], self._cluster[order]
        drawn = []
        for start in range(0, DRAWS, _DRAWS_AT_ONCE):
            reached = np.cumsum(self._times[start : start + _DRAWS_AT_ONCE, cluster], axis=1)
            rank = np.ceil(reached[:, -1:] * p - 1e-9)
            drawn.append(ordered[(reached >= rank).argmax(axis=1)])
        low, high = np.quantile(np.concatenate(drawn), (ALPHA / 2, 1 - ALPHA / 2), method="inverted_cdf")
        return Estimate(value, float(low), float(high), Bound.POINT, len(values), self.clusters)


def _accelerated(drawn: Floats, value: float, sums: NDArray[Any], counts: NDArray[Any]) -> tuple[float, float]:
    """The levels of the drawn means at which a BCa interval ends; the acceleration from leaving out each chunk once."""
    left = counts.sum() - counts
    without = (sums.sum() - sums)[left > 0] / left[left > 0]
    away = without.mean() - without
    spread = float((away**2).sum()) ** 1.5
    acceleration = float((away**3).sum()) / (6 * spread) if spread > 0 else 0.0
    share = float((drawn < value).mean() + (drawn == value).mean() / 2)
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(share, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))

    def level(z: float) -> float:
        return normal.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))

    return level(normal.inv_cdf(ALPHA / 2)), level(normal.inv_cdf(1 - ALPHA / 2))


BEGIN, END = "<!-- grades: begin -->", "<!-- grades: end -->"


def grades_as_markdown() -> str:
    """The table for docs/quality.md, between its marks."""
    lines = ["| word | mean KL, nats | top-1 agreement |", "|---|--:|--:|"]
    for grade in GRADES:
        share = f"≥ {grade.top1 * 100:g} %" if grade.top1 else "any"
        lines.append(f"| {grade.word} | ≤ {grade.kl:g} | {share} |")
    return "\n".join([BEGIN, *lines, f"| {WORST} | above | below |", END])


if __name__ == "__main__":
    PAGE = Path(__file__).resolve().parent.parent / "docs" / "quality.md"
    BEFORE, _, REST = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(BEFORE + grades_as_markdown() + REST.partition(END)[2], encoding="utf-8")
