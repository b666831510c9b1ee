"""Series: the data of a trial's plots as small frames, bounded in size whatever the number of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import ALL, Columns
from harness.analysis.distributions import Distribution
from harness.analysis.latencies import of_each
from harness.analysis.reading import Reading
from harness.analysis.series.clouds import bins_of, dots_of, even_edges, stacked
from harness.analysis.series.curves import CLASS_CURVES, curves_of
from harness.analysis.series.curves import COLUMNS as CURVE_COLUMNS
from harness.analysis.series.machine import gauges_over_time
from harness.analysis.series.prefill import prefill_of
from harness.analysis.series.time import (
    bursts_over_time,
    latency_over_time,
    phases_of,
    rates_over_time,
    slices_over_time,
)

if TYPE_CHECKING:
    import pandas as pd

BY_LENGTH = ("ttft_ms", "e2e_ms")
MAX_CLASSES = 8
LEAST_LENGTHS = 3
LENGTH_PARTS, LEAST_PER_LENGTH = 15, 10


def series_of(
    reading: Reading,
    samples: pd.DataFrame,
    facts: dict[str, Any],
    distributions: Mapping[str, Mapping[str, Distribution]],
) -> dict[str, Any]:
    """Return the plot data of a trial. `distributions` are by class (ALL among them) and metric.

    `classes` is as `distribution`, for each class, with the column class.
    """
    columns, trial = reading.columns, reading.trial
    dots, bins = latency_over_time(columns)
    rates = rates_over_time(columns)
    lengths, length_bins = _by_length(columns.measured)
    phases = phases_of(columns, reading.window, facts)
    return {
        "distribution": curves_of(distributions.get(ALL, {})),
        "classes": _classes(distributions),
        "latency": dots,
        "latency_bins": bins,
        "lengths": lengths,
        "length_bins": length_bins,
        "rates": rates,
        "slices": slices_over_time(columns, rates),
        "prefill": prefill_of(columns.measured),
        "gauges": gauges_over_time(trial, samples, columns),
        "phases": phases,
        "bursts": bursts_over_time(trial, phases["end_s"] or 0.0),
    }


def _classes(distributions: Mapping[str, Mapping[str, Distribution]]) -> pd.DataFrame:
    import pandas as pd

    names = [name for name in distributions if name != ALL][:MAX_CLASSES]
    if not names:
        return pd.DataFrame({name: [] for name in (*CURVE_COLUMNS, "class")})
    frames = [curves_of(distributions[name], CLASS_CURVES).assign(**{"class": name}) for name in names]
    return pd.concat(frames, ignore_index=True)


def _by_length(rows: Columns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (dots, bins) of the latency of measured requests by the length of their prompts.

    dots: tokens, metric, ms.   bins: tokens, metric, n, p50_ms, p95_ms. Empty for fewer than LEAST_LENGTHS lengths.
    """
    tokens = rows.counts["prompt_tokens"]
    order = np.argsort(tokens, kind="stable")
    order = order[np.isfinite(tokens[order])]
    x = tokens[order]
    dots, bins = {}, {}
    enough = 1 + np.count_nonzero(np.diff(x)) >= LEAST_LENGTHS
    for metric, each in of_each(rows).items():
        values = each[order]
        seen = np.isfinite(values)
        if enough and metric in BY_LENGTH and seen.any():
            at, y = x[seen], values[seen]
            shown = dots_of(at, y)
            dots[metric] = (at[shown], y[shown])
            bins[metric] = bins_of(at, y, even_edges(at, LENGTH_PARTS, LEAST_PER_LENGTH))
    return stacked(dots, ("tokens", "ms")), stacked(bins, ("tokens", "n", "p50_ms", "p95_ms"))
