"""NVIDIA GPUs, read through NVML (`nvidia-ml-py`, module `pynvml`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import psutil

from harness.telemetry.gpus.base import Gpus, Read, Value, Visibility
from harness.telemetry.gpus.gauges import Unavailable, as_readings

MILLI = 1e-3
GA100 = (8, 0)
AVERAGED_S = 1.0
MOST_FOREIGN = 3


class NvidiaGpus(Gpus):
    """GPUs that NVML lists."""

    maker = "NVIDIA"
    visibility = Visibility("cuda", "CUDA_VISIBLE_DEVICES", ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"))

    def _connect(self) -> dict[int, Any]:
        try:
            import pynvml
        except ImportError as error:
            raise RuntimeError(f"GPU readings need nvidia-ml-py: {error}") from error
        self._nvml: Any = pynvml
        self._foreign: dict[int, int] = {}
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as error:
            raise RuntimeError(f"no NVIDIA GPU can be read here: {error}") from error
        handles = {}
        for index in range(count):
            try:
                handles[index] = pynvml.nvmlDeviceGetHandleByIndex(index)
            except pynvml.NVMLError as error:  # lost, or denied to this process: the others can be read
                self._closed[index] = str(error)
        if self._closed and not handles:
            raise RuntimeError(f"no NVIDIA GPU can be read here: {next(iter(self._closed.values()))}")
        return handles

    def _system(self) -> Mapping[str, Callable[[], Any]]:
        return {"driver": lambda: str(self._nvml.nvmlSystemGetDriverVersion()), "cuda": self._cuda_version}

    def _cuda_version(self) -> str:
        version = self._nvml.nvmlSystemGetCudaDriverVersion()
        return f"{version // 1000}.{version % 1000 // 10}"

    def _pids(self, handle: Any) -> set[int]:
        return {process.pid for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)}

    def _free_bytes(self, handle: Any) -> int:
        return int(self._nvml.nvmlDeviceGetMemoryInfo(handle).free)

    def _facts(self, handle: Any) -> Mapping[str, Callable[[], Any]]:
        nvml = self._nvml
        return {
            "name": lambda: nvml.nvmlDeviceGetName(handle),
            "uuid": lambda: nvml.nvmlDeviceGetUUID(handle),
            "compute_capability": lambda: ".".join(map(str, nvml.nvmlDeviceGetCudaComputeCapability(handle))),
            "persistence": lambda: bool(nvml.nvmlDeviceGetPersistenceMode(handle)),
            "ecc": lambda: bool(nvml.nvmlDeviceGetCurrentEccMode(handle)),
            "mig": lambda: bool(nvml.nvmlDeviceGetMigMode(handle)[0]),
            "pcie_generation": lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle),
            "pcie_generation_max": lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle),
            "pcie_width": lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle),
            "pcie_width_max": lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(handle),
            "power_limit_w": lambda: nvml.nvmlDeviceGetPowerManagementLimit(handle) * MILLI,
            "power_limit_default_w": lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) * MILLI,
            "sm_clock_max_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM),
            "memory_clock_max_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM),
            "sm_clock_set_mhz": lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_SM),
            "memory_clock_set_mhz": lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_MEM),
            "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU),
        }

    def _often(self, index: int, handle: Any) -> Mapping[str, Read]:
        nvml = self._nvml
        clock_mhz = partial(nvml.nvmlDeviceGetClockInfo, handle)
        return {
            "its memory": lambda: self._memory(handle),
            "its utilisation": lambda: self._utilisation(handle),
            "its power": self._power_sensor(handle),
            "its energy": lambda: {"energy_j": nvml.nvmlDeviceGetTotalEnergyConsumption(handle) * MILLI},
            "its SM clock": lambda: {"sm_clock_mhz": float(clock_mhz(nvml.NVML_CLOCK_SM))},
            "its memory clock": lambda: {"memory_clock_mhz": float(clock_mhz(nvml.NVML_CLOCK_MEM))},
            "its throttling reasons": lambda: as_readings(self._reasons(handle)),
        }

    def _slowly(self, handle: Any) -> Mapping[str, Read]:
        nvml = self._nvml
        read_c = partial(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        return {
            "its temperature": lambda: {"temperature_c": float(read_c())},
            "its power limit": lambda: {"power_limit_w": nvml.nvmlDeviceGetEnforcedPowerLimit(handle) * MILLI},
            "the memory of each process": lambda: self._engine_memory(handle),
        }

    def _answer(self, read: Callable[[], Value]) -> Value:
        nvml = self._nvml
        lacking = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION)
        try:
            return read()
        except nvml.NVMLError as error:
            raise Unavailable(str(error), forever=error.value in lacking) from error

    def _memory(self, handle: Any) -> dict[str, float]:
        """Read memory; used is total minus free, because only some drivers include reserved memory in `used`."""
        nvml = self._nvml
        try:
            answer = nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
            reserved = {"memory_reserved_bytes": float(answer.reserved)}
        except (nvml.NVMLError, AttributeError):
            answer, reserved = nvml.nvmlDeviceGetMemoryInfo(handle), {}
        used = float(answer.total - answer.free)
        return {"memory_used_bytes": used, "memory_total_bytes": float(answer.total), **reserved}

    def _utilisation(self, handle: Any) -> dict[str, float]:
        """Read shares of the driver's last period (1/6 s to 1 s): with a kernel resident, with memory in use."""
        answer = self._nvml.nvmlDeviceGetUtilizationRates(handle)
        return {"utilisation_share": answer.gpu / 100, "memory_busy_share": answer.memory / 100}

    def _reasons(self, handle: Any) -> int:
        """Read the throttling reasons; drivers before 535 know only the older name."""
        nvml = self._nvml
        try:
            return int(nvml.nvmlDeviceGetCurrentClocksEventReasons(handle))
        except (nvml.NVMLError_FunctionNotFound, AttributeError):
            return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))

    def _power_sensor(self, handle: Any) -> Read:
        """Return the call that reads power, with its averaging time.

        The field of instant power is read if the driver has it, else NVML's power usage: an average over 1 s from
        Ampere on (except GA100), instant before (NVML's reference, nvmlDeviceGetPowerUsage).
        """
        nvml = self._nvml

        def instant() -> dict[str, float]:
            field = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_POWER_INSTANT])[0]
            if field.nvmlReturn != nvml.NVML_SUCCESS:
                raise nvml.NVMLError(field.nvmlReturn)
            return {"power_w": field.value.uiVal * MILLI, "power_averaged_s": 0.0}

        def usage() -> dict[str, float]:
            return {"power_w": nvml.nvmlDeviceGetPowerUsage(handle) * MILLI, "power_averaged_s": averaged_s}

        averaged_s = self._averaged_s(handle)
        try:
            instant()
        except (nvml.NVMLError, AttributeError):
            return usage
        return instant

    def _averaged_s(self, handle: Any) -> float:
        nvml = self._nvml
        try:
            capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
        except nvml.NVMLError:
            return AVERAGED_S  # unknown: assume the worse
        return AVERAGED_S if capability >= GA100 and capability != GA100 else 0.0

    def _engine_memory(self, handle: Any) -> dict[str, float]:
        """Read the memory of the engine's processes; empty while none computes here.

        Raises Unavailable if the driver lists processes without their memory (WDDM, MIG), or by numbers outside this
        container.
        """
        answer = {one.pid: one.usedGpuMemory for one in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        ours = [answer[pid] for pid in self._engine_pids if pid in answer]
        if any(used is None for used in ours):
            raise Unavailable("the driver lists processes without their memory", forever=True)
        foreign = not ours and bool(self._engine_pids and answer) and not any(map(psutil.pid_exists, answer))
        times = self._foreign[id(handle)] = self._foreign.get(id(handle), 0) + 1 if foreign else 0
        if times > MOST_FOREIGN:  # an ended process is listed for a moment
            reason = "the driver lists process numbers that do not exist here, as in a container with its own"
            raise Unavailable(reason, forever=True)
        return {"engine_memory_bytes": float(sum(ours))} if ours else {}
