"""AMD GPUs, read through ROCm's library `amdsmi`.

Tested against a stand-in with the library's names and units; not yet run on AMD hardware.
"""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from harness.telemetry.gpus.base import Gpus, Read, Value, Visibility
from harness.telemetry.gpus.gauges import Unavailable, as_readings

MICRO = 1e-6
NO_STATUS = 0xFFFFFFFFFFFFFFFF
HOTTEST_C = 1000
POWER_BITS, CURRENT_BITS, HEAT_BITS = 0xFF, 0xFF << 16, 0xFFFF << 32
POWER_CAP, SLOWDOWN, HEAT = 0x4, 0x8, 0x40
RESIDENCIES = {
    "prochot_residency_acc": SLOWDOWN,
    "ppt_residency_acc": POWER_CAP,
    "socket_thm_residency_acc": HEAT,
    "vr_thm_residency_acc": HEAT,
    "hbm_thm_residency_acc": HEAT,
}


def installed() -> bool:
    """Return True if the library is installed."""
    return importlib.util.find_spec("amdsmi") is not None


class AmdGpus(Gpus):
    """GPUs that `amdsmi` lists, by its numbers."""

    maker = "AMD"
    # ROCm's torch calls its GPUs cuda, and HIP reads CUDA's variable.
    visibility = Visibility("cuda", "CUDA_VISIBLE_DEVICES", ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"))

    def _connect(self) -> dict[int, Any]:
        try:
            import amdsmi
        except (ImportError, OSError, KeyError) as error:  # the import loads a shared library of ROCm
            raise RuntimeError(f"readings of AMD GPUs need amdsmi: {error}") from error
        self._smi: Any = amdsmi
        self._residencies: dict[int, dict[str, float]] = {}
        try:
            amdsmi.amdsmi_init()
            return dict(enumerate(amdsmi.amdsmi_get_processor_handles()))
        except amdsmi.AmdSmiException as error:
            raise RuntimeError(f"no AMD GPU can be read here: {error}") from error

    def _system(self) -> Mapping[str, Callable[[], Any]]:
        first = next(iter(self._handles.values()))
        return {"driver": lambda: self._smi.amdsmi_get_gpu_driver_info(first)["driver_version"]}

    def _pids(self, handle: Any) -> set[int]:
        return {int(one["pid"]) for one in self._smi.amdsmi_get_gpu_process_list(handle)}

    def _free_bytes(self, handle: Any) -> int:
        answer = self._memory(handle)
        return int(answer["memory_total_bytes"] - answer["memory_used_bytes"])

    def _facts(self, handle: Any) -> Mapping[str, Callable[[], Any]]:
        smi = self._smi
        return {
            "name": lambda: smi.amdsmi_get_gpu_asic_info(handle)["market_name"],
            "uuid": lambda: smi.amdsmi_get_gpu_device_uuid(handle),
            "power_limit_w": lambda: smi.amdsmi_get_power_cap_info(handle)["power_cap"] * MICRO,
            "power_limit_default_w": lambda: smi.amdsmi_get_power_cap_info(handle)["default_power_cap"] * MICRO,
            "pcie_width": lambda: smi.amdsmi_get_pcie_info(handle)["pcie_metric"]["pcie_width"],
            "pcie_width_max": lambda: smi.amdsmi_get_pcie_info(handle)["pcie_static"]["max_pcie_width"],
        }

    def _often(self, index: int, handle: Any) -> Mapping[str, Read]:
        smi = self._smi
        return {
            "its memory": lambda: self._memory(handle),
            "its utilisation": lambda: self._utilisation(handle),
            "its power": lambda: self._power(handle),
            "its energy": lambda: self._energy(handle),
            "its shader clock": lambda: {"sm_clock_mhz": self._clock_mhz(handle, smi.AmdSmiClkType.GFX)},
            "its memory clock": lambda: {"memory_clock_mhz": self._clock_mhz(handle, smi.AmdSmiClkType.MEM)},
            "its throttling reasons": lambda: self._throttling(index, handle),
        }

    def _slowly(self, handle: Any) -> Mapping[str, Read]:
        cap = self._smi.amdsmi_get_power_cap_info
        return {
            "its temperature": lambda: self._temperature(handle),
            "its power limit": lambda: {"power_limit_w": _number(cap(handle)["power_cap"]) * MICRO},
            "the memory of each process": lambda: self._engine_memory(handle),
        }

    def _answer(self, read: Callable[[], Value]) -> Value:
        try:
            return read()
        except (AttributeError, KeyError, TypeError) as error:
            raise Unavailable(f"this version of amdsmi lacks {error}", forever=True) from error
        except self._smi.AmdSmiException as error:
            raise Unavailable(str(error), forever="NOT_SUPPORTED" in str(error)) from error

    def _memory(self, handle: Any) -> dict[str, float]:
        smi, kind = self._smi, self._smi.AmdSmiMemoryType.VRAM
        used, total = smi.amdsmi_get_gpu_memory_usage(handle, kind), smi.amdsmi_get_gpu_memory_total(handle, kind)
        return {"memory_used_bytes": _number(used), "memory_total_bytes": _number(total)}

    def _utilisation(self, handle: Any) -> dict[str, float]:
        answer = self._smi.amdsmi_get_gpu_activity(handle)
        shares = {"utilisation_share": answer["gfx_activity"], "memory_busy_share": answer["umc_activity"]}
        return {name: _number(value) / 100 for name, value in shares.items() if value != "N/A"}

    def _power(self, handle: Any) -> dict[str, float]:
        """Read watts: instant if the GPU reports it (MI300 and later), else an undocumented average, taken as 1 s."""
        answer = self._smi.amdsmi_get_power_info(handle)
        current = answer.get("current_socket_power", "N/A")
        if isinstance(current, int | float) and current > 0:
            return {"power_w": float(current), "power_averaged_s": 0.0}
        return {"power_w": _number(answer["average_socket_power"]), "power_averaged_s": 1.0}

    def _energy(self, handle: Any) -> dict[str, float]:
        """Read joules: counter times resolution is microjoules. Before ROCm 6.4 the counter was called `power`."""
        answer = self._smi.amdsmi_get_energy_count(handle)
        counter = answer["energy_accumulator"] if "energy_accumulator" in answer else answer["power"]
        return {"energy_j": _number(counter) * _number(answer["counter_resolution"]) * MICRO}

    def _clock_mhz(self, handle: Any, kind: Any) -> float:
        answer = self._smi.amdsmi_get_clock_info(handle, kind)
        return _number(answer["clk"] if "clk" in answer else answer["cur_clk"])

    def _temperature(self, handle: Any) -> dict[str, float]:
        """Read degrees: documented in thousandths, in practice often in whole degrees."""
        sensor, now = self._smi.AmdSmiTemperatureType.JUNCTION, self._smi.AmdSmiTemperatureMetric.CURRENT
        answer = _number(self._smi.amdsmi_get_temp_metric(handle, sensor, now))
        return {"temperature_c": answer / 1000 if answer > HOTTEST_C else answer}

    def _throttling(self, index: int, handle: Any) -> dict[str, float]:
        """Read status bits (MI200, Radeon), else counters that grow during throttling (MI300 and later).

        `amdsmi_get_violation_status` is not used: it measures for 100 ms, which would block all other readings.
        """
        answer = self._smi.amdsmi_get_gpu_metrics_info(handle)
        status = answer.get("indep_throttle_status", "N/A")
        if isinstance(status, int) and status != NO_STATUS:
            power, slowed, heat = status & POWER_BITS, status & CURRENT_BITS, status & HEAT_BITS
            return as_readings((POWER_CAP if power else 0) | (SLOWDOWN if slowed else 0) | (HEAT if heat else 0))
        now = {name: float(answer[name]) for name in RESIDENCIES if isinstance(answer.get(name), int | float)}
        if not now:
            raise Unavailable("it reports neither a status nor residencies", forever=True)
        before = self._residencies.get(index)
        self._residencies[index] = now
        if before is None:
            return {}
        grown = [bit for name, bit in RESIDENCIES.items() if now.get(name, 0.0) > before.get(name, float("inf"))]
        return as_readings(reduce(operator.or_, grown, 0))

    def _engine_memory(self, handle: Any) -> dict[str, float]:
        answer = {int(one["pid"]): one for one in self._smi.amdsmi_get_gpu_process_list(handle)}
        ours = [_number(answer[pid]["memory_usage"]["vram_mem"]) for pid in self._engine_pids if pid in answer]
        return {"engine_memory_bytes": sum(ours)} if ours else {}


def _number(value: Any) -> float:
    """Return a reading as a number. Raises Unavailable for the library's "N/A"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unavailable(f"it answers {value!r}", forever=True)
    return float(value)
