"""Judge whether measuring on this machine is possible and believable, before a run: the checks of `harness doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from engines.cores import cpu_quota_cores, own_processors
from harness.telemetry import provenance
from harness.telemetry.cgroup import open_files, read_ceilings, read_pressure, read_tcp_sockets
from harness.telemetry.gpus import find_gpus
from harness.telemetry.host import busy_share
from harness.telemetry.kernel_clock import clock_cost_ns, clock_step_ns, stamp_lag_us
from harness.verdict import thresholds
from harness.verdict.reason import Level, worst

GIB = 1 << 30
LOOK_S = 0.5
_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")


class State(StrEnum):
    """OK; WARN: measure, but know this; BAD: nothing can be measured, or nothing of it believed."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


_STATES = {Level.VALID: State.OK, Level.WARN: State.WARN, Level.INVALID: State.BAD}


@dataclass(frozen=True, slots=True)
class Check:
    """Check of the machine: finding, and action if it is not good."""

    name: str
    state: State
    found: str
    advice: str = ""

    @classmethod
    def of(cls, name: str, level: Level, found: str, advice: str) -> Check:
        """Return the check of a reading whose level is known; advice is left out where all is well."""
        return cls(name, _STATES[level], found, "" if level is Level.VALID else advice)


def machine_checks(runs: Path) -> Iterator[Check]:
    """Every check of the machine, one after the other; takes about half a second. runs: where runs are stored."""
    for check in (cores, governor, other_load, clock, receive_stamps, files, ports, memory, swap):
        yield check()
    yield disk(runs)
    yield gpus()


def cores() -> Check:
    """Processor cores that this process may use."""
    usable, quota = len(own_processors()), cpu_quota_cores()
    found = f"{provenance.cpu_model() or 'unknown processor'}: {os.cpu_count()} cores, {usable} usable"
    found += f", a quota of {quota:g} cores" if quota is not None else ""
    available = min(usable, quota if quota is not None else usable)
    advice = "Give this process two cores or more: the client and an engine on this machine share them."
    return Check.of("processor", thresholds.CORES.level(available), found, advice)


def governor(folder: Path = Path("/sys/devices/system/cpu")) -> Check:
    """How the cores' frequency is governed."""
    found = sorted({file.read_text().strip() for file in folder.glob("cpu[0-9]*/cpufreq/scaling_governor")})
    if not found:
        why = "a virtual machine does not show it" if provenance.virtualised() else "this system does not show it"
        return Check("frequency", State.OK, f"unknown: {why}")
    level = Level.VALID if found == ["performance"] else Level.WARN
    advice = "Cores that clock down between requests answer late: `cpupower frequency-set -g performance`."
    return Check.of("frequency", level, "governor " + ", ".join(found), advice)


def other_load(sleep: Callable[[float], None] = time.sleep) -> Check:
    """Return the check of other processes on this machine."""
    before, idle_before = read_pressure(), psutil.cpu_times()
    sleep(LOOK_S)
    steal = read_pressure().since(before).steal_share
    busy = busy_share(idle_before, psutil.cpu_times()) or 0.0
    average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    found = f"processor {busy:.0%} busy" + (f", {steal:.1%} stolen by the hypervisor" if steal is not None else "")
    found += f", load average {average:.1f}" if average is not None else ""
    stolen = Level.VALID if steal is None else thresholds.STEAL.level(steal)
    advice = "Stop other processes, or calibrate again when they have ended."
    if stolen is not Level.VALID:
        advice = "Other virtual machines take time from this one: expect outliers."
    return Check.of("other load", worst(stolen, thresholds.BUSY.level(busy)), found, advice)


def clock(source: Path = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")) -> Check:
    """The clock that everything is measured with."""
    monotonic, counter = time.get_clock_info("monotonic"), time.get_clock_info("perf_counter")
    cost_ns = clock_cost_ns()
    try:
        name = source.read_text().strip()
    except OSError:
        name = "unknown source"
    found = f"{monotonic.implementation} from {name}, {cost_ns:.0f} ns to read, steps of at most {clock_step_ns()} ns"
    if not monotonic.monotonic or thresholds.CLOCK_RESOLUTION_NS.level(monotonic.resolution * 1e9) is not Level.VALID:
        return Check("clock", State.BAD, found, "A monotonic clock that resolves a microsecond is needed.")
    if platform.system() == "Linux" and {monotonic.implementation, counter.implementation} != {
        "clock_gettime(CLOCK_MONOTONIC)"
    }:
        return Check("clock", State.BAD, found, "This Python reads another clock than CLOCK_MONOTONIC: use CPython.")
    if thresholds.CLOCK_COST_NS.level(cost_ns) is not Level.VALID:
        advice = "Reading the time needs the kernel here; choose another clock source, such as tsc, if there is one."
        return Check("clock", State.WARN, found, advice)
    if name not in _CLOCKS and name != "unknown source":
        return Check("clock", State.WARN, found, f"Clock sources known to be good are {', '.join(_CLOCKS)}.")
    return Check("clock", State.OK, found)


def receive_stamps() -> Check:
    """Whether the kernel says when a packet came in."""
    name = "kernel receive stamps"
    try:
        lag_us = stamp_lag_us()
    except OSError as error:
        advice = "Arrivals are those of the client's own loop: leave it a core of its own, or measure on Linux."
        return Check(name, State.WARN, f"none: {error.strerror or error}", advice)
    return Check(name, State.OK, f"working, {lag_us:.0f} us from arrival to reading on loopback")


def files() -> Check:
    """How many connections and files can be open at once."""
    limit = read_ceilings().files
    if limit is None:
        return Check("open files", State.OK, "no limit")
    found = f"at most {limit:,}, {open_files()} open now"
    advice = f"Each stream needs one: `ulimit -Hn 65536` before loads over {limit // 2}."
    return Check.of("open files", thresholds.FILES.level(limit), found, advice)


def ports() -> Check:
    """How many connections to one address can be opened."""
    count, used = read_ceilings().ports, read_tcp_sockets()
    if count is None:
        return Check("ports", State.OK, "unknown: this system does not show the range")
    found = f"{count:,} ephemeral ports" + (f", {used:,} TCP sockets in use" if used is not None else "")
    level = worst(thresholds.FREE_PORTS.level(count), thresholds.USED_PORTS.level((used or 0) / max(count, 1)))
    advice = 'Widen the range: `sysctl net.ipv4.ip_local_port_range="1024 65535"`, and wait for old connections.'
    return Check.of("ports", level, found, advice)


def memory() -> Check:
    """Return the check of the free memory."""
    now, limit = psutil.virtual_memory(), provenance.memory_limit_bytes()
    found = f"{now.available / GIB:.1f} of {now.total / GIB:.1f} GiB available"
    found += f", a limit of {limit / GIB:.1f} GiB for this control group" if limit is not None else ""
    advice = "Stop other processes that hold memory, or engines will push each other out."
    usable = now.available if limit is None else min(now.available, limit)
    if usable < now.available:
        advice = "Raise the memory limit of this control group (container), or the system ends the engine."
    return Check.of("memory", thresholds.FREE_MEMORY.level(usable), found, advice)


def swap() -> Check:
    """Whether memory was given to the disk."""
    now = psutil.swap_memory()
    found = f"{now.used / GIB:.1f} of {now.total / GIB:.1f} GiB in use" if now.total else "none"
    advice = "What was swapped out comes back late: free memory, then `swapoff -a`."
    return Check.of("swap", thresholds.USED_SWAP.level(now.used), found, advice)


def disk(folder: Path) -> Check:
    """Whether runs can be stored."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / GIB:.1f} GiB free where runs are stored"
    if not os.access(there, os.W_OK):
        return Check("disk", State.BAD, f"{there} cannot be written", "Work in a folder of your own, or use --out.")
    advice = "Free space, or store runs elsewhere with --out."
    return Check.of("disk", thresholds.FREE_DISK.level(free), found, advice)


def gpus() -> Check:
    """GPUs and what else runs on them."""
    found, reason = find_gpus()
    if found is None:
        return Check("GPU", State.OK, str(reason))
    text = ", ".join(_counted(found.names())) + f", driver {found.driver()}"
    others = len(found.processes())
    text += f"; {others} processes use it" if others else ""
    advice = "Stop those processes; they reduce the GPU time and memory available to the engine."
    return Check.of("GPU", thresholds.OTHERS_ON_GPUS.level(others), text, advice)


def _counted(names: list[str]) -> Iterator[str]:
    for name in dict.fromkeys(names):
        yield f"{names.count(name)} x {name}"
