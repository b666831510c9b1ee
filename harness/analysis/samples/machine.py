"""Start times, memory peaks, throttling and load of the machine under test, and the cost of reading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import NS_PER_S, Columns
from harness.analysis.samples.gauges import SERVER, Gauge, gauges, span_ns
from harness.analysis.stats import Floats, Ints
from harness.analysis.window import Window
from harness.store.manifest import CellEntry, TrialEntry
from harness.telemetry.gpus.gauges import SLOWED_DOWN, named

if TYPE_CHECKING:
    import pandas as pd

START_METRICS = ("load_s", "load_warm_s", "first_request_ms", "weight_bytes", "rss_after_load_bytes")
GAUGES = {
    "memory_peak_bytes": ("engine", "rss_bytes"),
    "rss_peak_bytes": ("engine", "rss_bytes"),
    "pss_peak_bytes": ("engine", "pss_bytes"),
    "system_memory_peak_share": ("host", "memory_used_share"),
    "gpu_memory_peak_bytes": ("gpu", "memory_used_bytes"),
    "gpu_memory_peak_share": ("gpu", "memory_used_bytes"),
}
LOAD_PEAKS = ("load_peak_bytes", "load_gpu_peak_bytes")
PROCESS_GAUGES = tuple(name for name, (source, _) in GAUGES.items() if source == "engine")
IN_WINDOW = {"engine_cpu_cores": "engine", "engine_major_faults": "engine", "swapped_bytes": "host"}
LEAST_COVERED = 0.5
MAX_GAP_NS = 2 * NS_PER_S
_SIMPLE = ("rss_peak_bytes", "pss_peak_bytes", "system_memory_peak_share")


def start_values(cell: CellEntry, trial: TrialEntry) -> dict[str, float]:
    """Return what was measured while the engine started for this trial."""
    start = cell.start_of(trial)
    found = {name: getattr(start, name) for name in START_METRICS if name != "weight_bytes"}
    found["weight_bytes"] = cell.engine_info.weight_bytes
    return {name: float(value) for name, value in found.items() if value is not None}


def peaks(samples: pd.DataFrame, trial: TrialEntry, columns: Columns) -> dict[str, float]:
    """Return the largest readings of the machine under test during a trial.

    The last reading of each before the trial counts too: memory that was taken then is still held when it begins. Not
    so PSS, which is read so rarely that it may be from before the engine had taken anything.
    """
    found: dict[str, float] = {}
    for metric in _SIMPLE:
        source, name = GAUGES[metric]
        each = peak_of_each(samples, trial, columns, source, name, held=name != "pss_bytes")
        found |= {metric: max(each.values())} if each else {}
    used, total, own = (
        peak_of_each(samples, trial, columns, "gpu", name)
        for name in ("memory_used_bytes", "memory_total_bytes", "engine_memory_bytes")
    )
    if used:
        found["gpu_memory_peak_bytes"] = sum((own or used).values())
    if used and used.keys() == total.keys():
        found["gpu_memory_peak_share"] = sum(used.values()) / sum(total.values())
    return found


def peak_of_each(
    samples: pd.DataFrame, trial: TrialEntry, columns: Columns, kind: str, name: str, *, held: bool = True
) -> dict[str, float]:
    """Return the largest reading during a trial of every source of a kind ("gpu": "gpu0", "gpu1", ...).

    With `held` the last reading before it counts, too.
    """
    span = span_ns(trial, columns)
    if span is None:
        return {}
    found = {}
    for source, gauge in gauges(samples, kind, name).items():
        begin = max(0, int(np.searchsorted(gauge.at_ns, span[0], side="right")) - held)
        seen = gauge.values[begin : int(np.searchsorted(gauge.at_ns.astype(np.float64), span[1], side="right"))]
        if len(seen):
            found[source] = float(seen.max())
    return found


def throttling_facts(trial: TrialEntry, window: Window, samples: pd.DataFrame) -> dict[str, Any]:
    """Return {share, reasons} of each GPU that reports its throttling.

    share: of the time read in the window with throttling by heat or a power fault.   reasons: share of each reason by
    its name, harmless ones too. Each reading of the cell's samples stands for the time until the next.
    """
    if trial.t0_ns is None:
        return {}
    found = {}
    for source, gauge in sorted(gauges(samples, "gpu", "throttle_reasons").items()):
        at_ns = gauge.at_ns.astype(np.float64) - trial.t0_ns
        inside = window.holds(at_ns)
        if inside.any():
            until = np.append(at_ns[1:], window.end_ns)[inside].clip(max=window.end_ns)
            lasted = (until - at_ns[inside]).clip(0.0, MAX_GAP_NS)
            found[source] = shares_of_time(gauge.values[inside].astype(np.int64), lasted)
    return found


def shares_of_time(masks: Ints, lasted: Floats) -> dict[str, Any]:
    """Return the facts of one GPU from its masks of reasons and the duration of each."""
    weights = lasted / lasted.sum() if lasted.sum() > 0 else np.full(len(lasted), 1 / len(lasted))
    bits = [1 << place for place in range(int(np.bitwise_or.reduce(masks)).bit_length())]
    reasons = {named(bit)[0]: float(weights[(masks & bit) != 0].sum()) for bit in bits if (masks & bit).any()}
    return {"share": float(weights[(masks & SLOWED_DOWN) != 0].sum()), "reasons": reasons}


def telemetry_facts(cell: CellEntry, trial: TrialEntry, window: Window, samples: pd.DataFrame) -> dict[str, Any]:
    """Return how the readings were taken, and their values in the measurement window.

    Keys: sampler (interval_s, ticks, late_ticks, cpu_share, ms_per_tick; of the whole cell; None if an older version or
    a killed run did not store them), scope ("client": the server is elsewhere), unread (sentences), gpus (whether any
    was read), window: engine_cpu_cores, engine_major_faults, swapped_bytes, throttled_periods, throttled_s (of the
    engine's control group), host_cpu_share (of all processors of the load generator's machine) and sampler_cpu_share,
    each None if too little was read.
    """
    sampler = {} if cell.sampler is None else cell.sampler.stored()
    scope = sampler.pop("scope", None)
    return {
        "sampler": sampler or None,
        "scope": scope,
        "unread": list(cell.unread),
        "gpus": any(str(source).startswith("gpu") for source in samples["source"].unique()),
        "window": {} if trial.t0_ns is None else _in_window(samples, trial.t0_ns, window),
    }


def _in_window(samples: pd.DataFrame, t0_ns: int, window: Window) -> dict[str, float | None]:
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
        "host_cpu_share": mean(_host_cpu(samples), *ends_ns),
        "sampler_cpu_share": mean(gauges(samples, "sampler", "cpu_share", "client").get("sampler"), *ends_ns),
    }


def _host_cpu(samples: pd.DataFrame) -> Gauge | None:
    """Return the busy share of all processors of the load generator's machine; it may be the one under test."""
    own = gauges(samples, "host", "cpu_share", "client") or gauges(samples, "host", "cpu_share")
    return own.get("host")


def mean(gauge: Gauge | None, start_ns: float, end_ns: float) -> float | None:
    """Return the mean over a window of a gauge whose readings are means since the one before.

    None if they cover less than half of it.
    """
    covered = _covered_ns(gauge, start_ns, end_ns)
    if gauge is None or covered is None:
        return None
    return float((gauge.values[1:] * covered).sum() / covered.sum())


def growth(gauge: Gauge | None, start_ns: float, end_ns: float) -> float | None:
    """Return the growth of a counter in a window, interpolated between readings; after a reset it counts from zero.

    None if the readings cover less than half of the window.
    """
    if gauge is None or _covered_ns(gauge, start_ns, end_ns) is None:
        return None
    moments, steps = gauge.at_ns.astype(np.float64), np.diff(gauge.values)
    grown = np.concatenate([[0.0], np.cumsum(np.where(steps < 0, gauge.values[1:], steps))])
    return float(np.interp(end_ns, moments, grown) - np.interp(start_ns, moments, grown))


def _covered_ns(gauge: Gauge | None, start_ns: float, end_ns: float) -> Floats | None:
    """Return the part of the window before each reading but the first; None if they are less than half of it."""
    if gauge is None or len(gauge.at_ns) < 2 or end_ns <= start_ns:
        return None
    covered: Floats = np.diff(np.clip(gauge.at_ns.astype(np.float64), start_ns, end_ns))
    return covered if covered.sum() >= LEAST_COVERED * (end_ns - start_ns) else None


def telemetry_readings(facts: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the metrics of IN_WINDOW that are known, from the facts of a trial."""
    window = ((facts or {}).get("telemetry") or {}).get("window") or {}
    return {name: float(window[name]) for name in IN_WINDOW if window.get(name) is not None}


def missing_telemetry(telemetry: Mapping[str, Any]) -> dict[str, str]:
    """Return why the metrics of IN_WINDOW may have no value, from the facts about telemetry."""
    elsewhere = telemetry["scope"] is not None and telemetry["scope"] != SERVER
    reason = "too few readings were taken of the machine under test in the measuring window"
    return dict.fromkeys(IN_WINDOW, "the server is on another machine, which was not read" if elsewhere else reason)
