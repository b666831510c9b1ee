"""Where the memory of an engine goes: weights, KV cache, and the rest of what was seen in use; pure.

What an engine held at most, while it started and during a trial; pure.

Resident memory of several processes counts in each of them what they share. PSS does not, but walks page tables, so it
is read seldom: between its readings resident memory is taken, less what it counted too much at the nearest of them,
and of those within the time in question where there are any: while an engine starts it shares other things.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.columns import Columns, Floats, Ints
from harness.analysis.machine import Gauge, gauges, peak_of_each, span_ns, without_others_gpus
from harness.analysis.reading import Reading
from harness.store.manifest import CellEntry, EngineEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd

SHARED_ONCE, SHARED_IN_EACH = "engine, by PSS", "engine, by RSS"
GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Held:
    """So much at most. source: which reading says so."""

    bytes: float
    source: str


def memory_readings(cell: CellEntry, trial: TrialEntry, samples: pd.DataFrame, columns: Columns) -> dict[str, Held]:
    """memory_peak_bytes of the trial; load_peak_bytes and load_gpu_peak_bytes of the start that it runs on. What nobody
    read is left out. samples: without those of GPUs that are not the engine's.
    """
    found: dict[str, Held | None] = {}
    span = span_ns(trial, columns)
    if span is not None:
        found["memory_peak_bytes"] = engine_held(samples, *span, before=True)
    start = cell.start_of(trial)
    if start.began_ns is not None and start.ready_ns is not None:
        loading = float(start.began_ns), float(start.ready_ns)
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


WEIGHTS, KV_CACHE, RUNTIME = "weights", "kv_cache", "runtime"
TOLD = "the engine says so"
_SEEN = {
    SHARED_ONCE: "largest reading of the memory of its processes, shared pages counted once",
    SHARED_IN_EACH: "largest reading of the resident memory",
}
_NO_PARTS = ("device_peak",)


@dataclass(frozen=True, slots=True)
class Part:
    """One part. source: where the number comes from, in words."""

    part: str
    bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class Total:
    """What was seen in use at most. source: in words."""

    bytes: float
    source: str


def memory_facts(cell: CellEntry, reading: Reading, samples: pd.DataFrame) -> dict[str, Any]:
    """The memory of an engine during a trial, by what it is for.

    Keys: breakdown (part, bytes, source of each), total_bytes and total_source (None: nothing was read), tokens (the
    most in flight, as estimated; None: not known), kv_used_bytes (of the KV cache, see `kv_used`), reason (why there is
    no rest, None where there is one).
    """
    info = cell.engine_info
    total = total_of(cell, reading, without_others_gpus(cell, samples))
    tokens = most_tokens_in_flight(reading.columns)
    parts = list(known_parts(info, tokens))
    rest = rest_of(parts, total)
    if isinstance(rest, Part):
        parts.append(rest)
    return {
        "breakdown": [asdict(part) for part in parts],
        "total_bytes": None if total is None else total.bytes,
        "total_source": None if total is None else total.source,
        "tokens": tokens,
        "kv_used_bytes": kv_used(info, tokens, reading, samples),
        "reason": rest if isinstance(rest, str) else None,
    }


def known_parts(info: EngineEntry, tokens: float | None) -> Iterator[Part]:
    """What the engine tells, and what follows from its files and from the tokens in flight where it is silent."""
    told = {name: int(count) for name, count in info.memory.items() if name not in _NO_PARTS and count}
    if WEIGHTS in told:
        yield Part(WEIGHTS, told.pop(WEIGHTS), TOLD)
    elif info.weight_bytes:
        yield Part(WEIGHTS, int(info.weight_bytes), "size of the weight files")
    per_token = info.kv_bytes_per_token
    if KV_CACHE in told:
        yield Part(KV_CACHE, told.pop(KV_CACHE), TOLD)
    elif per_token and tokens:
        source = f"{per_token:,.0f} bytes a token, and at most {tokens:,.0f} tokens in flight"
        yield Part(KV_CACHE, round(per_token * tokens), source)
    yield from (Part(name, count, TOLD) for name, count in told.items())


def rest_of(parts: list[Part], total: Total | None) -> Part | str:
    """What is left of the total, or why that is not known."""
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


def kv_used(info: EngineEntry, tokens: float | None, reading: Reading, samples: pd.DataFrame) -> float | None:
    """The most of the KV cache that requests can have had in use: their tokens, whole replies counted; where those are
    not known, the largest share that the server's page told, of the cache that the engine tells of.
    """
    if tokens is not None and info.kv_bytes_per_token:
        return float(tokens * info.kv_bytes_per_token)
    shares = peak_of_each(samples, reading.trial, reading.columns, "server", "kv_cache_share")
    whole = info.memory.get(KV_CACHE)
    return max(shares.values()) * whole if shares and whole else None


def total_of(cell: CellEntry, reading: Reading, samples: pd.DataFrame) -> Total | None:
    """The memory that was in use at most, where the engine computes: GPU memory, the engine's own where the driver
    tells it, or that of its processes.
    """
    if (cell.engine_info.device or "cpu").startswith("cpu"):
        found = memory_readings(cell, reading.trial, samples, reading.columns).get("memory_peak_bytes")
        return None if found is None else Total(found.bytes, _SEEN[found.source])
    own = peak_of_each(samples, reading.trial, reading.columns, "gpu", "engine_memory_bytes")
    if own:
        source = "largest reading of the GPU memory of the engine's processes"
        return Total(sum(own.values()), source)
    used = peak_of_each(samples, reading.trial, reading.columns, "gpu", "memory_used_bytes")
    source = "largest reading of the GPUs' memory, whoever used it"
    return Total(sum(used.values()), source) if used else None


def most_tokens_in_flight(columns: Columns) -> float | None:
    """The most tokens, of prompts and replies, of requests that were sent and not yet over at one time; each counts
    with its whole reply, so it is a bound from above. None where counts are not known.
    """
    sent, ended = columns.times["sent"], columns.ended
    tokens = columns.counts["prompt_tokens"] + columns.counts["output_tokens"]
    known = np.isfinite(sent) & np.isfinite(ended) & np.isfinite(tokens)
    if not known.any():
        return None
    moments = np.concatenate([ended[known], sent[known]])  # of the same moment those that end come first
    changes = np.concatenate([-tokens[known], tokens[known]])
    return float(np.cumsum(changes[np.argsort(moments, kind="stable")]).max())
