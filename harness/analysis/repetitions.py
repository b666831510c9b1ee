"""Repetitions: whether an engine performs the same each time it is started.

Each repetition of a cell is a fresh start. The requests of one start contain no information about the next: memory laid
out differently, another batch that happened to form and stayed. If starts differ more than their requests explain
(hysteresis), more requests do not help, only more starts do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.stats import MIN_RUNS_FOR_SPREAD

if TYPE_CHECKING:
    import pandas as pd

COMPARED = (
    *(("ttft_ms", "p50"), ("ttft_ms", "p95"), ("tpot_ms", "p50"), ("e2e_ms", "p50"), ("e2e_ms", "p95")),
    ("output_tokens_per_s", "value"),
)
HALF_WIDTH = 1.959964


@dataclass(frozen=True, slots=True)
class Spread:
    """Differences of a statistic between starts."""

    starts: int
    value: float  # mean over the starts
    between: float  # standard deviation of the starts' values
    within: float  # standard deviation by the intervals of the starts (root mean square)

    @property
    def ratio(self) -> float:
        """Between over within; infinite if only the latter is 0."""
        return self.between / self.within if self.within > 0 else math.inf if self.between > 0 else 0.0


def spread_of(values: list[float], lows: list[float], highs: list[float]) -> Spread | None:
    """Compute the spread from each start's value and interval; None for fewer than three, or without intervals."""
    widths = np.array(highs) - np.array(lows)
    if len(values) < MIN_RUNS_FOR_SPREAD or not np.isfinite(widths).all():
        return None
    own = widths / 2 / HALF_WIDTH
    return Spread(len(values), float(np.mean(values)), float(np.std(values, ddof=1)), math.sqrt(float((own**2).mean())))


def spreads(summary: pd.DataFrame, keys: tuple[str, ...]) -> dict[tuple[str, ...], dict[str, Spread]]:
    """Return the spreads of results with three starts, by the values of `keys`, then by statistic ("ttft_ms p50").

    Rows of all classes together are used. Columns: see `summary.COLUMNS`.
    """
    single = summary[(summary["repetition"] != "pooled") & (summary["class"] == "all") & (summary["bound"] == "point")]
    found: dict[tuple[str, ...], dict[str, Spread]] = {}
    if single["repetition"].nunique() < MIN_RUNS_FOR_SPREAD:
        return found
    for metric, statistic in COMPARED:
        chosen = single[(single["metric"] == metric) & (single["statistic"] == statistic)]
        for group, rows in chosen.groupby(list(keys), sort=False):
            spread = spread_of(*(rows[name].tolist() for name in ("value", "low", "high")))
            if spread is not None:
                found.setdefault(tuple(map(str, group)), {})[f"{metric} {statistic}"] = spread
    return found
