"""AMD GPUs, read through the library `amdsmi` that comes with ROCm. Tested against a stand-in for that library with its
names and units; never yet run on AMD hardware.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

from harness.records import Sample
from harness.telemetry.gpus.gauges import SLOWLY_NS, Gauge, GaugeReader, Untold, as_readings, where_it_computes

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
    """Whether the library is there."""
    return importlib.util.find_spec("amdsmi") is not None


class AmdGpus:
    """Every AMD GPU of this machine, or those that `devices` names by the library's numbers.

    unread: as of `NvidiaGpus`.   Raises RuntimeError, with the reason, where there is no library, driver or GPU.
    """

    def __init__(self, devices: Collection[int] | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        try:
            import amdsmi
        except (ImportError, OSError, KeyError) as error:  # it loads a shared library of ROCm when it is imported
            raise RuntimeError(f"readings of AMD GPUs need amdsmi: {error}") from error
        self._smi: Any = amdsmi
        try:
            amdsmi.amdsmi_init()
            handles = dict(enumerate(amdsmi.amdsmi_get_processor_handles()))
        except amdsmi.AmdSmiException as error:
            raise RuntimeError(f"no AMD GPU can be read here: {error}") from error
        if not handles:
            raise RuntimeError("no AMD GPU here")
        absent = [index for index in devices or () if index not in handles]
        if absent:
            raise RuntimeError(f"there is no GPU {absent[0]} here: there are {len(handles)}, numbered from 0")
        self._handles = {index: handle for index, handle in handles.items() if devices is None or index in devices}
        self.unread: list[str] = []
        self._engine_pids: Collection[int] = ()
        self._residencies: dict[int, dict[str, float]] = {}
        self._readers = [
            GaugeReader(f"gpu{index}", self._gauges(index, handle), self.unread, clock)
            for index, handle in self._handles.items()
        ]

    def samples(self, at_ns: int, engine_pids: Collection[int] = ()) -> Iterator[Sample]:
        """As `NvidiaGpus.samples`."""
        self._engine_pids = engine_pids
        for reader in self._readers:
            yield from reader.samples()

    def names(self) -> list[str]:
        """The GPUs' product names, in the library's order."""
        return [str(state.get("name", "unknown")) for state in self.environment()["gpus"]]

    def driver(self) -> str:
        """The driver's version; "unknown" where it does not tell."""
        with contextlib.suppress(self._smi.AmdSmiException, KeyError, AttributeError):
            return str(self._smi.amdsmi_get_gpu_driver_info(next(iter(self._handles.values())))["driver_version"])
        return "unknown"

    def processes(self, engine_pids: Collection[int] = ()) -> set[int]:
        """See `gpus.Gpus`; none where the driver does not tell."""
        found: list[set[int]] = []
        for handle in self._handles.values():
            with contextlib.suppress(self._smi.AmdSmiException):
                found.append({int(one["pid"]) for one in self._smi.amdsmi_get_gpu_process_list(handle)})
        return where_it_computes(found, engine_pids)

    def free_bytes(self, devices: Collection[int] = ()) -> int:
        """As `NvidiaGpus.free_bytes`."""
        chosen = [handle for index, handle in self._handles.items() if not devices or index in devices]
        try:
            told = [self._told(partial(self._memory, handle)) for handle in chosen]
        except Untold as error:
            raise RuntimeError(f"the memory of a GPU cannot be read: {error}") from error
        return sum(int(one["memory_total_bytes"] - one["memory_used_bytes"]) for one in told)

    def environment(self) -> dict[str, Any]:
        """As `NvidiaGpus.environment`, as far as the library has it."""
        smi, states = self._smi, []
        asked: dict[str, Callable[[Any], Any]] = {
            "name": lambda one: smi.amdsmi_get_gpu_asic_info(one)["market_name"],
            "uuid": lambda one: smi.amdsmi_get_gpu_device_uuid(one),
            "power_limit_w": lambda one: smi.amdsmi_get_power_cap_info(one)["power_cap"] * MICRO,
            "power_limit_default_w": lambda one: smi.amdsmi_get_power_cap_info(one)["default_power_cap"] * MICRO,
            "pcie_width": lambda one: smi.amdsmi_get_pcie_info(one)["pcie_metric"]["pcie_width"],
            "pcie_width_max": lambda one: smi.amdsmi_get_pcie_info(one)["pcie_static"]["max_pcie_width"],
        }
        for index, handle in self._handles.items():
            state: dict[str, Any] = {"index": index}
            for name, ask in asked.items():
                with contextlib.suppress(smi.AmdSmiException, AttributeError, KeyError, TypeError):  # versions differ
                    state[name] = ask(handle)
            states.append(state)
        return {"driver": self.driver(), "gpus": states}

    def _gauges(self, index: int, handle: Any) -> list[Gauge]:
        smi = self._smi
        ask: dict[str, Callable[[], Mapping[str, float]]] = {
            "its memory": lambda: self._memory(handle),
            "its utilisation": lambda: self._utilisation(handle),
            "its power": lambda: self._power(handle),
            "its energy": lambda: self._energy(handle),
            "its shader clock": lambda: {"sm_clock_mhz": self._clock_mhz(handle, smi.AmdSmiClkType.GFX)},
            "its memory clock": lambda: {"memory_clock_mhz": self._clock_mhz(handle, smi.AmdSmiClkType.MEM)},
            "what throttles it": lambda: self._throttling(index, handle),
        }
        slow: dict[str, Callable[[], Mapping[str, float]]] = {
            "its temperature": lambda: self._temperature(handle),
            "its power limit": lambda: {
                "power_limit_w": _number(smi.amdsmi_get_power_cap_info(handle)["power_cap"]) * MICRO
            },
            "the memory of each process": lambda: self._engine_memory(handle),
        }
        often = [Gauge(what, partial(self._told, read)) for what, read in ask.items()]
        return often + [Gauge(what, partial(self._told, read), SLOWLY_NS) for what, read in slow.items()]

    def _told(self, read: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """What the library answers; its errors, and names that this version of it lacks, as Untold."""
        try:
            return read()
        except (AttributeError, KeyError, TypeError) as error:
            raise Untold(f"this version of amdsmi lacks {error}", forever=True) from error
        except self._smi.AmdSmiException as error:
            raise Untold(str(error), forever="NOT_SUPPORTED" in str(error)) from error

    def _memory(self, handle: Any) -> dict[str, float]:
        smi, kind = self._smi, self._smi.AmdSmiMemoryType.VRAM
        used, total = smi.amdsmi_get_gpu_memory_usage(handle, kind), smi.amdsmi_get_gpu_memory_total(handle, kind)
        return {"memory_used_bytes": _number(used), "memory_total_bytes": _number(total)}

    def _utilisation(self, handle: Any) -> dict[str, float]:
        told = self._smi.amdsmi_get_gpu_activity(handle)
        shares = {"utilisation_share": told["gfx_activity"], "memory_busy_share": told["umc_activity"]}
        return {name: _number(value) / 100 for name, value in shares.items() if value != "N/A"}

    def _power(self, handle: Any) -> dict[str, float]:
        """Watts: instant where the GPU tells it (MI300 and later), else an average over a time nobody states, taken
        for 1 s.
        """
        told = self._smi.amdsmi_get_power_info(handle)
        current = told.get("current_socket_power", "N/A")
        if isinstance(current, int | float) and current > 0:
            return {"power_w": float(current), "power_averaged_s": 0.0}
        return {"power_w": _number(told["average_socket_power"]), "power_averaged_s": 1.0}

    def _energy(self, handle: Any) -> dict[str, float]:
        """Counter times resolution is microjoules; the counter was called `power` before ROCm 6.4."""
        told = self._smi.amdsmi_get_energy_count(handle)
        counter = told["energy_accumulator"] if "energy_accumulator" in told else told["power"]
        return {"energy_j": _number(counter) * _number(told["counter_resolution"]) * MICRO}

    def _clock_mhz(self, handle: Any, kind: Any) -> float:
        told = self._smi.amdsmi_get_clock_info(handle, kind)
        return _number(told["clk"] if "clk" in told else told["cur_clk"])

    def _temperature(self, handle: Any) -> dict[str, float]:
        """The documentation says thousandths of a degree; libraries in the field answer in whole degrees."""
        smi = self._smi
        told = _number(
            smi.amdsmi_get_temp_metric(handle, smi.AmdSmiTemperatureType.JUNCTION, smi.AmdSmiTemperatureMetric.CURRENT)
        )
        return {"temperature_c": told / 1000 if told > HOTTEST_C else told}

    def _throttling(self, index: int, handle: Any) -> dict[str, float]:
        """Status bits (MI200, Radeon), else counters that grow while something holds the GPU back (MI300 and later).

        Not `amdsmi_get_violation_status`: it measures over 100 ms, in which nothing else could be read.
        """
        told = self._smi.amdsmi_get_gpu_metrics_info(handle)
        status = told.get("indep_throttle_status", "N/A")
        if isinstance(status, int) and status != NO_STATUS:
            power, slowed, heat = status & POWER_BITS, status & CURRENT_BITS, status & HEAT_BITS
            return as_readings((POWER_CAP if power else 0) | (SLOWDOWN if slowed else 0) | (HEAT if heat else 0))
        now = {name: float(told[name]) for name in RESIDENCIES if isinstance(told.get(name), int | float)}
        if not now:
            raise Untold("neither a status nor residencies are told", forever=True)
        before = self._residencies.get(index)
        self._residencies[index] = now
        if before is None:
            return {}
        grown = [bit for name, bit in RESIDENCIES.items() if now.get(name, 0.0) > before.get(name, float("inf"))]
        mask = 0
        for bit in grown:
            mask |= bit
        return as_readings(mask)

    def _engine_memory(self, handle: Any) -> dict[str, float]:
        told = {int(one["pid"]): one for one in self._smi.amdsmi_get_gpu_process_list(handle)}
        ours = [_number(told[pid]["memory_usage"]["vram_mem"]) for pid in self._engine_pids if pid in told]
        return {"engine_memory_bytes": sum(ours)} if ours else {}


def _number(value: Any) -> float:
    """A reading. Raises Untold for the "N/A" that the library puts where there is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Untold(f"it answers {value!r}", forever=True)
    return float(value)
