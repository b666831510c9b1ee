"""What the control group of this process allows it, in version 1 and version 2.

What a machine does to a process beside giving it time: throttling, steal, and how near its limits are.

Everything is read from /proc and the control groups; where they are missing (macOS, Windows) the readings are None.
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
    """The folders of the groups that govern a process's time, and all above them. own: its /proc/<pid>/cgroup."""
    return folders_of("cpu", root, own)


def memory_left_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """How much more memory the control groups of this process allow, file cache that can be dropped counted as left;
    None without a limit. The tightest of the process' own group and those above it.
    """
    found = [left for folder in folders_of("memory", root, own) if (left := _memory_left(folder)) is not None]
    return min(found, default=None)


def free_memory_bytes() -> int:
    """How much more memory this process can have: what is free on the machine, or less where a control group or a limit
    on its address space (`ulimit -v`) allows less.
    """
    left = [int(psutil.virtual_memory().available), memory_left_bytes(), address_space_left_bytes()]
    return max(0, min(one for one in left if one is not None))


def address_space_left_bytes() -> int | None:
    """What the limit on this process's address space leaves it; None without one."""
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
    """(bytes used without the file cache that can be dropped, limit or None) of a group; None where it is not told."""
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
    """The control group of a process, read again and again; the tightest of its own and those above it.

    own: the process's /proc/<pid>/cgroup.
    """

    def __init__(self, root: Path = ROOT, own: Path = OWN) -> None:
        told = [(folder, found[1]) for folder in folders_of("memory", root, own) if (found := _memory(folder))]
        limited = [folder for folder, limit in told if limit is not None]
        self._memory = limited or [folder for folder, _ in told][:1]
        self._time = [file for folder in folders_of_time(root, own) if (file := kept(folder / "cpu.stat")) is not None]

    @property
    def unread(self) -> str | None:
        """What cannot be read of it, in one sentence."""
        gone = [what for what, files in (("memory", self._memory), ("processor time", self._time)) if not files]
        return f"the control group's {' and '.join(gone)} cannot be read here" if gone else None

    def read(self) -> dict[str, float]:
        """memory_used_bytes (file cache that can be dropped not counted) and, where there is a limit,
        memory_limit_bytes; throttled_periods and throttled_s since the group was made. What is not told is absent.
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
        """Let go of its files."""
        for file in self._time:
            file.close()
        self._time = []


def throttled_of(cpu_stats: list[str]) -> tuple[int | None, int | None]:
    """(periods, nanoseconds) throttled, from `cpu.stat` of a group and those above it, version 1 or 2."""
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
_TIME_FIELDS = 8  # what follows (guest time) is contained in the first


@dataclass(frozen=True, slots=True)
class Pressure:
    """Counters since boot. throttled_ns of all processors together; steal and total in ticks of all processors."""

    throttled_periods: int | None
    throttled_ns: int | None
    steal_ticks: int | None
    total_ticks: int | None

    def since(self, before: Pressure) -> Pressure:
        """What was added."""
        return Pressure(
            _minus(self.throttled_periods, before.throttled_periods),
            _minus(self.throttled_ns, before.throttled_ns),
            _minus(self.steal_ticks, before.steal_ticks),
            _minus(self.total_ticks, before.total_ticks),
        )

    @property
    def steal_share(self) -> float | None:
        """Steal as a share of all time; None where it is not known."""
        return self.steal_ticks / self.total_ticks if self.steal_ticks is not None and self.total_ticks else None


def read_pressure(proc: Path = PROC, cgroups: Path = ROOT) -> Pressure:
    """The counters of this process's control groups and of the machine."""
    groups = folders_of_time(cgroups, proc / "self" / "cgroup")
    throttled = throttled_of([found for folder in groups if (found := _text(folder / "cpu.stat"))])
    stat = _text(proc / "stat")
    steal, total = (None, None) if stat is None else steal_of(stat)
    return Pressure(*throttled, steal, total)


def steal_of(stat: str) -> tuple[int | None, int | None]:
    """(steal, all) ticks of all processors together, from /proc/stat."""
    first = stat.partition("\n")[0].split()
    if not first or first[0] != "cpu" or len(first) <= _TIME_FIELDS:
        return None, None
    times = [int(value) for value in first[1 : _TIME_FIELDS + 1]]
    return times[_STEAL_FIELD], sum(times)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """How many files this process may open, and how many ports there are for its connections; None: not known."""

    files: int | None
    ports: int | None


def read_ceilings(proc: Path = PROC) -> Ceilings:
    """The limits of this process and this machine."""
    low_high = (_text(proc / "sys/net/ipv4/ip_local_port_range") or "").split()
    ports = int(low_high[1]) - int(low_high[0]) + 1 if len(low_high) == 2 else None
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    except ImportError:
        return Ceilings(None, ports)
    return Ceilings(None if soft == resource.RLIM_INFINITY else soft, ports)


def raise_file_limit() -> None:
    """Let this process open as many files as its hard limit allows, where the system lets it."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS has a lower one that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files(ceiling: int | None = None) -> int:
    """About how many files this process has open: the lowest free descriptor, which costs two system calls; `ceiling`
    where there is none.
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
    """Sockets that hold a port, those that wait for late packets included, from /proc/net/sockstat."""
    for line in sockstat.splitlines():
        name, _, rest = line.partition(":")
        if name == "TCP":
            words = rest.split()
            counts = dict(zip(words[::2], words[1::2], strict=False))
            return int(counts.get("inuse", 0)) + int(counts.get("tw", 0))
    return None


def read_tcp_sockets(proc: Path = PROC) -> int | None:
    """TCP sockets of this network namespace."""
    text = _text(proc / "net" / "sockstat")
    return None if text is None else tcp_sockets(text)


def _minus(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _text(file: Path) -> str | None:
    try:
        return file.read_text()
    except OSError:
        return None
