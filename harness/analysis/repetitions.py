"""Repetitions: whether an engine comes out the same each time it is started.

Each repetition of a cell is a fresh start. What the requests of one start say about its own uncertainty knows nothing
of the next: memory laid out differently, another batch that happened to form and stayed. Where starts differ more than
their requests explain (hysteresis), more requests do not help, only more starts do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.stats import MIN_RUNS_FOR_SPREAD

if TYPE_CHECKING:
    import pandas as pd

LOOKED_AT = (
    ("ttft_ms", "p50"),
    ("ttft_ms", "p95"),
    ("tpot_ms", "p50"),
    ("e2e_ms", "p50"),
    ("e2e_ms", "p95"),
    ("output_tokens_per_s", "value"),
)
HALF_WIDTH = 1.959964


@dataclass(frozen=True, slots=True)
class Spread:
    """How a statistic differs between starts. value: their mean.   between: standard deviation of the starts' values.
    within: what one start's interval says its own is (root mean square).
    """

    starts: int
    value: float
    between: float
    within: float

    @property
    def ratio(self) -> float:
        """between over within; infinite where a start leaves no doubt about itself and they differ."""
        return self.between / self.within if self.within > 0 else math.inf if self.between > 0 else 0.0


def spread_of(values: list[float], lows: list[float], highs: list[float]) -> Spread | None:
    """From the value and the interval of each start; None for fewer than three, or without their intervals."""
    widths = np.array(highs) - np.array(lows)
    if len(values) < MIN_RUNS_FOR_SPREAD or not np.isfinite(widths).all():
        return None
    own = widths / 2 / HALF_WIDTH
    return Spread(len(values), float(np.mean(values)), float(np.std(values, ddof=1)), math.sqrt(float((own**2).mean())))


def spreads(summary: pd.DataFrame, keys: tuple[str, ...]) -> dict[tuple[str, ...], dict[str, Spread]]:
    """The spreads of every row of the results that has three starts: by the values of `keys`, then by statistic
    ("ttft_ms p50"). summary: see `analysis.COLUMNS`; requests of all classes together are looked at.
    """
    single = summary[(summary["repetition"] != "pooled") & (summary["class"] == "all") & (summary["bound"] == "point")]
    found: dict[tuple[str, ...], dict[str, Spread]] = {}
    for metric, statistic in LOOKED_AT:
        chosen = single[(single["metric"] == metric) & (single["statistic"] == statistic)]
        for group, rows in chosen.groupby(list(keys), sort=False):
            spread = spread_of(*(rows[name].tolist() for name in ("value", "low", "high")))
            if spread is not None:
                found.setdefault(tuple(map(str, group)), {})[f"{metric} {statistic}"] = spread
    return found
