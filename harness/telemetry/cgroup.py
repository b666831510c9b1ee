"""Control groups, CPU pressure and resource limits of this process: memory, throttling, steal, open files, ports.

All values come from /proc and the control groups (version 1 or 2); without them (macOS, Windows) they are None.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

from engines.cores import OWN, ROOT, folders_of
from harness.telemetry.procfs import kept, numbers

UNLIMITED_BYTES = 1 << 60  # version 1 writes a number near 2^63 where there is no limit


def folders_of_time(root: Path, own: Path) -> list[Path]:
    """Return the folders of the groups that limit a process's CPU time. own: its /proc/<pid>/cgroup."""
    return folders_of("cpu", root, own)


def memory_left_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Return the memory left by the tightest control group of this process; None without a limit.

    File cache that can be dropped counts as left.
    """
    found = [left for folder in folders_of("memory", root, own) if (left := _memory_left(folder)) is not None]
    return min(found, default=None)


def free_memory_bytes() -> int:
    """Return the memory that this process can still allocate.

    That is the machine's available memory, or less by a control group or `ulimit -v`.
    """
    left = [int(psutil.virtual_memory().available), memory_left_bytes(), address_space_left_bytes()]
    return max(0, min(one for one in left if one is not None))


def address_space_left_bytes() -> int | None:
    """Return the rest of this process's address space limit; None without a limit."""
    try:
        import resource
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit - int(psutil.Process().memory_info().vms)


def _memory_left(folder: Path) -> int | None:
    used, limit = _memory(folder) or (0, None)
    return None if limit is None else max(0, limit - used)


def _memory(folder: Path) -> tuple[int, int | None] | None:
    """Return (bytes used, without droppable file cache, limit or None) of a group; None if they are unavailable."""
    second = (folder / "memory.current").exists()
    limit, used = ("memory.max", "memory.current") if second else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    try:
        text = (folder / limit).read_text().strip()
        names = (b"inactive_file", b"active_file") if second else (b"total_inactive_file", b"total_active_file")
        cache = sum(numbers((folder / "memory.stat").read_bytes(), *names).values())
        left = max(0, int((folder / used).read_text()) - cache)
        return left, int(text) if text.isdecimal() and int(text) < UNLIMITED_BYTES else None
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
        self._time = [file for folder in folders_of_time(root, own) if (file := kept(folder / "cpu.stat")) is not None]

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
            periods, throttled_ns = throttled_of([file.read().decode() for file in self._time])
        except OSError:
            return found  # the group was removed
        if periods is not None and throttled_ns is not None:
            found |= {"throttled_periods": periods, "throttled_s": throttled_ns / 1e9}
        return found

    def close(self) -> None:
        for file in self._time:
            file.close()
        self._time = []


def throttled_of(cpu_stats: list[str]) -> tuple[int | None, int | None]:
    """Return (periods, nanoseconds) throttled, from the `cpu.stat` texts of a group and those above it."""
    periods, waited_ns = 0, 0
    known = False
    for text in cpu_stats:
        values = dict(line.split(None, 1) for line in text.splitlines() if " " in line)
        if "nr_throttled" not in values:
            continue  # a group without a quota
        known = True
        periods += int(values["nr_throttled"])
        waited_ns += int(values.get("throttled_time", 0)) or 1000 * int(values.get("throttled_usec", 0))
    return (periods, waited_ns) if known else (None, None)


PROC = Path("/proc")
_STEAL_FIELD = 7
NO_FILE_LEFT = (errno.EMFILE, errno.ENFILE)
_TIME_FIELDS = 8  # later fields (guest time) are contained in the first


@dataclass(frozen=True, slots=True)
class Pressure:
    """Counters since boot, of all processors together: throttled_ns in ns, steal_ticks and total_ticks in ticks."""

    throttled_periods: int | None
    throttled_ns: int | None
    steal_ticks: int | None
    total_ticks: int | None

    def since(self, before: Pressure) -> Pressure:
        """Return the increase since a reading."""
        return Pressure(
            _minus(self.throttled_periods, before.throttled_periods),
            _minus(self.throttled_ns, before.throttled_ns),
            _minus(self.steal_ticks, before.steal_ticks),
            _minus(self.total_ticks, before.total_ticks),
        )

    @property
    def steal_share(self) -> float | None:
        """Steal as a share of all time, if it is known."""
        return self.steal_ticks / self.total_ticks if self.steal_ticks is not None and self.total_ticks else None


def read_pressure(proc: Path = PROC, cgroups: Path = ROOT) -> Pressure:
    """Read the counters of this process's control groups and of the machine."""
    groups = folders_of_time(cgroups, proc / "self" / "cgroup")
    throttled = throttled_of([found for folder in groups if (found := _text(folder / "cpu.stat"))])
    stat = _text(proc / "stat")
    steal, total = (None, None) if stat is None else steal_of(stat)
    return Pressure(*throttled, steal, total)


def steal_of(stat: str) -> tuple[int | None, int | None]:
    """Return (steal, all) ticks of all processors together, from the text of /proc/stat."""
    first = stat.partition("\n")[0].split()
    if not first or first[0] != "cpu" or len(first) <= _TIME_FIELDS:
        return None, None
    times = [int(value) for value in first[1 : _TIME_FIELDS + 1]]
    return times[_STEAL_FIELD], sum(times)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Largest numbers of open files and of local ports; None: unknown."""

    files: int | None
    ports: int | None


def read_ceilings(proc: Path = PROC) -> Ceilings:
    """Read the limits of this process and this machine."""
    low_high = (_text(proc / "sys/net/ipv4/ip_local_port_range") or "").split()
    ports = int(low_high[1]) - int(low_high[0]) + 1 if len(low_high) == 2 else None
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except ImportError:
        return Ceilings(None, ports)
    return Ceilings(None if soft == resource.RLIM_INFINITY else soft, ports)


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit, if the system allows it."""
    try:
        import resource
    except ImportError:
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


def tcp_sockets(sockstat: str) -> int | None:
    """Return the sockets that hold a port, TIME_WAIT included, from the text of /proc/net/sockstat."""
    for line in sockstat.splitlines():
        name, _, rest = line.partition(":")
        if name == "TCP":
            words = rest.split()
            counts = dict(zip(words[::2], words[1::2], strict=False))
            return int(counts.get("inuse", 0)) + int(counts.get("tw", 0))
    return None


def read_tcp_sockets(proc: Path = PROC) -> int | None:
    """Read the number of TCP sockets of this network namespace."""
    text = _text(proc / "net" / "sockstat")
    return None if text is None else tcp_sockets(text)


def _minus(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None
