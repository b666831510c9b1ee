"""Readings of the machine under test while a trial measured, and what they themselves cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.machine import SERVER, Gauge, gauges
from harness.analysis.window import Window
from harness.store.manifest import CellEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

SOURCES = {"engine_cpu_cores": "engine", "engine_major_faults": "engine", "swapped_bytes": "host"}
LEAST_COVERED = 0.5


def telemetry_facts(cell: CellEntry, trial: TrialEntry, window: Window, samples: pd.DataFrame) -> dict[str, Any]:
    """How the readings were taken, and what they say of the measuring window.

    Keys: sampler (interval_s, ticks, late_ticks, cpu_share, ms_per_tick; of the whole cell; None where an older version
    or a run that was killed did not say), scope ("client": the server is elsewhere), unread (sentences), gpus (whether
    any was read), window: engine_cpu_cores, engine_major_faults, swapped_bytes, throttled_periods, throttled_s (of the
    engine's control group) and sampler_cpu_share, each None where too little was read.
    """
    told = {} if cell.sampler is None else cell.sampler.stored()
    scope = told.pop("scope", None)
    return {
        "sampler": told or None,
        "scope": scope,
        "unread": list(cell.unread),
        "gpus": any(str(source).startswith("gpu") for source in samples["source"].unique()),
        "window": {} if trial.t0_ns is None else in_window(samples, trial.t0_ns, window),
    }


def in_window(samples: pd.DataFrame, t0_ns: int, window: Window) -> dict[str, float | None]:
    """See `telemetry_facts`."""
    ends_ns = t0_ns + window.start_ns, t0_ns + window.end_ns

    def grew(source: str, name: str) -> float | None:
        return growth(gauges(samples, source, name).get(source), *ends_ns)

    swapped = [grew("host", name) for name in ("swap_in_bytes", "swap_out_bytes")]
    return {
        "engine_cpu_cores": mean(gauges(samples, "engine", "cpu_share").get("engine"), *ends_ns),
        "engine_major_faults": grew("engine", "major_faults"),
        "swapped_bytes": None if None in swapped else sum(one for one in swapped if one is not None),
        "throttled_periods": grew("cgroup", "throttled_periods"),
        "throttled_s": grew("cgroup", "throttled_s"),
        "sampler_cpu_share": mean(gauges(samples, "sampler", "cpu_share", "client").get("sampler"), *ends_ns),
    }


def mean(gauge: Gauge | None, start_ns: float, end_ns: float) -> float | None:
    """The mean over a window of a gauge whose readings are means since the one before; None where they cover less than
    half of it.
    """
    if gauge is None or len(gauge.at_ns) < 2 or end_ns <= start_ns:
        return None
    moments = np.clip(gauge.at_ns.astype(np.float64), start_ns, end_ns)
    covered = np.diff(moments)
    if covered.sum() < LEAST_COVERED * (end_ns - start_ns):
        return None
    return float((gauge.values[1:] * covered).sum() / covered.sum())


def growth(gauge: Gauge | None, start_ns: float, end_ns: float) -> float | None:
    """How much a counter grew in a window, in proportion where an end lies between two readings; where it began anew,
    from zero. None where the readings cover less than half of the window.
    """
    if gauge is None or len(gauge.at_ns) < 2 or end_ns <= start_ns:
        return None
    moments = gauge.at_ns.astype(np.float64)
    if np.diff(np.clip(moments, start_ns, end_ns)).sum() < LEAST_COVERED * (end_ns - start_ns):
        return None
    steps = np.diff(gauge.values)
    grown = np.concatenate([[0.0], np.cumsum(np.where(steps < 0, gauge.values[1:], steps))])
    return float(np.interp(end_ns, moments, grown) - np.interp(start_ns, moments, grown))


def telemetry_readings(facts: Mapping[str, Any] | None) -> dict[str, float]:
    """The metrics of SOURCES that are known. facts: of the trial."""
    told = ((facts or {}).get("telemetry") or {}).get("window") or {}
    return {name: float(told[name]) for name in SOURCES if told.get(name) is not None}


def missing_telemetry(told: Mapping[str, Any]) -> dict[str, str]:
    """Why these metrics may have no value. told: the facts."""
    elsewhere = told["scope"] is not None and told["scope"] != SERVER
    reason = "too few readings were taken of the machine under test in the measuring window"
    return dict.fromkeys(SOURCES, "the server is on another machine, which was not read" if elsewhere else reason)
