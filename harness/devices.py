"""The accelerators that a scenario lets an engine use: what is here, and how a process is told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache

from harness.gpus import NvidiaGpus

CPU = "cpu"
CUDA = "cuda"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@cache
def gpu_count() -> int:
    """How many GPUs the driver names here; 0 where there is no driver."""
    try:
        return len(NvidiaGpus().names())
    except RuntimeError:
        return 0


def kinds_here(devices: Sequence[str], environment: Mapping[str, str] | None = None) -> frozenset[str]:
    """Where an engine with these devices can compute: "cpu", and "cuda" where it may and can see a GPU."""
    hidden = (os.environ if environment is None else environment).get(VISIBLE) in ("", "-1")
    seen = devices != (CPU,) and (bool(devices) or not hidden) and gpu_count() > 0
    return frozenset({CPU, CUDA} if seen else {CPU})


def absent(devices: Sequence[str]) -> str | None:
    """Which of the devices is not here, in one sentence; None where all are."""
    gone = next((one for one in devices if one != CPU and int(one) >= gpu_count()), None)
    if gone is None:
        return None
    there = f"there are {gpu_count()}, counted from 0" if gpu_count() else "no GPU can be seen"
    return f"`devices` names GPU {gone}, which is not here: {there}"


def environment_of(devices: Sequence[str]) -> dict[str, str]:
    """What a process finds in its environment so that it sees these devices only, in the driver's order."""
    if not devices:
        return {}
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", VISIBLE: "" if devices == (CPU,) else ",".join(devices)}
