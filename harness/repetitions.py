"""Repetitions: whether an engine comes out the same each time it is started.

Each repetition of a cell is a fresh start. What the requests of one start say about its own uncertainty knows nothing
of the next: memory laid out differently, another batch that happened to form and stayed. Where starts differ more than
their requests explain (hysteresis), more requests do not help, only more starts do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import thresholds
from harness.reasons import Level, Reason
from harness.stats import MIN_RUNS_FOR_SPREAD

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
LEAST_SHARE = 0.02
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


def hysteresis(spread: Spread) -> bool:
    """Whether starts differ more than their requests explain, and enough to matter."""
    matters = spread.between > LEAST_SHARE * abs(spread.value)
    return matters and thresholds.START_SPREAD.level(spread.ratio) is not Level.VALID


def spread_fact(spread: Spread) -> dict[str, Any]:
    """Return a spread as JSON-able data; `ratio` is None where it is infinite."""
    ratio = spread.ratio if math.isfinite(spread.ratio) else None
    found = {"starts": spread.starts, "value": spread.value, "between": spread.between, "within": spread.within}
    return found | {"ratio": ratio, "hysteresis": hysteresis(spread)}


def differing(found: dict[str, Spread]) -> list[Reason]:
    """The warning about starts that differ; it stands with each of them."""
    worst = {statistic: spread for statistic, spread in found.items() if hysteresis(spread)}
    if not worst:
        return []
    statistic, spread = max(worst.items(), key=lambda one: one[1].ratio)
    others = len(worst) - 1
    between, within = (part / abs(spread.value) for part in (spread.between, spread.within))
    sentence = (
        f"The {spread.starts} starts differ by more than their requests explain: {statistic} varies by {between:.1%} "
        f"between them and by {within:.1%} within one"
    ) + (f"; so do {others} more." if others else ".")
    advice = "Believe the interval over the starts, and repeat more (`repetitions`) rather than measure for longer."
    return [Reason("hysteresis", Level.WARN, sentence, advice)]
