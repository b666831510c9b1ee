"""What an engine held at most, while it started and during a trial; pure.

Resident memory of several processes counts in each of them what they share. PSS does not, but walks page tables, so it
is read seldom: between its readings resident memory is taken, less what it counted too much at the nearest of them,
and of those within the time in question where there are any: while an engine starts it shares other things.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.columns import Columns, Floats, Ints
from harness.machine import Gauge, gauges, span_ns

if TYPE_CHECKING:
    import pandas as pd

SHARED_ONCE, SHARED_IN_EACH = "engine, by PSS", "engine, by RSS"
GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Held:
    """So much at most. source: which reading says so."""

    bytes: float
    source: str


def memory_readings(
    cell: Mapping[str, Any], trial: Mapping[str, Any], samples: pd.DataFrame, columns: Columns
) -> dict[str, Held]:
    """memory_peak_bytes of the trial; load_peak_bytes and load_gpu_peak_bytes of the start that it runs on. What nobody
    read is left out. samples: without those of GPUs that are not the engine's.
    """
    found: dict[str, Held | None] = {}
    span = span_ns(trial, columns)
    if span is not None:
        found["memory_peak_bytes"] = engine_held(samples, *span, before=True)
    start = trial.get("start") or cell.get("start") or {}
    if start.get("began_ns") is not None and start.get("ready_ns") is not None:
        loading = float(start["began_ns"]), float(start["ready_ns"])
        found["load_peak_bytes"] = engine_held(samples, *loading, before=False)
        found["load_gpu_peak_bytes"] = gpus_held(samples, *loading)
    return {name: held for name, held in found.items() if held is not None}


def engine_held(samples: pd.DataFrame, begin_ns: float, end_ns: float, *, before: bool) -> Held | None:
    """The largest memory of the engine's processes between two moments. before: where there is no reading between them,
    the last one before counts: it may be of a start that was not quite over.
    """
    resident = gauges(samples, "engine", "rss_bytes").get("engine")
    if resident is None:
        return None
    shared = gauges(samples, "engine", "pss_bytes").get("engine")
    inside = _inside(resident.at_ns, begin_ns, end_ns, before=False)
    if before and inside.start >= inside.stop:
        inside = _inside(resident.at_ns, begin_ns, end_ns, before=True)
    if not len(resident.values[inside]):
        return None
    if shared is None:
        return Held(float(resident.values[inside].max()), SHARED_IN_EACH)
    own = _inside(shared.at_ns, begin_ns, end_ns, before=False)
    known = Gauge(shared.at_ns[own], shared.values[own]) if len(shared.values[own]) else shared
    once = resident.values[inside] - counted_too_often(resident, known)[_nearest(known.at_ns, resident.at_ns[inside])]
    return Held(float(once.max()), SHARED_ONCE)


def counted_too_often(resident: Gauge, shared: Gauge) -> Floats:
    """At each reading of PSS: how much more resident memory was, as read nearest to it; never less than nothing."""
    found: Floats = np.maximum(resident.values[_nearest(resident.at_ns, shared.at_ns)] - shared.values, 0.0)
    return found


def gpus_held(samples: pd.DataFrame, begin_ns: float, end_ns: float) -> Held | None:
    """The largest readings of each GPU between two moments, added up: of what the engine held, else of all in use."""
    for name in ("engine_memory_bytes", "memory_used_bytes"):
        each = [
            float(gauge.values[inside].max())
            for gauge in gauges(samples, GPU, name).values()
            if len(gauge.values[inside := _inside(gauge.at_ns, begin_ns, end_ns, before=False)])
        ]
        if each:
            return Held(sum(each), GPU)
    return None


def _inside(at_ns: Ints, begin_ns: float, end_ns: float, *, before: bool) -> slice:
    begin = max(0, int(np.searchsorted(at_ns, begin_ns, side="right")) - before)
    end = len(at_ns) if math.isnan(end_ns) else int(np.searchsorted(at_ns, end_ns, side="right"))
    return slice(begin, end)


def _nearest(known_ns: Ints, wanted_ns: Ints) -> Ints:
    """The places in an ordered row of moments that are nearest to each of others."""
    middles = (known_ns[:-1] + known_ns[1:]) / 2
    found: Ints = np.searchsorted(middles, wanted_ns)
    return found
