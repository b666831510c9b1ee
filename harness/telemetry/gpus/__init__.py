"""What the GPUs of this machine say of themselves, whoever made them."""

from __future__ import annotations

from collections.abc import Collection

from harness.telemetry.gpus import amd
from harness.telemetry.gpus.amd import AmdGpus
from harness.telemetry.gpus.base import Gpus, Visibility
from harness.telemetry.gpus.nvidia import NvidiaGpus


def find_gpus(devices: Collection[int] | None = None) -> tuple[Gpus | None, str | None]:
    """The GPUs that can be read here, or None and why not. devices: their numbers; all without.

    NVIDIA's where there are some; AMD's otherwise, where the library `amdsmi` is installed.
    """
    reasons = []
    makes = (NvidiaGpus, AmdGpus) if amd.installed() else (NvidiaGpus,)
    for make in makes:
        try:
            return (make() if devices is None else make(devices)), None
        except RuntimeError as error:
            reasons.append(str(error))
    return None, "; ".join(reasons)


def visibility(gpus: Gpus | None) -> Visibility:
    """How a process is told which of these GPUs it may use; as for NVIDIA's where there are none."""
    return (NvidiaGpus if gpus is None else gpus).visibility
