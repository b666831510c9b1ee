"""Where the memory of an engine goes: weights, KV cache, and the rest of what was seen in use; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.columns import Columns
from harness.machine import peak_of_each, without_others_gpus
from harness.memory_peaks import SHARED_IN_EACH, SHARED_ONCE, memory_readings
from harness.reading import Reading

if TYPE_CHECKING:
    import pandas as pd

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


def memory_facts(cell: dict[str, Any], reading: Reading, samples: pd.DataFrame) -> dict[str, Any]:
    """The memory of an engine during a trial, by what it is for.

    Keys: breakdown (part, bytes, source of each), total_bytes and total_source (None: nothing was read), tokens (the
    most in flight, as estimated; None: not known), kv_used_bytes (of the KV cache, see `kv_used`), reason (why there is
    no rest, None where there is one).
    """
    info = cell.get("engine_info") or {}
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


def known_parts(info: Mapping[str, Any], tokens: float | None) -> Iterator[Part]:
    """What the engine tells, and what follows from its files and from the tokens in flight where it is silent."""
    told = {name: int(count) for name, count in (info.get("memory") or {}).items() if name not in _NO_PARTS and count}
    if WEIGHTS in told:
        yield Part(WEIGHTS, told.pop(WEIGHTS), TOLD)
    elif info.get("weight_bytes"):
        yield Part(WEIGHTS, int(info["weight_bytes"]), "size of the weight files")
    per_token = info.get("kv_bytes_per_token")
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


def kv_used(info: Mapping[str, Any], tokens: float | None, reading: Reading, samples: pd.DataFrame) -> float | None:
    """The most of the KV cache that requests can have had in use: their tokens, whole replies counted; where those are
    not known, the largest share that the server's page told, of the cache that the engine tells of.
    """
    if tokens is not None and info.get("kv_bytes_per_token"):
        return float(tokens * info["kv_bytes_per_token"])
    shares = peak_of_each(samples, reading.trial, reading.columns, "server", "kv_cache_share")
    whole = (info.get("memory") or {}).get(KV_CACHE)
    return max(shares.values()) * whole if shares and whole else None


def total_of(cell: Mapping[str, Any], reading: Reading, samples: pd.DataFrame) -> Total | None:
    """The memory that was in use at most, where the engine computes: GPU memory, the engine's own where the driver
    tells it, or that of its processes.
    """
    if str((cell.get("engine_info") or {}).get("device") or "cpu").startswith("cpu"):
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
