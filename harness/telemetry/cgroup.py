"""Control groups, CPU pressure and resource limits of this process: memory, throttling, steal, open files, ports.

All values come from /proc and the control groups (version 1 or 2); without them (macOS, Windows) they are None.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from engines.cores import OWN, ROOT, folders_of
from harness.telemetry.procfs import kept, numbers

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PROC = Path("/proc")
NO_FILE_LEFT = (errno.EMFILE, errno.ENFILE)
UNLIMITED_BYTES = 1 << 60  # version 1 writes a number near 2^63 where there is no limit
_STEAL_FIELD = 7
_TIME_FIELDS = 8  # later fields (guest time) are contained in the first


def memory_left_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Return the memory left by the tightest control group of this process; None without a limit.

    File cache that can be dropped counts as left.
    """
    groups = [found for folder in folders_of("memory", root, own) if (found := _memory(folder)) is not None]
    return min((max(0, limit - used) for used, limit in groups if limit is not None), default=None)


def free_memory_bytes() -> int:
    """Return the memory left to this process: the least of the machine's, its control group's and `ulimit -v`'s."""
    left = [int(psutil.virtual_memory().available), memory_left_bytes(), address_space_left_bytes()]
    return max(0, min(one for one in left if one is not None))


def address_space_left_bytes() -> int | None:
    """Return the rest of this process's address space limit; None without a limit."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit - int(psutil.Process().memory_info().vms)


def _memory(folder: Path) -> tuple[int, int | None] | None:
    """Return (bytes used, without droppable file cache, limit or None) of a group; None if they are unavailable."""
    second = (folder / "memory.current").exists()
    limit, used = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        text = (folder / limit).read_text().strip()
        names = (b"inactive_file", b"active_file") if second else (b"total_inactive_file", b"total_active_file")
        cache = sum(numbers((folder / "memory.stat").read_bytes(), *names).values())
        used_bytes = max(0, int((folder / used).read_text()) - cache)
        return used_bytes, int(text) if text.isdecimal() and int(text) < UNLIMITED_BYTES else None
    except (OSError, ValueError):
        return None


class Group:
    """Control group of a process, for repeated readings: the tightest of its own and those above it.

    own: the process's /proc/<pid>/cgroup.
    """

    def __init__(self, root: Path = ROOT, own: Path = OWN) -> None:
        limits = [(folder, found[1]) for folder in folders_of("memory", root, own) if (found := _memory(folder))]
        limited = [folder for folder, limit in limits if limit is not None]
        self._memory = limited or [folder for folder, _ in limits][:1]
        stats = [kept(folder / "cpu.stat") for folder in folders_of("cpu", root, own)]
        self._time = [file for file in stats if file is not None]

    @property
    def unread(self) -> str | None:
        """Sentence about unavailable readings, if there are any."""
        gone = [what for what, files in (("memory", self._memory), ("processor time", self._time)) if not files]
        return f"the control group's {' and '.join(gone)} cannot be read here" if gone else None

    def read(self) -> dict[str, float]:
        """Return the available readings of the group.

        They are memory_used_bytes (without droppable file cache), memory_limit_bytes if there is a limit, and
        throttled_periods and throttled_s since the group was made.
        """
        groups = [one for folder in self._memory if (one := _memory(folder)) is not None]
        limited = [(used, limit) for used, limit in groups if limit is not None]
        found: dict[str, float] = {}
        if limited:
            used, limit = min(limited, key=lambda one: one[1] - one[0])
            found = {"memory_used_bytes": used, "memory_limit_bytes": limit}
        elif groups:
            found = {"memory_used_bytes": groups[0][0]}
        try:
            periods, throttled_ns = throttled_of([file.read() for file in self._time])
        except OSError:
            return found  # the group was removed
        if periods is not None and throttled_ns is not None:
            found |= {"throttled_periods": periods, "throttled_s": throttled_ns / 1e9}
        return found

    def close(self) -> None:
        for file in self._time:
            file.close()
        self._time = []


def throttled_of(cpu_stats: Iterable[bytes]) -> tuple[int | None, int | None]:
    """Return (periods, nanoseconds) throttled, from the `cpu.stat` texts of a group and those above it."""
    found = [numbers(text, b"nr_throttled", b"throttled_time", b"throttled_usec") for text in cpu_stats]
    limited = [one for one in found if "nr_throttled" in one]  # groups with a quota
    if not limited:
        return None, None
    waited_ns = sum(one.get("throttled_time", 0) or 1000 * one.get("throttled_usec", 0) for one in limited)
    return sum(one["nr_throttled"] for one in limited), waited_ns


class Pressure(NamedTuple):
    """Counters since boot, of all processors together: throttled_ns in ns, steal_ticks and total_ticks in ticks."""

    throttled_periods: int | None
    throttled_ns: int | None
    steal_ticks: int | None
    total_ticks: int | None

    def since(self, before: Pressure) -> Pressure:
        """Return the increase since a reading."""
        pairs = zip(self, before, strict=True)
        return Pressure(*(None if now is None or then is None else now - then for now, then in pairs))

    @property
    def steal_share(self) -> float | None:
        """Steal as a share of all time, if it is known."""
        return self.steal_ticks / self.total_ticks if self.steal_ticks is not None and self.total_ticks else None


def read_pressure(proc: Path = PROC, cgroups: Path = ROOT) -> Pressure:
    """Read the counters of this process's control groups and of the machine."""
    groups = folders_of("cpu", cgroups, proc / "self" / "cgroup")
    throttled = throttled_of(_content(folder / "cpu.stat") for folder in groups)
    return Pressure(*throttled, *steal_of(_content(proc / "stat")))


def steal_of(stat: bytes) -> tuple[int | None, int | None]:
    """Return (steal, all) ticks of all processors together, from the text of /proc/stat."""
    name, *times = stat.partition(b"\n")[0].split() or [b""]
    if name != b"cpu" or len(times) < _TIME_FIELDS:
        return None, None
    ticks = [int(value) for value in times[:_TIME_FIELDS]]
    return ticks[_STEAL_FIELD], sum(ticks)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Largest numbers of open files and of local ports; None: unknown."""

    files: int | None
    ports: int | None


def read_ceilings(proc: Path = PROC) -> Ceilings:
    """Read the limits of this process and this machine."""
    low_high = _content(proc / "sys/net/ipv4/ip_local_port_range").split()
    ports = int(low_high[1]) - int(low_high[0]) + 1 if len(low_high) == 2 else None
    if resource is None:
        return Ceilings(None, ports)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Ceilings(None if soft == resource.RLIM_INFINITY else soft, ports)


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit, if the system allows it."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower limit that it does not report
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files(ceiling: int | None = None) -> int:
    """Estimate the number of open files: the lowest free descriptor, at the cost of two system calls.

    Returns `ceiling` if no descriptor is free.
    """
    try:
        lowest = os.open(os.devnull, os.O_RDONLY)
    except OSError as error:
        if error.errno in NO_FILE_LEFT and ceiling is not None:
            return ceiling
        raise
    os.close(lowest)
    return lowest


def read_tcp_sockets(proc: Path = PROC) -> int | None:
    """Read the number of TCP sockets of this network namespace that hold a port, TIME_WAIT included."""
    for line in _content(proc / "net" / "sockstat").splitlines():
        name, _, rest = line.partition(b":")
        if name == b"TCP":
            words = rest.split()
            counts = dict(zip(words[::2], words[1::2], strict=False))
            return int(counts.get(b"inuse", 0)) + int(counts.get(b"tw", 0))
    return None


def _content(file: Path) -> bytes:
    """Return the content of a file; empty if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return b""
