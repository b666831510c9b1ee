"""What a trial took from the machine: load times from its cell, memory peaks from the cell's samples.

How long something held a GPU back while a trial measured, and what.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.columns import Columns, Flags, Floats
from harness.analysis.window import NS_PER_S, Window
from harness.store.categories import one_of
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
_SIMPLE = ("rss_peak_bytes", "pss_peak_bytes", "system_memory_peak_share")
PROCESS_GAUGES = tuple(name for name, (source, _) in GAUGES.items() if source == "engine")
SERVER = "server"
CPU = "cpu"
NO_GPU = "no GPU of the machine under test was read"
NOT_ON_A_GPU = "the engine computes on the processor: the GPUs of its machine are not its own"


def on_processor(cell: CellEntry) -> bool:
    """Whether an engine says, or its scenario, that it computes on the processor; not where nobody says."""
    device = cell.engine_info.device
    return device.startswith(CPU) if device else cell.devices == [CPU]


def no_gpu_because(cell: CellEntry) -> str:
    """Why a trial has no reading of a GPU, where it has none."""
    return NOT_ON_A_GPU if on_processor(cell) else NO_GPU


def without_others_gpus(cell: CellEntry, samples: pd.DataFrame) -> pd.DataFrame:
    """The samples without those of GPUs that are not the engine's. Its own are those that the scenario's `devices`
    gives it, else those on which the driver saw its memory. Where the driver does not tell whose memory is whose, they
    are all that were read, and none where the engine computes on the processor.
    """
    given = [f"gpu{number}" for number in cell.devices if number != CPU]
    named = [source for source in map(str, samples["source"].unique()) if re.fullmatch(r"gpu\d+", source)]
    if not named:
        return samples
    of_gpu = one_of(samples["source"], named)
    if on_processor(cell) or not given:
        given = engines_gpus(samples)
    if not given and not on_processor(cell):
        return samples
    own: pd.DataFrame = samples[~of_gpu | samples["source"].isin(given).to_numpy(dtype=np.bool_)]
    return own


def engines_gpus(samples: pd.DataFrame) -> list[str]:
    """The GPUs on which the driver saw memory of the engine's processes."""
    held = (samples["name"] == "engine_memory_bytes") & (samples["value"] > 0)
    found: list[str] = samples.loc[held, "source"].astype(str).unique().tolist()
    return found


def start_values(cell: CellEntry, trial: TrialEntry) -> dict[str, float]:
    """What was measured while the engine started for this trial; what was not is left out."""
    start = cell.start_of(trial)
    found = {
        "load_s": start.load_s,
        "load_warm_s": start.load_warm_s,
        "first_request_ms": start.first_request_ms,
        "weight_bytes": cell.engine_info.weight_bytes,
        "rss_after_load_bytes": start.rss_after_load_bytes,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def peaks(samples: pd.DataFrame, trial: TrialEntry, columns: Columns) -> dict[str, float]:
    """The largest readings of the machine under test during a trial; those nobody took are left out.

    The last reading of each before the trial counts too: memory that was taken then is still held when it begins. Not
    so PSS, which is read so rarely that it may be from before the engine had taken anything.
    """
    found: dict[str, float] = {}
    for metric in _SIMPLE:
        source, name = GAUGES[metric]
        each = peak_of_each(samples, trial, columns, source, name, held=name != "pss_bytes")
        found |= {metric: max(each.values())} if each else {}
    used = peak_of_each(samples, trial, columns, "gpu", "memory_used_bytes")
    total = peak_of_each(samples, trial, columns, "gpu", "memory_total_bytes")
    if used:
        own = peak_of_each(samples, trial, columns, "gpu", "engine_memory_bytes")
        found["gpu_memory_peak_bytes"] = sum(own.values()) if own else sum(used.values())
    if used and used.keys() == total.keys():
        found["gpu_memory_peak_share"] = sum(used.values()) / sum(total.values())
    return found


def peak_of_each(
    samples: pd.DataFrame, trial: TrialEntry, columns: Columns, kind: str, name: str, *, held: bool = True
) -> dict[str, float]:
    """The largest reading during a trial of every source of a kind ("gpu": "gpu0", "gpu1", ...). held: the last before
    it counts, too.
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


def span_ns(trial: TrialEntry, columns: Columns) -> tuple[float, float] | None:
    """When a trial began and its last request ended (NaN: later than everything); None where nothing was sent."""
    if trial.t0_ns is None or not len(columns):
        return None
    return float(trial.t0_ns), float(trial.t0_ns) + _end_s(columns) * 1e9


@dataclass(frozen=True, slots=True)
class Gauge:
    """Readings of one gauge in the order of time: at_ns of the monotonic clock, shape (n,); values, shape (n,)."""

    at_ns: NDArray[np.int64]
    values: NDArray[np.float64]


def gauges(samples: pd.DataFrame, kind: str, name: str, scope: str = SERVER) -> dict[str, Gauge]:
    """A gauge of every source of a kind ("gpu": "gpu0", "gpu1", ...); none where there is no reading."""
    chosen = one_of(samples["name"], [name]) & one_of(samples["scope"], [scope])
    found: dict[str, Gauge] = {}
    if not chosen.any():
        return found
    at_ns, values = samples["at_ns"].to_numpy()[chosen], samples["value"].to_numpy(dtype=np.float64)[chosen]
    sources = samples["source"].array[chosen]
    for source in map(str, sources.unique()):
        if source.rstrip("0123456789") == kind:
            own = one_of(sources, [source])
            order = np.argsort(at_ns[own], kind="stable")
            found[source] = Gauge(at_ns[own][order], values[own][order])
    return found


def during(samples: pd.DataFrame, trial: TrialEntry, columns: Columns) -> tuple[Flags, Floats]:
    """Which samples are the server's, from the last before the trial's T0 until its last event; and when each was
    taken, in s from T0.
    """
    t0_ns = trial.t0_ns
    if t0_ns is None or not len(samples) or not len(columns):
        return np.zeros(len(samples), dtype=np.bool_), np.zeros(len(samples))
    own = one_of(samples["scope"], [SERVER])
    at_s = (samples["at_ns"].to_numpy() - t0_ns) / 1e9
    begin_s = float(at_s[own & (at_s <= 0)].max(initial=-np.inf))
    return own & (at_s >= (begin_s if np.isfinite(begin_s) else 0.0)) & ~(at_s > _end_s(columns)), at_s


def _end_s(columns: Columns) -> float:
    """When the last request of a trial ended, from T0; NaN is later than everything."""
    return float(columns.ended.max()) / 1e9 if len(columns.ended) else 0.0


MAX_GAP_NS = 2 * NS_PER_S


def throttling_facts(trial: TrialEntry, window: Window, samples: pd.DataFrame) -> dict[str, Any]:
    """Per GPU: {share, reasons}. share: of the time read in the window with heat or a fault of power holding it back.

    reasons: share of each reason by its name, harmless ones too. samples: of the cell; each reading stands for the
    time until the next. GPUs that do not tell are absent.
    """
    t0_ns = trial.t0_ns
    if t0_ns is None or not len(samples):
        return {}
    told = samples[one_of(samples["name"], ["throttle_reasons"]) & one_of(samples["scope"], [SERVER])]
    if not len(told):
        return {}
    told = told[told["source"].astype(str).str.startswith("gpu")].sort_values("at_ns", kind="stable")
    found = {}
    for source, readings in told.groupby(told["source"].astype(str), sort=True):
        at_ns = readings["at_ns"].to_numpy(dtype="float64") - t0_ns
        inside = window.holds(at_ns)
        if inside.any():
            until = np.append(at_ns[1:], window.end_ns)[inside].clip(max=window.end_ns)
            lasted = (until - at_ns[inside]).clip(0.0, MAX_GAP_NS)
            masks = readings["value"].to_numpy(dtype="float64")[inside].astype(np.int64)
            found[str(source)] = shares_of_time(masks, lasted)
    return found


def shares_of_time(
    masks: np.ndarray[Any, np.dtype[np.int64]], lasted: np.ndarray[Any, np.dtype[np.float64]]
) -> dict[str, Any]:
    """The facts of one GPU from its masks of reasons and how long each lasted."""
    weights = lasted / lasted.sum() if lasted.sum() > 0 else np.full(len(lasted), 1 / len(lasted))
    bits = [1 << place for place in range(int(np.bitwise_or.reduce(masks)).bit_length())]
    reasons = {named(bit)[0]: float(weights[(masks & bit) != 0].sum()) for bit in bits if (masks & bit).any()}
    return {"share": float(weights[(masks & SLOWED_DOWN) != 0].sum()), "reasons": reasons}
