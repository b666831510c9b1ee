"""Series over the window, their best cut and their trend: the numbers from which `verdict.steady` judges it.

The metrics stay those of the planned window. A search for the best cut leaves out a part that differs from run to run,
so two runs would not have measured the same thing. A service that is slow to warm up would look better than to users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis import stats
from harness.analysis.columns import NS_PER_S, Columns
from harness.analysis.latencies import of_each
from harness.analysis.rates import output_tokens_in, time_bins
from harness.analysis.stats import Floats

if TYPE_CHECKING:
    from harness.analysis.reading import Reading

BIN_REQUESTS = 5
LEAST_BINS = 20
MOST_BINS = 600
PARTS_OF_BIN = 4
BATCHES = 20


@dataclass(frozen=True, slots=True)
class Series:
    """A quantity over the window in bins."""

    starts_s: Floats  # of each bin after the window's start
    values: Floats
    each: tuple[Floats, Floats] | None = None  # (values, seconds after the window's start) to test for a trend, if any


@dataclass(frozen=True, slots=True)
class Drift:
    """A trend: its p-value, and the fitted change over the whole as a share of the mean."""

    p_value: float
    change: float


def mser(bins: Floats) -> int:
    """Return how many bins to cut at the start so that the standard error of the mean of the others is least.

    Formula: marginal standard error rule (White 1997) with the bins as its batches; at most half of them.
    """
    m = len(bins)
    centred = bins - bins.mean()
    cuts = np.arange(m // 2 + 1)
    left = m - cuts
    sums, squares = (np.cumsum(part[::-1])[::-1][cuts] for part in (centred, centred**2))
    spread = np.maximum(squares - sums**2 / left, 1e-12 * squares[0])
    return int(cuts[np.argmin(spread / left.astype(np.float64) ** 2)])


def drift_of(values: Floats) -> Drift | None:
    """Return the trend of BATCHES batch means; None for fewer than five values each."""
    size = len(values) // BATCHES
    if size < BIN_REQUESTS:
        return None
    means = values[: size * BATCHES].reshape(BATCHES, size).mean(axis=1)
    found, middle = stats.trend(means), float(np.abs(means.mean()))
    return Drift(found.p_value, found.slope * (BATCHES - 1) / middle if middle > 0 else 0.0)


def series_of_window(reading: Reading) -> dict[str, Series]:
    """Return medians of ttft and tpot (without any, of e2e), tokens per second, and requests in flight."""
    columns, begin_ns = reading.columns, reading.window.start_ns
    rows = reading.window.population(columns)
    due = rows.times["due"]
    if not len(rows) or not due[-1] > due[0]:
        return {}
    values, last_ns = of_each(rows), float(due[-1])
    names = ("ttft_ms", "tpot_ms") if np.isfinite(values["ttft_ms"]).any() else ("e2e_ms",)
    found = {name: _of_requests(values[name], (due - begin_ns) / NS_PER_S) for name in names}
    found["in_flight"] = _in_flight(columns, len(rows), begin_ns, last_ns)
    found["output_tokens_per_s"] = _tokens(columns, begin_ns, last_ns)
    return found


def _of_requests(values: Floats, due_s: Floats) -> Series:
    known = np.isfinite(values)
    values, due_s = values[known], due_s[known]
    width = max(BIN_REQUESTS, -(-len(values) // MOST_BINS))
    count = len(values) // width
    bins = np.median(values[: count * width].reshape(count, width), axis=1)
    return Series(due_s[: count * width : width], bins, (values, due_s))


def _in_flight(columns: Columns, offered: int, begin_ns: float, end_ns: float) -> Series:
    """Return means over equal parts of the time, about as many as bins of five requests."""
    sent = columns.sent & np.isfinite(columns.times["due"]) & np.isfinite(columns.ended)
    due_s, ended_s = ((times[sent] - begin_ns) / NS_PER_S for times in (columns.times["due"], columns.ended))
    count = max(1, min(MOST_BINS, offered // BIN_REQUESTS))
    edges_s = np.linspace(0.0, (end_ns - begin_ns) / NS_PER_S, count * PARTS_OF_BIN + 1)
    busy_s = np.diff(elapsed(due_s, edges_s) - elapsed(np.sort(ended_s), edges_s))
    parts = busy_s / (edges_s[1] - edges_s[0])
    return Series(edges_s[:-1:PARTS_OF_BIN], parts.reshape(count, PARTS_OF_BIN).mean(axis=1), (parts, edges_s[:-1]))


def elapsed(moments: Floats, at: Floats) -> Floats:
    """Return, at each time, the sum of the times elapsed since the earlier ones of the moments (ascending)."""
    before = np.searchsorted(moments, at)
    passed: Floats = before * at - np.concatenate(([0.0], np.cumsum(moments)))[before]
    return passed


def _tokens(columns: Columns, begin_ns: float, end_ns: float) -> Series:
    edges = time_bins(columns)
    inside = (edges[:-1] >= begin_ns) & (edges[1:] <= end_ns)
    arrived, _ = output_tokens_in(columns, edges)
    return Series((edges[:-1][inside] - begin_ns) / NS_PER_S, arrived[inside])
