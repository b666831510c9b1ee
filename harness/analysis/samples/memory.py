"""Memory of an engine: its peak while it started and during a trial, and its parts (weights, KV cache, the rest).

Resident memory of several processes counts shared pages in each of them. PSS does not, but walks page tables, so it is
read seldom. Between its readings resident memory is used, less the excess at the nearest of them; within the period in
question if there are any, because an engine shares other pages while it starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import Columns
from harness.analysis.reading import Reading
from harness.analysis.samples.gauges import Gauge, gauges, span_ns, without_others_gpus
from harness.analysis.samples.machine import peak_of_each
from harness.analysis.stats import Ints
from harness.store.manifest import CellEntry, EngineEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

SHARED_ONCE, SHARED_IN_EACH = "engine, by PSS", "engine, by RSS"
GPU = "gpu"
WEIGHTS, KV_CACHE, RUNTIME = "weights", "kv_cache", "runtime"
REPORTED = "the engine reports it"
_SEEN = {
    SHARED_ONCE: "largest reading of the memory of its processes, shared pages counted once",
    SHARED_IN_EACH: "largest reading of the resident memory",
}
_NO_PARTS = ("device_peak",)


@dataclass(frozen=True, slots=True)
class PeakBytes:
    """A peak of memory, and the kind of its readings."""

    bytes: float
    source: str


def memory_readings(
    cell: CellEntry, trial: TrialEntry, samples: pd.DataFrame, columns: Columns
) -> dict[str, PeakBytes]:
    """Return memory_peak_bytes of the trial, and load_peak_bytes and load_gpu_peak_bytes of the start that it runs on.

    Peaks without readings are left out. `samples` are without those of GPUs that are not the engine's.
    """
    found: dict[str, PeakBytes | None] = {}
    span = span_ns(trial, columns)
    if span is not None:
        found["memory_peak_bytes"] = engine_memory(samples, *span, before=True)
    start = cell.start_of(trial)
    if start.began_ns is not None and start.ready_ns is not None:
        loading = float(start.began_ns), float(start.ready_ns)
        found["load_peak_bytes"] = engine_memory(samples, *loading, before=False)
        found["load_gpu_peak_bytes"] = gpu_memory(samples, *loading)
    return {name: held for name, held in found.items() if held is not None}


def engine_memory(samples: pd.DataFrame, begin_ns: float, end_ns: float, *, before: bool) -> PeakBytes | None:
    """Return the largest memory of the engine's processes between two moments.

    With `before` the last reading before counts if there is none between them: it may be of a start that was not quite
    over.
    """
    resident = gauges(samples, "engine", "rss_bytes").get("engine")
    if resident is None:
        return None
    shared = gauges(samples, "engine", "pss_bytes").get("engine")
    inside = _inside(resident.at_ns, begin_ns, end_ns)
    if before and inside.start >= inside.stop:
        inside = slice(max(0, inside.start - 1), inside.stop)
    values = resident.values[inside]
    if not len(values):
        return None
    if shared is None:
        return PeakBytes(float(values.max()), SHARED_IN_EACH)
    own = _inside(shared.at_ns, begin_ns, end_ns)
    known = Gauge(shared.at_ns[own], shared.values[own]) if len(shared.values[own]) else shared
    excess = np.maximum(resident.values[_nearest(resident.at_ns, known.at_ns)] - known.values, 0.0)
    once = values - excess[_nearest(known.at_ns, resident.at_ns[inside])]
    return PeakBytes(float(once.max()), SHARED_ONCE)


def gpu_memory(samples: pd.DataFrame, begin_ns: float, end_ns: float) -> PeakBytes | None:
    """Return the largest readings of each GPU between two moments, added up: of the engine's memory, else of all."""
    for name in ("engine_memory_bytes", "memory_used_bytes"):
        found = gauges(samples, GPU, name).values()
        each = [gauge.values[_inside(gauge.at_ns, begin_ns, end_ns)] for gauge in found]
        if any(map(len, each)):
            return PeakBytes(sum(float(values.max()) for values in each if len(values)), GPU)
    return None


def _inside(at_ns: Ints, begin_ns: float, end_ns: float) -> slice:
    end = len(at_ns) if math.isnan(end_ns) else int(np.searchsorted(at_ns, end_ns, side="right"))
    return slice(int(np.searchsorted(at_ns, begin_ns, side="right")), end)


def _nearest(known_ns: Ints, wanted_ns: Ints) -> Ints:
    """Return the index of the nearest of the known moments, in ascending order, for each of others."""
    found: Ints = np.searchsorted((known_ns[:-1] + known_ns[1:]) / 2, wanted_ns)
    return found


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the memory, and the source of its size in words."""

    part: str
    bytes: int
    source: str


def memory_facts(cell: CellEntry, reading: Reading, samples: pd.DataFrame) -> dict[str, Any]:
    """Return the memory of an engine during a trial by its purpose.

    Keys: breakdown (part, bytes, source of each), total_bytes and total_source (None: nothing was read), tokens (the
    most in flight, estimated; None: unknown), kv_used_bytes (of the KV cache, see `_kv_used`), reason (why there is no
    rest, None if there is one).
    """
    info = cell.engine_info
    total = _total(cell, reading, without_others_gpus(cell, samples))
    tokens = most_tokens_in_flight(reading.columns)
    parts = list(_known_parts(info, tokens))
    rest = _rest(parts, total)
    return {
        "breakdown": [asdict(part) for part in (*parts, rest) if isinstance(part, Part)],
        "total_bytes": None if total is None else total.bytes,
        "total_source": None if total is None else total.source,
        "tokens": tokens,
        "kv_used_bytes": _kv_used(info, tokens, reading, samples),
        "reason": rest if isinstance(rest, str) else None,
    }


def _known_parts(info: EngineEntry, tokens: float | None) -> Iterator[Part]:
    """Yield the parts that the engine reports, or that follow from its files and from the tokens in flight."""
    reported = {name: int(count) for name, count in info.memory.items() if name not in _NO_PARTS and count}
    if WEIGHTS in reported:
        yield Part(WEIGHTS, reported.pop(WEIGHTS), REPORTED)
    elif info.weight_bytes:
        yield Part(WEIGHTS, int(info.weight_bytes), "size of the weight files")
    per_token = info.kv_bytes_per_token
    if KV_CACHE in reported:
        yield Part(KV_CACHE, reported.pop(KV_CACHE), REPORTED)
    elif per_token and tokens:
        source = f"{per_token:,.0f} bytes a token, and at most {tokens:,.0f} tokens in flight"
        yield Part(KV_CACHE, round(per_token * tokens), source)
    yield from (Part(name, count, REPORTED) for name, count in reported.items())


def _rest(parts: list[Part], total: PeakBytes | None) -> Part | str:
    """Return the remainder of the total, or why it is unknown."""
    if total is None:
        return "no memory of the engine was read during the trial"
    left = round(total.bytes) - sum(part.bytes for part in parts)
    if left < 0:
        return (
            "the parts are larger than what was seen in use: weights that are mapped from their file, or a cache that "
            "was set aside, are in use only as far as they were touched"
        )
    name = "other" if any(part.part == RUNTIME for part in parts) else "runtime and other"
    return Part(name, left, f"what is left of the {total.source}")


def _kv_used(info: EngineEntry, tokens: float | None, reading: Reading, samples: pd.DataFrame) -> float | None:
    """Return an upper bound of the KV cache in use by requests: their tokens, whole replies counted.

    If those are unknown, it is the largest share on the server's page of the cache that the engine reports.
    """
    if tokens is not None and info.kv_bytes_per_token:
        return float(tokens * info.kv_bytes_per_token)
    shares = peak_of_each(samples, reading.trial, reading.columns, "server", "kv_cache_share")
    whole = info.memory.get(KV_CACHE)
    return max(shares.values()) * whole if shares and whole else None


def _total(cell: CellEntry, reading: Reading, samples: pd.DataFrame) -> PeakBytes | None:
    """Return the peak of memory where the engine computes, with its source in words.

    It is GPU memory, the engine's own if the driver reports it, or the memory of the engine's processes.
    """
    if (cell.engine_info.device or "cpu").startswith("cpu"):
        found = memory_readings(cell, reading.trial, samples, reading.columns).get("memory_peak_bytes")
        return None if found is None else PeakBytes(found.bytes, _SEEN[found.source])
    for name, source in (
        ("engine_memory_bytes", "largest reading of the GPU memory of the engine's processes"),
        ("memory_used_bytes", "largest reading of the GPUs' memory, other processes included"),
    ):
        used = peak_of_each(samples, reading.trial, reading.columns, GPU, name)
        if used:
            return PeakBytes(sum(used.values()), source)
    return None


def most_tokens_in_flight(columns: Columns) -> float | None:
    """Return an upper bound of the tokens of prompts and replies in flight at one time; None if counts are unknown.

    Each request counts with its whole reply from sent to end.
    """
    sent, ended = columns.times["sent"], columns.ended
    tokens = columns.counts["prompt_tokens"] + columns.counts["output_tokens"]
    known = np.isfinite(sent) & np.isfinite(ended) & np.isfinite(tokens)
    if not known.any():
        return None
    moments = np.concatenate([ended[known], sent[known]])  # at equal moments those that end come first
    changes = np.concatenate([-tokens[known], tokens[known]])
    return float(np.cumsum(changes[np.argsort(moments, kind="stable")]).max())
