"""Readings of the machine as a whole: memory, processors, swap, disks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from harness.telemetry.processes import PAGE_BYTES, PROC
from harness.telemetry.procfs import kept

CLOCK_RATES = Path("/sys/devices/system/cpu")
MOST_CLOCK_RATES = 8
LEAST_CPU_NS = 100_000_000  # the counters move in steps of 10 ms
_SINCE_BOOT = {
    "pswpin": ("swap_in_bytes", PAGE_BYTES),
    "pswpout": ("swap_out_bytes", PAGE_BYTES),
    "pgpgin": ("disk_read_bytes", 1024),
    "pgpgout": ("disk_written_bytes", 1024),
}
_EVENTS = tuple(name.encode() for name in _SINCE_BOOT)


def busy_share(before: Any, now: Any) -> float | None:
    """Return the busy share of all processors between two of psutil's `cpu_times`; None if no time passed."""
    names = [name for name in now._fields if name not in ("guest", "guest_nice")]  # contained in user and nice
    spent = {name: max(0.0, getattr(now, name) - getattr(before, name)) for name in names}
    total = sum(spent.values())
    return 1 - (spent["idle"] + spent.get("iowait", 0.0)) / total if total > 0 else None


def _memory_used(memory: Mapping[str, int]) -> dict[str, float]:
    if "MemTotal" in memory and "MemAvailable" in memory:
        total, available = memory["MemTotal"] * 1024, memory["MemAvailable"] * 1024
    else:
        elsewhere = psutil.virtual_memory()
        total, available = elsewhere.total, elsewhere.available
    return {"memory_used_bytes": total - available, "memory_used_share": 1 - available / total}


class Host:
    """Machine of this process. unread: reasons for unavailable readings."""

    def __init__(self, proc: Path = PROC, clock_rates: Path = CLOCK_RATES) -> None:
        self.unread: dict[str, str] = {}
        self._memory, self._events = kept(proc / "meminfo"), kept(proc / "vmstat", 65536)
        rates = sorted(clock_rates.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))[:MOST_CLOCK_RATES]
        self._rates = [file for path in rates if (file := kept(path, 32)) is not None]
        self._cpu_ns, self._cpu_times = time.monotonic_ns(), psutil.cpu_times()

    def read(self) -> dict[str, float]:
        """Return the available readings.

        - memory_used_bytes, memory_used_share: memory that is not available to a new process.
        - cpu_share: of all processors, since the last reading.
        - swap_used_bytes; swap_in_bytes, swap_out_bytes, disk_read_bytes, disk_written_bytes: since boot.
        - cpu_mhz: mean of some processors.
        """
        names = (b"MemTotal", b"MemAvailable", b"SwapTotal", b"SwapFree")
        memory = {} if self._memory is None else self._memory.numbers(*names)
        return _memory_used(memory) | self._cpu() | self._since_boot(memory) | self._clock_rate()

    def close(self) -> None:
        for file in (self._memory, self._events, *self._rates):
            if file is not None:
                file.close()
        self._memory = self._events = None
        self._rates = []

    def _cpu(self) -> dict[str, float]:
        """Measure without psutil's own difference, which is kept per thread and is 0 for a new one."""
        now_ns = time.monotonic_ns()
        if now_ns - self._cpu_ns <= LEAST_CPU_NS:
            return {}
        before, self._cpu_times = self._cpu_times, psutil.cpu_times()
        self._cpu_ns = now_ns
        share = busy_share(before, self._cpu_times)
        return {} if share is None else {"cpu_share": share}

    def _since_boot(self, memory: Mapping[str, int]) -> dict[str, float]:
        """Read the kernel's page counters, which count a disk once, however it is divided; else psutil's."""
        events = {} if self._events is None else self._events.numbers(*_EVENTS)
        found: dict[str, float] = {_SINCE_BOOT[name][0]: count * _SINCE_BOOT[name][1] for name, count in events.items()}
        if "SwapTotal" in memory and "SwapFree" in memory:
            found["swap_used_bytes"] = (memory["SwapTotal"] - memory["SwapFree"]) * 1024
        if found:
            return found
        try:
            swap, disks = psutil.swap_memory(), psutil.disk_io_counters()
        except (OSError, RuntimeError, NotImplementedError) as error:
            self.unread.setdefault("swap", f"the machine's swap and disks cannot be read: {error}")
            return {}
        found = {"swap_used_bytes": swap.used, "swap_in_bytes": swap.sin, "swap_out_bytes": swap.sout}
        return found | ({"disk_read_bytes": disks.read_bytes, "disk_written_bytes": disks.write_bytes} if disks else {})

    def _clock_rate(self) -> dict[str, float]:
        rates = []
        for file in self._rates:
            with contextlib.suppress(OSError, ValueError):  # an offline processor
                rates.append(int(file.read()) / 1000)
        return {"cpu_mhz": sum(rates) / len(rates)} if rates else {}
