"""What a trial took from the machine: load times from its cell, memory peaks from the cell's samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.columns import Columns

if TYPE_CHECKING:
    import pandas as pd

START_METRICS = ("load_s", "load_warm_s", "first_request_ms", "weight_bytes", "rss_after_load_bytes")
GAUGES = {
    "rss_peak_bytes": ("engine", "rss_bytes"),
    "system_memory_peak_share": ("host", "memory_used_share"),
    "gpu_memory_peak_bytes": ("gpu", "memory_used_bytes"),
    "gpu_memory_peak_share": ("gpu", "memory_used_bytes"),
}
SERVER = "server"


def start_values(cell: dict[str, Any], trial: dict[str, Any]) -> dict[str, float]:
    """What was measured while the engine started for this trial; what was not is left out."""
    start = (cell.get("engine_info") or {}) | (trial.get("start") or cell.get("start") or {})
    return {name: float(start[name]) for name in START_METRICS if start.get(name) is not None}


def peaks(samples: pd.DataFrame, trial: dict[str, Any], columns: Columns) -> dict[str, float]:
    """The largest readings of the machine under test during a trial; those nobody took are left out.

    The last reading before the trial counts too: memory that was taken then is still held when the trial begins.
    """
    readings = during(samples, trial, columns)
    found = {}
    for metric, (source, name) in GAUGES.items():
        each = _peak_of_each(readings, source, name)
        if len(each) and not metric.startswith("gpu"):
            found[metric] = float(each.max())
    used, total = (
        _peak_of_each(readings, "gpu", "memory_used_bytes"),
        _peak_of_each(readings, "gpu", "memory_total_bytes"),
    )
    if len(used):
        found["gpu_memory_peak_bytes"] = float(used.sum())
    if len(used) and set(used.index) == set(total.index):
        found["gpu_memory_peak_share"] = float(used.sum() / total.sum())
    return found


def _peak_of_each(readings: pd.DataFrame, source: str, name: str) -> pd.Series[float]:
    """The largest reading of every source of a kind ("gpu": "gpu0", "gpu1", ...)."""
    of_kind = readings["source"].astype(str).str.rstrip("0123456789") == source
    chosen = readings[of_kind & (readings["name"] == name)]
    return chosen.groupby(chosen["source"].astype(str))["value"].max()


def during(samples: pd.DataFrame, trial: dict[str, Any], columns: Columns) -> pd.DataFrame:
    """The server's samples from the last before the trial's T0 until its last event, with `at_s` from T0."""
    t0_ns = trial.get("t0_ns")
    own = samples[samples["scope"] == SERVER]
    if t0_ns is None or not len(own) or not len(columns):
        return own.iloc[:0].assign(at_s=[])
    own = own.assign(at_s=(own["at_ns"] - t0_ns) / 1e9)
    end_s = max((float(column.max()) for column in (columns.ended,) if len(column)), default=0.0) / 1e9
    before = own.loc[own["at_s"] <= 0, "at_s"]
    begin_s = float(before.max()) if len(before) else 0.0
    return own[(own["at_s"] >= begin_s) & ~(own["at_s"] > end_s)]
