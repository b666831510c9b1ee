"""Whether what an engine will need is free, asked before it is started.

One that does not fit takes minutes to fail, and may take the machine with it.
"""

from __future__ import annotations

import os

from engines.base import Engine, EngineSpec
from engines.memory import EstimatingEngine, MemoryEstimate
from harness.cgroup import free_memory_bytes
from harness.devices import visible_gpus
from harness.gpus import find_gpus
from harness.quantities import format_bytes

PARTS = {"weights": "weights", "kv_cache": "KV cache", "runtime": "runtime"}


def too_little_memory(engine: Engine, spec: EngineSpec) -> str | None:
    """What the engine needs and what is free, in one sentence, where that is too little; None where it is enough, or
    where one of the two is not known. For an engine that was prepared and not yet started.
    """
    needed = engine.memory_needed() if isinstance(engine, EstimatingEngine) else None
    free = None if needed is None else free_bytes(needed, spec)
    if needed is None or free is None or needed.bytes <= free:
        return None
    parts = ", ".join(f"{PARTS.get(name, name)} {format_bytes(count)}" for name, count in needed.parts.items() if count)
    where = "on the GPUs" if needed.device == "cuda" else "here"
    return f"needs at least {format_bytes(needed.bytes)} ({parts}); {format_bytes(free)} is free {where}"


def free_bytes(needed: MemoryEstimate, spec: EngineSpec) -> int | None:
    """Memory that is free on the device of an estimate; None where that cannot be read."""
    if needed.device == "cpu":
        return free_memory_bytes()
    try:
        named = [int(one) for one in spec.devices] if spec.devices else visible_gpus({**os.environ, **spec.env})
        gpus, _ = find_gpus()
        return None if gpus is None or named == () else gpus.free_bytes(named or ())
    except (RuntimeError, ValueError):
        return None  # which GPUs, or what is free on them, cannot be told
