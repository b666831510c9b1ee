"""Series: what the plots of a trial show, as small frames. Every frame is bounded in size, whatever the number of
requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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


def series_of(reading: Reading, samples: pd.DataFrame) -> dict[str, Any]:
    """The plot data of a trial.

    distribution: metric, share, ms (inverse CDF; censored requests leave the curve below share 1).
    latency: due_s, ttft_ms, e2e_ms of measured requests, thinned evenly.   tokens: at_s, tokens_per_s.
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
        ranks = np.unique(np.linspace(1, len(values), min(CURVE_POINTS, len(values))).astype(int))
        frame = pd.DataFrame({"metric": metric, "share": ranks / len(values), "ms": values[ranks - 1]})
        frames.append(frame[np.isfinite(frame["ms"])])
    return pd.concat(frames) if frames else pd.DataFrame({"metric": [], "share": [], "ms": []})


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
    return frame.iloc[:: max(1, -(-len(frame) // MAX_POINTS))]


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
