"""What we say of a GPU against what this process does with it; needs an NVIDIA GPU."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Iterator

import pytest

from harness.telemetry.gpus import find_gpus
from harness.telemetry.gpus.base import Gpus

MIB = 2**20
ALLOCATED = 4 * 2**30
PATIENCE_S = 10.0


class Driver:
    """The few calls of the CUDA driver that hold memory on the first GPU."""

    def __init__(self) -> None:
        try:
            self._cuda = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            pytest.skip(f"needs the CUDA driver: {error}")
        self._call("cuInit", 0)
        context, device = ctypes.c_void_p(), ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    @contextlib.contextmanager
    def allocated(self, size: int) -> Iterator[None]:
        """So many bytes of the GPU's memory are ours."""
        pointer = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        try:
            yield
        finally:
            self._call("cuMemFree_v2", pointer)

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._cuda, name)(*arguments)
        assert code == 0, f"{name} failed with {code}"


@pytest.fixture
def gpu() -> Gpus:
    """The GPUs here; skips without one."""
    found, reason = find_gpus([0])
    if found is None:
        pytest.skip(f"needs a GPU: {reason}")
    return found


def read(found: Gpus) -> dict[str, float]:
    """One reading of the first GPU."""
    return {sample.name: sample.value for sample in found.samples([os.getpid()])}


@pytest.mark.gpu
def test_four_gibibytes_are_four_gibibytes(gpu: Gpus) -> None:
    """The memory in use grows by what was allocated, to within the driver's granularity of 2 MiB, and shrinks again."""
    driver = Driver()
    before = read(gpu)["memory_used_bytes"]
    with driver.allocated(ALLOCATED):
        during = read(gpu)["memory_used_bytes"]
    after = read(gpu)["memory_used_bytes"]
    assert abs(during - before - ALLOCATED) <= 2 * MIB
    assert abs(after - before) <= 2 * MIB


@pytest.mark.gpu
def test_the_memory_of_our_process_is_told_or_the_reason(gpu: Gpus) -> None:
    """A container hides which process is which; then there is no number but a sentence."""
    driver = Driver()
    with driver.allocated(ALLOCATED):
        told = read(gpu).get("engine_memory_bytes")
    if told is None:
        pytest.skip(f"the driver does not tell which memory is this process's: {gpu.unread}")
    assert told >= ALLOCATED


@pytest.mark.gpu
def test_the_energy_counter_rises_as_the_power_says(gpu: Gpus) -> None:
    """Even an idle GPU draws power, so its counter has to move."""
    first = read(gpu)
    if "energy_j" not in first:
        pytest.skip(f"this GPU has no energy counter: {gpu.unread}")
    deadline = time.monotonic() + PATIENCE_S
    while (now := read(gpu))["energy_j"] <= first["energy_j"]:
        assert time.monotonic() < deadline, "the counter stood still"
    assert now["power_w"] > 0
    assert now["memory_used_bytes"] < now["memory_total_bytes"]
