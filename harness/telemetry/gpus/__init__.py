"""Readings of this machine's GPUs, of any maker."""

from __future__ import annotations

from collections.abc import Collection

from harness.telemetry.gpus import amd
from harness.telemetry.gpus.amd import AmdGpus
from harness.telemetry.gpus.base import Gpus, Visibility
from harness.telemetry.gpus.nvidia import NvidiaGpus


def find_gpus(devices: Collection[int] | None = None) -> tuple[Gpus | None, str | None]:
    """Return the readable GPUs, or None and the reason. devices: their numbers; default all.

    NVIDIA's come first; AMD's need the library `amdsmi`.
    """
    reasons = []
    makes = (NvidiaGpus, AmdGpus) if amd.installed() else (NvidiaGpus,)
    for make in makes:
        try:
            return make(devices), None
        except RuntimeError as error:
            reasons.append(str(error))
    return None, "; ".join(reasons)


def visibility(gpus: Gpus | None) -> Visibility:
    """Return how a process is restricted to some of these GPUs; NVIDIA's way if there are none."""
    return (NvidiaGpus if gpus is None else gpus).visibility
