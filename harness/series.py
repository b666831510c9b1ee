"""Series: what the plots of a trial show, as small frames. Every frame is bounded in size, whatever the number of
requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness import machine
from harness.columns import Columns, Floats
from harness.latencies import Observations
from harness.rates import NS_PER_S, Window, output_tokens_in, time_bins
from harness.reading import Reading

if TYPE_CHECKING:
    import pandas as pd

MAX_POINTS = 600
CURVE_POINTS = 200
CURVES = ("ttft_ms", "e2e_ms")
TAIL_POINTS = 50
SHOWN_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def series_of(reading: Reading, samples: pd.DataFrame, facts: dict[str, Any]) -> dict[str, Any]:
    """The plot data of a trial. samples: of its cell.   facts: see `facts.facts_of`.

    distribution: metric, share, ms (inverse CDF; censored requests leave the curve below share 1).
    latency: due_s, ttft_ms, e2e_ms of measured requests; of more than MAX_POINTS those at SHOWN_QUANTILES in each of
    60 equal parts of the time, NaN in the other metric.   tokens: at_s, tokens_per_s.
    memory: at_s, name, value.   window: (start_s, end_s).
    """
    columns = reading.columns
    return {
        "distribution": _distribution(reading.observed),
        "latency": _latency(columns.measured),
        "tokens": _tokens(columns),
        "memory": _memory(reading.trial, samples, columns),
        "window": _edges_s(reading.window),
    }


def _edges_s(window: Window) -> tuple[float, float]:
    return window.start_ns / NS_PER_S, window.end_ns / NS_PER_S


def _distribution(observed: dict[str, Observations]) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for metric in CURVES:
        values: Floats = np.sort(observed[metric].values)
        if not len(values):
            continue
        ranks = _ranks(len(values))
        frame = pd.DataFrame({"metric": metric, "share": ranks / len(values), "ms": values[ranks - 1]})
        frames.append(frame[np.isfinite(frame["ms"])])
    return pd.concat(frames) if frames else pd.DataFrame({"metric": [], "share": [], "ms": []})


def _ranks(n: int) -> NDArray[np.int64]:
    """Of so many values those to draw: spread evenly, and more of the greatest 1 %."""
    if n <= CURVE_POINTS:
        return np.arange(1, n + 1)
    even = np.linspace(1, n, CURVE_POINTS - TAIL_POINTS)
    tail = n + 1 - np.geomspace(1, n / 100, TAIL_POINTS)
    return np.unique(np.concatenate([even, tail]).astype(np.int64))


def _latency(rows: Columns) -> pd.DataFrame:
    import pandas as pd

    last = np.where(np.isfinite(rows.times["first_token"]), rows.times["last_token"], rows.times["done"])
    due = rows.times["due"]
    frame = pd.DataFrame(
        {
            "due_s": due / NS_PER_S,
            "ttft_ms": (rows.times["first_token"] - due) / 1e6,
            "e2e_ms": np.where(rows.ok, last - due, np.nan) / 1e6,
        }
    )
    return frame if len(frame) <= MAX_POINTS else _thinned(frame)


def _thinned(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each equal part of the time the requests at some quantiles of each metric, so that what is rare stays seen."""
    import pandas as pd

    due_s = frame["due_s"].to_numpy()
    first, last = float(np.nanmin(due_s)), float(np.nanmax(due_s))
    parts = MAX_POINTS // (len(CURVES) * len(SHOWN_QUANTILES))
    part = np.nan_to_num((due_s - first) * (parts / max(last - first, 1e-9))).clip(0, parts - 1).astype(np.int64)
    picked = []
    for metric in CURVES:
        values = frame[metric].to_numpy()
        order = np.lexsort((values, part))
        order = order[np.isfinite(values[order])]
        begins = np.searchsorted(part[order], np.arange(parts + 1))
        filled = np.flatnonzero(np.diff(begins))
        spans = (np.diff(begins) - 1)[filled]
        places = [begins[filled] + np.ceil(spans * share).astype(np.int64) for share in SHOWN_QUANTILES]
        rows = np.unique(order[np.concatenate(places)])
        picked.append(frame.iloc[rows][["due_s", metric]])
    return pd.concat(picked).sort_values("due_s", kind="stable", ignore_index=True)


def _tokens(columns: Columns) -> pd.DataFrame:
    import pandas as pd

    edges = time_bins(columns)
    if len(edges) < 2:
        return pd.DataFrame({"at_s": [], "tokens_per_s": []})
    arrived, _ = output_tokens_in(columns, edges)
    width_s = float(edges[1]) / NS_PER_S
    return pd.DataFrame({"at_s": edges[:-1] / NS_PER_S + width_s / 2, "tokens_per_s": arrived / width_s})


def _memory(trial: dict[str, Any], samples: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    import pandas as pd

    readings = machine.during(samples, trial, columns)
    source = readings["source"].astype(str)
    of_engine = (source == "engine") & (readings["name"] == "rss_bytes")
    of_gpu = source.str.startswith("gpu") & (readings["name"] == "memory_used_bytes")
    shown = readings[of_engine | of_gpu]
    frame = pd.DataFrame({"at_s": shown["at_s"], "name": shown["source"].astype(str), "value": shown["value"]})
    return frame.iloc[:: max(1, -(-len(frame) // MAX_POINTS))]
