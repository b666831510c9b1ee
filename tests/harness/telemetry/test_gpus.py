"""Readings of GPUs: the real binding on a library of known truth, and a stand-in for AMD's."""

from __future__ import annotations

import importlib.machinery
import os
import subprocess
import sys
from collections.abc import Iterator
from enum import IntEnum
from types import ModuleType
from typing import Any

import pynvml
import pytest

from harness.analysis.samples.energy import COUNTER, energy_facts
from harness.analysis.samples.machine import throttling_facts
from harness.analysis.window import Window
from harness.records import Sample
from harness.store.manifest import CellEntry, TrialEntry
from harness.telemetry import gpus, provenance
from harness.telemetry.gpus import find_gpus
from harness.telemetry.gpus.amd import AmdGpus
from harness.telemetry.gpus.gauges import where_it_computes
from harness.telemetry.gpus.nvidia import NvidiaGpus
from tests.fabricated import FabricatedTrial
from tests.fake_nvml import FakeNvml, fake_nvml

S = 1_000_000_000
MINUTE = Window(0.0, 60.0 * S, "0 s to 60 s")


def values(samples: Iterator[Sample], source: str = "gpu0") -> dict[str, float]:
    """Readings of one GPU by name."""
    return {sample.name: sample.value for sample in samples if sample.source == source}


def ended_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    return ended.pid


def test_every_gauge_is_read() -> None:
    """With the unit that its name says."""
    with fake_nvml(now_ns=10 * S, reasons=0x48, processes=f"{os.getpid()}:4294967296,1:1048576"):
        found = NvidiaGpus()
        read = values(found.samples([os.getpid()]))
    assert read == pytest.approx(
        {
            "memory_used_bytes": 8 * 2**30,
            "memory_total_bytes": 80 * 2**30,
            "memory_reserved_bytes": 2**29,
            "engine_memory_bytes": 4 * 2**30,
            "utilisation_share": 0.73,
            "memory_busy_share": 0.41,
            "power_w": 300.0,
            "power_averaged_s": 0.0,
            "power_limit_w": 700.0,
            "energy_j": 5000 + 300 * 10,
            "sm_clock_mhz": 1980,
            "memory_clock_mhz": 2619,
            "temperature_c": 55,
            "throttle_reasons": 0x48,
            "throttled": 1.0,
        }
    )
    assert found.unread == []


def test_used_memory_is_the_same_with_every_driver() -> None:
    """NVML's second version leaves the reserved memory out of `used`, the first one does not."""
    with fake_nvml():
        new = values(NvidiaGpus().samples())
    with fake_nvml(without="nvmlDeviceGetMemoryInfo_v2"):
        old = values(NvidiaGpus().samples())
    assert old["memory_used_bytes"] == new["memory_used_bytes"]
    assert "memory_reserved_bytes" not in old


def test_an_older_driver_is_read_by_older_names() -> None:
    """Calls that it does not know have predecessors that it does."""
    newer = "nvmlDeviceGetCurrentClocksEventReasons,nvmlDeviceGetMemoryInfo_v2,nvmlDeviceGetFieldValues"
    with fake_nvml(older=newer, reasons=0x20, capability=70):
        found = NvidiaGpus()
        read = values(found.samples())
    assert (read["throttled"], read["memory_total_bytes"], read["power_w"]) == (1.0, 80 * 2**30, 300.0)
    assert found.unread == []


def test_names_of_lost_gpus_end_no_run() -> None:
    """The first facts of a manifest exist in any state of the GPU; no check of memory fails."""
    with fake_nvml(lost=1):
        assert provenance.collect()["must_match"]["gpus"] == ["unknown"]
        with pytest.raises(RuntimeError, match="GPU is lost"):
            NvidiaGpus().free_bytes()


def test_a_lost_gpu_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named; if it alone is asked for, that is the reason."""
    with fake_nvml():
        handle_of = pynvml.nvmlDeviceGetHandleByIndex

        def second_is_lost(index: int) -> Any:
            if index == 1:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
            return handle_of(index)

        monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", second_is_lost)
        found = NvidiaGpus()
        assert values(found.samples())["memory_total_bytes"] == 80 * 2**30
        assert found.unread == ["gpu1 cannot be read: GPU is lost"]
        assert NvidiaGpus([0]).unread == []
        with pytest.raises(RuntimeError, match="gpu1 cannot be read: GPU is lost"):
            NvidiaGpus([1])


def test_a_reading_lies_in_its_stamp() -> None:
    """The stamp is the middle of the call, the width what it took."""
    moments = iter(range(0, 10_000, 100))
    with fake_nvml():
        taken = list(NvidiaGpus(clock=lambda: next(moments)).samples())
    memory = next(sample for sample in taken if sample.name == "memory_used_bytes")
    assert (memory.at_ns, memory.width_ns) == (50, 100)
    energy = next(sample for sample in taken if sample.name == "energy_j")
    assert energy.at_ns > memory.at_ns + memory.width_ns // 2


def test_a_missing_gauge_is_read_once_and_reported_once() -> None:
    """And the other gauges go on."""
    with fake_nvml(without="nvmlDeviceGetTotalEnergyConsumption,nvmlDeviceGetClockInfo"):
        found = NvidiaGpus()
        for _ in range(3):
            read = values(found.samples())
    assert "energy_j" not in read
    assert read["power_w"] == 300.0
    assert found.unread == [
        "gpu0 does not report its energy: Not Supported",
        "gpu0 does not report its SM clock: Not Supported",
        "gpu0 does not report its memory clock: Not Supported",
    ]


@pytest.mark.parametrize(("capability", "averaged_s"), [(70, 0.0), (80, 0.0), (86, 1.0), (90, 1.0)])
def test_the_class_of_the_power_sensor_is_kept(capability: int, averaged_s: float) -> None:
    """Without instant power it depends on the architecture what NVML's power is: a second's mean from Ampere on."""
    with fake_nvml(capability=capability):
        assert values(NvidiaGpus().samples())["power_averaged_s"] == 0.0
    with fake_nvml(capability=capability, without="NVML_FI_DEV_POWER_INSTANT"):
        read = values(NvidiaGpus().samples())
    assert (read["power_w"], read["power_averaged_s"]) == (300.0, averaged_s)


def test_slow_gauges_are_read_once_a_second() -> None:
    """Slow or expensive gauges are not read at every tick."""
    now = [0]
    with fake_nvml():
        found = NvidiaGpus(clock=lambda: now[0])
        first, second = values(found.samples()), values(found.samples())
        now[0] = S
        third = values(found.samples())
    assert "temperature_c" in first
    assert "temperature_c" not in second
    assert "temperature_c" in third
    assert "power_w" in second


def test_a_lost_gpu_is_reported_once_with_the_time_and_read_again() -> None:
    """Sampling goes on; should it come back, its readings come back, too."""
    now = [0]
    with fake_nvml(gpus=2) as fake:
        found = NvidiaGpus(clock=lambda: now[0])
        assert values(found.samples(), "gpu1")
        fake.set(lost=1)
        for now[0] in range(0, 5 * S, S // 10):
            assert list(found.samples()) == []
        fake.set(lost=0)
        now[0] += 2 * S
        assert values(found.samples())["power_w"] == 300.0
        fake.set(lost=1)
        now[0] += 2 * S
        assert list(found.samples()) == []
    assert len(found.unread) == 2
    assert all("could not be read any more from " in said and "UTC on: GPU is lost" in said for said in found.unread)


def test_memory_of_processes_that_the_driver_does_not_tell_is_absent() -> None:
    """Never a zero: under WDDM and MIG there is no amount, in a container the numbers are those of others."""
    with fake_nvml(processes=f"{os.getpid()}:na"):
        found = NvidiaGpus()
        assert "engine_memory_bytes" not in values(found.samples([os.getpid()]))
        assert found.unread == [
            "gpu0 does not report the memory of each process: the driver lists processes without their memory"
        ]
    now = [0]
    with fake_nvml(processes=f"{ended_process()}:1000000"):
        found = NvidiaGpus(clock=lambda: now[0])
        for now[0] in range(0, 10 * S, S):
            assert "engine_memory_bytes" not in values(found.samples([os.getpid()]))
        assert ["process numbers that do not exist here" in said for said in found.unread] == [True]
    with fake_nvml(processes="1:1000000"):
        found = NvidiaGpus()
        assert "engine_memory_bytes" not in values(found.samples([os.getpid()]))
        assert found.unread == []


def test_processes_are_those_beside_the_engine() -> None:
    """On the other GPUs of the machine they take nothing from it; where it computes on none they are all."""
    with fake_nvml(gpus=2, processes="1:10"):
        assert NvidiaGpus().processes([os.getpid()]) == {1}
    with fake_nvml(gpus=2, busy=1, processes=f"1:10,{os.getpid()}:5"):
        assert NvidiaGpus().processes([os.getpid()]) == {1, os.getpid()}
        assert NvidiaGpus([0]).processes([os.getpid()]) == set()
    assert where_it_computes([{1, 2}, {2, 3}, {4}], [3]) == {2, 3}
    assert where_it_computes([{1, 2}, {4}], [9]) == {1, 2, 4}


def test_some_of_the_gpus_can_be_chosen() -> None:
    """The driver's numbers select, and name the sources."""
    with fake_nvml(gpus=3):
        found, reason = find_gpus([2, 0])
        assert found is not None
        assert reason is None
        assert {sample.source for sample in found.samples()} == {"gpu0", "gpu2"}
        assert found.names() == ["Fake GPU 0", "Fake GPU 2"]
        assert find_gpus([7]) == (None, "there is no GPU 7 here: there are 3, numbered from 0")
    with fake_nvml(gpus=0):
        assert find_gpus() == (None, "no NVIDIA GPU here")


def test_provenance_keeps_the_state_of_the_gpus() -> None:
    """Driver, CUDA and what decides how fast a GPU may run, at the start and at the end; what is untold is absent."""
    with fake_nvml(limit_mw=350000, without="nvmlDeviceGetEccMode"):
        found = provenance.collect()
        provenance.add_end(found["context"])
    told = found["context"]["gpus"]
    assert found["must_match"]["gpus"] == ["Fake GPU 0"]
    assert (told["driver"], told["cuda"]) == ("999.1", "13.1")
    state = told["gpus"][0]
    assert (state["power_limit_w"], state["pcie_generation"], state["pcie_generation_max"]) == (350.0, 4, 5)
    assert state["persistence"] is True
    assert "ecc" not in state
    assert found["context"]["gpus_at_end"]["gpus"][0]["uuid"] == "GPU-fake-0"


def a_minute(fake: FakeNvml, found: gpus.Gpus, now: list[int]) -> list[Sample]:
    """Readings ten times a second from before the minute until after it, in virtual time."""
    taken = []
    for now[0] in range(-2 * S, 62 * S, S // 10):
        fake.set(now_ns=now[0] + 10 * S)
        taken += found.samples()
    return taken


@pytest.mark.parametrize(("reset_s", "rises"), [(None, True), (30, False)])
def test_a_minute_at_300_w_is_18_kj_unless_the_counter_was_reset(reset_s: int | None, rises: bool) -> None:
    """From the library through the binding to joules: within half a percent, or no number and the reason."""
    now = [0]
    with fake_nvml(power_mw=300000, **({} if reset_s is None else {"reset_ns": (reset_s + 10) * S})) as fake:
        taken = a_minute(fake, NvidiaGpus(clock=lambda: now[0]), now)
    samples = FabricatedTrial(CellEntry(), TrialEntry(), (), taken).samples()
    found = energy_facts(CellEntry(), TrialEntry(t0_ns=0), MINUTE, samples)
    if rises:
        assert found["sensor"] == COUNTER
        assert found["j"] == pytest.approx(18_000, rel=0.005)
        assert found["power_w"] == pytest.approx(300)
    else:
        assert found["j"] is None
        assert "went back" in found["reason"]


def test_throttling_is_read_through_the_binding() -> None:
    """A fifth of the minute in heat."""
    now = [0]
    with fake_nvml() as fake:
        found = NvidiaGpus(clock=lambda: now[0])
        taken = []
        for now[0] in range(0, 60 * S, S // 10):
            fake.set(reasons=0x40 if now[0] >= 48 * S else 0x4)
            taken += found.samples()
    samples = FabricatedTrial(CellEntry(), TrialEntry(), (), taken).samples()
    told = throttling_facts(TrialEntry(t0_ns=0), MINUTE, samples)["gpu0"]
    assert told["share"] == pytest.approx(0.2, abs=0.01)
    assert told["reasons"]["software power cap"] == pytest.approx(0.8, abs=0.01)


class SmiException(Exception):
    """AMD's base of all errors."""


class Clk(IntEnum):
    """Kinds of clocks."""

    GFX = 1
    MEM = 4


class Kind(IntEnum):
    """Kinds of memory."""

    VRAM = 0


class Sensor(IntEnum):
    """Places of sensors, and what is asked of them."""

    JUNCTION = 1
    CURRENT = 0


def amd_library(**changes: Any) -> ModuleType:
    """A stand-in for `amdsmi` with its names and units; an exception among the changes is raised by that call."""
    answers: dict[str, Any] = {
        "amdsmi_init": None,
        "amdsmi_get_processor_handles": ["first"],
        "amdsmi_get_gpu_asic_info": {"market_name": "Stand-in 300"},
        "amdsmi_get_gpu_driver_info": {"driver_name": "amdgpu", "driver_version": "6.12"},
        "amdsmi_get_gpu_device_uuid": "uuid-of-first",
        "amdsmi_get_gpu_memory_usage": 10 * 2**30,
        "amdsmi_get_gpu_memory_total": 192 * 2**30,
        "amdsmi_get_gpu_activity": {"gfx_activity": 50, "umc_activity": 25, "mm_activity": "N/A"},
        "amdsmi_get_power_info": {"current_socket_power": 600, "average_socket_power": "N/A"},
        "amdsmi_get_power_cap_info": {"power_cap": 750_000_000, "default_power_cap": 750_000_000},
        "amdsmi_get_energy_count": {"energy_accumulator": 1_000_000, "counter_resolution": 15.3},
        "amdsmi_get_clock_info": {"clk": 2100},
        "amdsmi_get_temp_metric": 61,
        "amdsmi_get_pcie_info": {"pcie_metric": {"pcie_width": 16}, "pcie_static": {"max_pcie_width": 16}},
        "amdsmi_get_gpu_metrics_info": {
            "indep_throttle_status": "N/A",
            "ppt_residency_acc": 5,
            "hbm_thm_residency_acc": 1,
        },
        "amdsmi_get_gpu_process_list": [{"pid": os.getpid(), "memory_usage": {"vram_mem": 2**30}}],
    }
    library = ModuleType("amdsmi")
    library.__spec__ = importlib.machinery.ModuleSpec("amdsmi", None)
    parts: dict[str, Any] = {"AmdSmiException": SmiException, "AmdSmiClkType": Clk, "AmdSmiMemoryType": Kind}
    parts |= {"AmdSmiTemperatureType": Sensor, "AmdSmiTemperatureMetric": Sensor}
    for name, answer in (answers | changes).items():
        parts[name] = lambda *_, answer=answer: _answered(answer)
    library.__dict__.update(parts)
    return library


def _answered(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_amd_gauges_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Available facts have the common units and names."""
    monkeypatch.setitem(sys.modules, "amdsmi", amd_library())
    found = AmdGpus()
    read = values(found.samples([os.getpid()]))
    assert read == pytest.approx(
        {
            "memory_used_bytes": 10 * 2**30,
            "memory_total_bytes": 192 * 2**30,
            "engine_memory_bytes": 2**30,
            "utilisation_share": 0.5,
            "memory_busy_share": 0.25,
            "power_w": 600.0,
            "power_averaged_s": 0.0,
            "power_limit_w": 750.0,
            "energy_j": 15.3,
            "sm_clock_mhz": 2100,
            "memory_clock_mhz": 2100,
            "temperature_c": 61,
        }
    )
    assert found.environment()["gpus"][0]["name"] == "Stand-in 300"
    assert found.processes() == {os.getpid()}
    assert found.unread == []


def test_amd_counters_of_throttling_say_what_grew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words that NVIDIA's GPUs use."""
    metrics = {"indep_throttle_status": 2**64 - 1, "ppt_residency_acc": 5, "hbm_thm_residency_acc": 1}
    monkeypatch.setitem(sys.modules, "amdsmi", amd_library(amdsmi_get_gpu_metrics_info=metrics))
    found = AmdGpus()
    assert "throttled" not in values(found.samples())
    metrics["hbm_thm_residency_acc"] = 3
    assert values(found.samples())["throttle_reasons"] == 0x40
    metrics["ppt_residency_acc"] = 6
    read = values(found.samples())
    assert (read["throttle_reasons"], read["throttled"]) == (0x4, 0.0)


@pytest.mark.parametrize(("status", "mask"), [(0, 0), (1, 0x4), (1 << 16, 0x8), (1 << 36, 0x40)])
def test_amd_status_bits_are_sorted_by_cause(monkeypatch: pytest.MonkeyPatch, status: int, mask: int) -> None:
    """Power, current and heat."""
    told = {"indep_throttle_status": status}
    monkeypatch.setitem(sys.modules, "amdsmi", amd_library(amdsmi_get_gpu_metrics_info=told))
    assert values(AmdGpus().samples())["throttle_reasons"] == mask


def test_older_amd_libraries_and_smaller_gpus_tell_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other names of older versions are known; what is not there is told once."""
    library = amd_library(
        amdsmi_get_energy_count={"power": 1_000_000, "counter_resolution": 1.0},
        amdsmi_get_clock_info={"cur_clk": 900},
        amdsmi_get_power_info={"average_socket_power": 100},
        amdsmi_get_temp_metric=61000,
        amdsmi_get_gpu_activity={"gfx_activity": 10, "umc_activity": "N/A"},
        amdsmi_get_power_cap_info=SmiException("AMDSMI_STATUS_NOT_SUPPORTED"),
    )
    del library.amdsmi_get_gpu_metrics_info, library.amdsmi_get_gpu_device_uuid
    monkeypatch.setitem(sys.modules, "amdsmi", library)
    found = AmdGpus()
    read = values(found.samples())
    assert values(found.samples())
    assert (read["energy_j"], read["sm_clock_mhz"], read["temperature_c"]) == (1.0, 900, 61)
    assert (read["power_w"], read["power_averaged_s"]) == (100, 1.0)
    assert "memory_busy_share" not in read
    assert set(found.environment()["gpus"][0]) == {"index", "name", "pcie_width", "pcie_width_max"}
    assert [said.split(":")[0] for said in found.unread] == [
        "gpu0 does not report its throttling reasons",
        "gpu0 does not report its power limit",
    ]


def test_amd_is_read_without_an_nvidia_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """And both reasons are told where neither can be read."""

    def none_here(*_: Any) -> None:
        raise RuntimeError("no NVIDIA GPU here")

    monkeypatch.setattr(gpus, "NvidiaGpus", none_here)
    monkeypatch.setitem(sys.modules, "amdsmi", amd_library())
    found, _ = find_gpus()
    assert (type(found), found and found.free_bytes([0])) == (AmdGpus, 182 * 2**30)
    monkeypatch.setitem(sys.modules, "amdsmi", amd_library(amdsmi_init=SmiException("no driver")))
    assert find_gpus() == (None, "no NVIDIA GPU here; no AMD GPU can be read here: no driver")
