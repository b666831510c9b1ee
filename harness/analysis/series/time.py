"""Latencies, rates, concurrency and tokens over the time of a trial, and its phases."""

from __future__ import annotations

from itertools import count, pairwise, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis import stats
from harness.analysis.columns import NS_PER_S, Columns
from harness.analysis.latencies import of_each
from harness.analysis.rates import output_tokens_in, time_bins
from harness.analysis.series.clouds import bins_of, dots_of, even_edges, stacked
from harness.analysis.stats import Floats
from harness.analysis.steady import elapsed
from harness.analysis.window import Window
from harness.records import FAILED, Phase, Status
from harness.store.manifest import TrialEntry

if TYPE_CHECKING:
    import pandas as pd

MOST_BURSTS = 100
MOST_SLICES = 40
OVER_TIME = ("ttft_ms", "tpot_ms", "e2e_ms")


def latency_over_time(columns: Columns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (dots, bins) of all requests, those of the warm-up included, by due time.

    dots: at_s, metric, ms, phase; bounded, see `dots_of`.   bins: at_s, metric, n, p50_ms, p95_ms; none for few.
    """
    dots: dict[str, tuple[Floats, Floats, NDArray[Any]]] = {}
    bins = {}
    due_s = columns.times["due"] / NS_PER_S
    phases = np.array([*map(str, columns.phase.categories), ""])
    for metric, values in of_each(columns).items():
        seen = np.flatnonzero(np.isfinite(values) & np.isfinite(due_s))
        x, y = due_s[seen], values[seen]
        if len(x):
            shown = dots_of(x, y)
            dots[metric] = (x[shown], y[shown], phases[columns.phase.codes[seen[shown]]])
            bins[metric] = bins_of(x, y, even_edges(x))
    return stacked(dots, ("at_s", "ms", "phase")), stacked(bins, ("at_s", "n", "p50_ms", "p95_ms"))


def rates_over_time(columns: Columns) -> pd.DataFrame:
    """Return at_s, in_flight, and per second: offered (due), completed and failed (ended) requests, output tokens."""
    import pandas as pd

    edges = time_bins(columns)
    names = ("at_s", "offered", "completed", "failed", "tokens", "in_flight")
    if len(edges) < 2 or not len(columns):
        return pd.DataFrame({name: [] for name in names})
    width_s = float(edges[1] - edges[0]) / NS_PER_S
    # Requests that the end of the trial cut off after the window are no failures.
    cut_off = columns.has_status([Status.UNFINISHED]) & (columns.phase != Phase.MEASURE)
    moments = {
        "offered": columns.times["due"][columns.sent],
        "completed": columns.ended[columns.ok],
        "failed": columns.ended[columns.has_status(FAILED) & ~cut_off],
    }
    found = {name: counted(each, edges) / width_s for name, each in moments.items()}
    found["tokens"] = output_tokens_in(columns, edges)[0] / width_s
    found["in_flight"] = in_flight(columns, edges)
    return pd.DataFrame({"at_s": edges[:-1] / NS_PER_S + width_s / 2, **found})


def slices_over_time(columns: Columns, rates: pd.DataFrame) -> pd.DataFrame:
    """Return at most MOST_SLICES rows for a table, each for one or more parts of `rates` (see `rates_over_time`).

    Columns: from_s, until_s, those of rates (means), and of the requests due in it the medians OVER_TIME (NaN: none).
    """
    import pandas as pd

    shown = [name for name in rates.columns if name != "at_s"]
    parts = len(rates)
    if not parts:
        return pd.DataFrame({name: [] for name in ("from_s", "until_s", *shown, *OVER_TIME)})
    first = np.arange(0, parts, -(-parts // MOST_SLICES))
    sizes = np.diff([*first, parts])
    edges = time_bins(columns)[[*first, parts]]
    found: dict[str, Floats] = {"from_s": edges[:-1] / NS_PER_S, "until_s": edges[1:] / NS_PER_S}
    found |= {name: np.add.reduceat(rates[name].to_numpy(dtype=np.float64), first) / sizes for name in shown}
    due = columns.times["due"]
    begins = np.searchsorted(due, [*edges[:-1], edges[-1] + 1])  # NaN, never due, comes last
    for metric, values in of_each(columns).items():
        among = [values[a:b] for a, b in pairwise(begins)]
        found[metric] = np.array([stats.quantile(part[np.isfinite(part)], 0.5) for part in among])
    return pd.DataFrame(found)


def counted(moments: Floats, edges: Floats) -> Floats:
    """Count the moments between edges of equal parts that begin at 0; the last edge is included."""
    parts = len(edges) - 1
    place = np.floor(moments[np.isfinite(moments)] / edges[1])
    place[place == parts] = parts - 1
    inside = place[(place >= 0) & (place < parts)].astype(np.int64)
    return np.bincount(inside, minlength=parts).astype(np.float64)


def in_flight(columns: Columns, edges: Floats) -> Floats:
    """Return the mean number of requests sent and not yet ended between neighbouring edges."""
    begun = np.isfinite(columns.times["sent"])
    sent, ended = np.sort(columns.times["sent"][begun]), np.sort(columns.ended[begun])
    busy: Floats = np.diff(elapsed(sent, edges) - elapsed(ended, edges)) / np.diff(edges)
    return np.maximum(busy, 0.0)


def phases_of(columns: Columns, window: Window, facts: dict[str, Any]) -> dict[str, float | None]:
    """Return the ends of a trial's phases in s from T0: warmup_end_s, measure_end_s, end_s (its last event), steady_s.

    steady_s: when the service became steady if that was after warmup_end_s, else None.
    """
    last = float(np.nanmax(columns.ended)) / NS_PER_S if np.isfinite(columns.ended).any() else 0.0
    start_s, end_s = window.start_ns / NS_PER_S, window.end_ns / NS_PER_S
    cut_s = (facts.get("steady") or {}).get("warmup_s")
    steady_s = start_s + float(cut_s) if cut_s else None
    return {"warmup_end_s": start_s, "measure_end_s": end_s, "end_s": max(last, end_s), "steady_s": steady_s}


def bursts_over_time(trial: TrialEntry, end_s: float) -> list[tuple[float, float]]:
    """Return (start, end) of the first MOST_BURSTS bursts of a trial, in s from T0."""
    spans = trial.bursts
    if spans is None:
        return []
    first_s, length_s, every_s = spans.first_s, spans.length_s, spans.every_s
    if every_s is None:
        return [(first_s, first_s + length_s)] if first_s <= end_s else []
    starts = takewhile(lambda start: start <= end_s, (first_s + number * every_s for number in count()))
    return [(start, start + length_s) for start, _ in zip(starts, range(MOST_BURSTS), strict=False)]
