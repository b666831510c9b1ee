"""What a machine does to a process beside giving it time: throttling, steal, and how near its limits are.

Everything is read from /proc and the control groups; where they are missing (macOS, Windows) the readings are None.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from engines.cores import ROOT
from harness.cgroup import folders_of_time, throttled_of

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
