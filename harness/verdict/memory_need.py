"""The memory that a row of a decision needs, which may differ from what was seen in use while it served.

Engines such as vLLM take a set share of a device, or a cache of a set size, whatever the model and the load: what they
hold is not what they need. And an engine may take more while it loads, as one that quantizes weights which it reads in
16 bits: where that does not fit it does not start.
"""

from __future__ import annotations

from harness.verdict.decision_rows import Row, Value, known, unknown
from harness.verdict.recommendation import UNRESERVED, WHILE_LOADING, text
from harness.verdict.thresholds import SAME_MEMORY

LOADING = {
    "gpu_memory_peak_bytes": "load_gpu_peak_bytes",
    "memory_peak_bytes": "load_peak_bytes",
    "rss_peak_bytes": "load_peak_bytes",
}
RESERVED = "it is reserved, not needed"
_RESERVING_ENGINES = frozenset({"vllm", "vllm-server"})
_RESERVING_PAGES = frozenset({"vllm", "sglang", "tgi"})


def reserves(row: Row) -> bool:
    """Whether its engine takes memory by a setting and not by need: by its name, or by the page of its server."""
    return row.key[1] in _RESERVING_ENGINES or bool(row.pages & _RESERVING_PAGES)


def needed(row: Row, measured: str) -> Value:
    """What a row is compared by. measured: the name of the value that was read while it served.

    `source` says what it is where that is not the measured value: WHILE_LOADING or UNRESERVED.
    """
    peak = row.values[measured]
    if peak["value"] is None:
        return peak
    if reserves(row):
        return _without_reserve(row, peak)
    loading = row.values.get(LOADING[measured])
    if loading is None or loading["value"] is None or loading["value"] <= peak["value"] * (1 + SAME_MEMORY.value):
        return peak
    return loading | {"source": WHILE_LOADING}


def remark(measured: Value, need: Value) -> str:
    """What is to be known of the measured value beside it; "" where it is what the row needs."""
    if need["source"] == WHILE_LOADING:
        return f"more while it loads: {text(need)}"
    if need["source"] == UNRESERVED:
        return f"reserved, not needed: {text(need)} {UNRESERVED}"
    return "reserved, not needed" if need["reason"].startswith(RESERVED) else str(measured["reason"])


def _without_reserve(row: Row, peak: Value) -> Value:
    """Weights, runtime and the KV cache that requests had in use at most; unknown where one of them is."""
    set_aside = row.info.memory.get("kv_cache")
    if not set_aside or row.kv_used is None or peak["value"] <= set_aside:
        return unknown(f"{RESERVED}, and how much of it is used is not known", "bytes")
    used = min(row.kv_used, set_aside)
    return known(peak["value"] - set_aside + used, n=peak["n"], unit="bytes", source=UNRESERVED)
