"""What the GPUs of this machine say of themselves, whoever made them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Protocol

from harness.records import Sample
from harness.telemetry.gpus import amd
from harness.telemetry.gpus.amd import AmdGpus
from harness.telemetry.gpus.nvidia import NvidiaGpus


class Gpus(Protocol):
    """GPUs of this machine, read together.

    unread: one sentence for everything that could not be read, as soon as that is known; it grows while samples are
    taken.
    """

    unread: list[str]

    def samples(self, at_ns: int, engine_pids: Collection[int] = ()) -> Iterator[Sample]:
        """One reading of each gauge of each GPU that is due. engine_pids: whose memory is the engine's."""
        ...

    def processes(self, engine_pids: Collection[int] = ()) -> set[int]:
        """The processes that compute on them, as far as the driver tells; only on those where one of the engine's
        does, if there are such.
        """
        ...

    def free_bytes(self, devices: Collection[int] = ()) -> int:
        """Memory that is free on these GPUs together; of all without `devices`. Raises RuntimeError if one is lost."""
        ...

    def names(self) -> list[str]:
        """Their product names, in the driver's order."""
        ...

    def driver(self) -> str:
        """The driver's version; "unknown" where it does not tell."""
        ...

    def environment(self) -> dict[str, Any]:
        """The state in which driver and GPUs are now; JSON-able."""
        ...


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
