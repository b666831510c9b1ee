"""What the GPUs of this machine say of themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

from harness.records import Sample


class Gpus(Protocol):
    """Every GPU of this machine, read together."""

    def samples(self, at_ns: int) -> Iterator[Sample]:
        """One reading of each gauge of each GPU."""
        ...

    def processes(self) -> set[int]:
        """The processes that compute on them, as far as the driver tells."""
        ...


class NvidiaGpus:
    """NVIDIA GPUs through NVML. Raises RuntimeError, with the reason, where there is no driver or no GPU."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise RuntimeError(f"GPU readings need nvidia-ml-py: {error}") from error
        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise RuntimeError(f"no NVIDIA GPU can be read here: {error}") from error
        if not count:
            raise RuntimeError("no NVIDIA GPU here")
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def names(self) -> list[str]:
        """The GPUs' product names, in NVML's order."""
        return [str(self._nvml.nvmlDeviceGetName(handle)) for handle in self._handles]

    def driver(self) -> str:
        """The driver's version; "unknown" where it does not tell."""
        try:
            return str(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError:
            return "unknown"

    def processes(self) -> set[int]:
        """The processes that compute on the GPUs; none where the driver does not tell (containers, MIG)."""
        found: set[int] = set()
        for handle in self._handles:
            with contextlib.suppress(self._nvml.NVMLError):
                found |= {process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        return found

    def free_bytes(self, devices: Collection[int] = ()) -> int:
        """Memory that is free on these GPUs together; of all without `devices`."""
        chosen = [handle for index, handle in enumerate(self._handles) if not devices or index in devices]
        return sum(int(self._nvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in chosen)

    def samples(self, at_ns: int) -> Iterator[Sample]:
        """Memory used and total in bytes, utilisation 0..1 (share of time with a kernel resident), power in watts."""
        nvml = self._nvml
        for index, handle in enumerate(self._handles):
            gauges: dict[str, Callable[[Any], float]] = {
                "memory_used_bytes": lambda h: float(nvml.nvmlDeviceGetMemoryInfo(h).used),
                "memory_total_bytes": lambda h: float(nvml.nvmlDeviceGetMemoryInfo(h).total),
                "utilisation_share": lambda h: nvml.nvmlDeviceGetUtilizationRates(h).gpu / 100,
                "power_w": lambda h: nvml.nvmlDeviceGetPowerUsage(h) / 1000,
            }
            for name, read in gauges.items():
                with contextlib.suppress(nvml.NVMLError):  # a gauge this model lacks is absent
                    yield Sample(at_ns, f"gpu{index}", name, read(handle))


def find_gpus() -> tuple[Gpus | None, str | None]:
    """The GPUs that can be read here, or None and why not."""
    try:
        return NvidiaGpus(), None
    except RuntimeError as error:
        return None, str(error)
