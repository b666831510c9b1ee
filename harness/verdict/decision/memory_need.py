"""Memory that a configuration needs, which may differ from the peak that was read while it served.

Engines such as vLLM take a set share of a device, or a cache of a set size, whatever the model and the load. And an
engine may take more while it loads, as one that quantizes weights from 16 bits: without that much it does not start.
"""

from __future__ import annotations

import math
from dataclasses import replace

from harness.units import format_bytes
from harness.verdict.decision.rows import Row, Value, unknown
from harness.verdict.thresholds import SAME_MEMORY

LOADING = {
    "gpu_memory_peak_bytes": "load_gpu_peak_bytes",
    "memory_peak_bytes": "load_peak_bytes",
    "rss_peak_bytes": "load_peak_bytes",
}
RESERVED = "it is reserved, not needed"
WHILE_LOADING = "while it loads"
UNRESERVED = "without the KV cache that it reserves and does not use"
_RESERVING_ENGINES = frozenset({"vllm", "vllm-server"})
_RESERVING_PAGES = frozenset({"vllm", "sglang", "tgi"})


def reserves(row: Row) -> bool:
    """Return whether its engine takes memory by a setting and not by need, by its name or its server's page."""
    return row.key[1] in _RESERVING_ENGINES or bool(row.pages & _RESERVING_PAGES)


def needed(row: Row) -> Value:
    """Return the memory that a row is compared by; `source` tells one that is not the peak while it served."""
    peak = row.values[row.memory_name]
    if math.isnan(peak.value):
        return peak
    if reserves(row):
        return _without_reserve(row, peak)
    loading = row.values.get(LOADING[row.memory_name])
    if loading is not None and loading.value > peak.value * (1 + SAME_MEMORY.value):
        return replace(loading, source=WHILE_LOADING)
    return peak


def remark(measured: Value, need: Value) -> str:
    """Return what a reader must know of the measured value; "" if it is what the row needs."""
    if need.source == WHILE_LOADING:
        return f"more while it loads: {format_bytes(need.value)}"
    if need.source == UNRESERVED:
        return f"reserved, not needed: {format_bytes(need.value)} {UNRESERVED}"
    return "reserved, not needed" if need.reason.startswith(RESERVED) else measured.reason


def _without_reserve(row: Row, peak: Value) -> Value:
    """Return weights, runtime and the peak of the KV cache in use; unknown if one of them is."""
    set_aside = row.info.memory.get("kv_cache")
    if not set_aside or row.kv_used is None or peak.value <= set_aside:
        return unknown(f"{RESERVED}, and how much of it is used is not known", "bytes")
    used = min(row.kv_used, set_aside)
    return Value(peak.value - set_aside + used, n=peak.n, unit="bytes", source=UNRESERVED)
