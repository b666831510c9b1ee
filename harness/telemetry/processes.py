"""Readings of a group of processes (memory, CPU time, page faults, disk traffic), and their descendants."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from operator import methodcaller
from pathlib import Path
from typing import Any

import psutil

from harness.telemetry.procfs import KeptFile

PROC = Path("/proc")
FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_MINOR, _MAJOR, _USER, _SYSTEM, _THREADS, _PAGES = 7, 9, 11, 12, 17, 21
_ENDED = (b"Z", b"X")


def tree(pids: Iterable[int]) -> set[int]:
    """Return the living processes of these, with all their descendants."""
    waiting = [pid for pid in pids if psutil.pid_exists(pid)]
    if not _threads_list_children():
        return set(waiting).union(*map(_descendants, waiting))
    found: set[int] = set()
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += _children(pid)
    return found


def numbers_are_the_machines(proc: Path = PROC) -> bool:
    """Return True if process numbers are the machine's, not those of a container."""
    try:
        return os.readlink(proc / "self" / "ns" / "pid") == f"pid:[{FIRST_NAMESPACE}]"
    except OSError:
        return True  # systems without namespaces


@cache
def _threads_list_children() -> bool:
    """Return True if this kernel lists the children of a thread, which saves a look at every process."""
    return os.path.exists(f"{PROC}/self/task/{os.getpid()}/children")


def _children(pid: int) -> list[int]:
    """Return the children started by the threads of a process; empty if it has ended."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it ended during the reading
        for thread in os.listdir(f"{PROC}/{pid}/task"):
            with open(f"{PROC}/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    return found


def _descendants(pid: int) -> set[int]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return set()


@dataclass(frozen=True, slots=True)
class State:
    """Reading of one process; CPU time and faults since its start, faults None if unavailable."""

    rss_bytes: int
    cpu_s: float
    threads: int
    minor_faults: int | None = None
    major_faults: int | None = None


class LinuxProcess:
    """Process in /proc. Its `stat` stays open: cheap to read again, and never another process of the same number.

    Methods raise ProcessLookupError once it has ended, PermissionError if access is refused, NotImplementedError if the
    system lacks the value.
    """

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self._folder = f"{proc}/{pid}"
        with errors_translated():
            self._stat = KeptFile(f"{self._folder}/stat", 1024)
        self._io: KeptFile | None = None

    def state(self) -> State:
        text = self._stat.read()
        fields = text[text.rindex(b")") + 2 :].split(b" ", _PAGES + 1)
        if fields[0] in _ENDED:
            raise ProcessLookupError
        ticks = int(fields[_USER]) + int(fields[_SYSTEM])
        rss_bytes, threads = int(fields[_PAGES]) * PAGE_BYTES, int(fields[_THREADS])
        return State(rss_bytes, ticks / TICKS_PER_S, threads, int(fields[_MINOR]), int(fields[_MAJOR]))

    def pss_bytes(self) -> int:
        """Read the proportional memory (PSS): shared pages are divided among their users.

        The kernel walks the page tables: about a millisecond per 100 MB.
        """
        with contextlib.closing(self._opened("smaps_rollup")) as file:
            found = file.numbers(b"Pss")
        if not found:
            raise ProcessLookupError  # the file of an ending process is empty
        return found["Pss"] * 1024

    def disk(self) -> tuple[int, int]:
        """Read (bytes read, bytes written) of storage since the start."""
        self._io = self._io or self._opened("io")
        found = self._io.numbers(b"read_bytes", b"write_bytes")
        return found["read_bytes"], found["write_bytes"]

    def _opened(self, name: str) -> KeptFile:
        try:
            return KeptFile(f"{self._folder}/{name}")
        except FileNotFoundError:
            self.state()  # raises if the process is missing
            raise NotImplementedError(f"this system has no /proc/<pid>/{name}") from None

    def close(self) -> None:
        self._stat.close()
        if self._io is not None:
            self._io.close()


class OtherProcess:
    """Process by psutil, on other systems; raises as `LinuxProcess`."""

    def __init__(self, pid: int) -> None:
        with errors_translated():
            self._process = psutil.Process(pid)

    def state(self) -> State:
        with errors_translated(), self._process.oneshot():
            if self._process.status() == psutil.STATUS_ZOMBIE:
                raise ProcessLookupError
            times = self._process.cpu_times()
            rss_bytes = int(self._process.memory_info().rss)
            return State(rss_bytes, times.user + times.system, self._process.num_threads())

    def pss_bytes(self) -> int:
        raise NotImplementedError("proportional memory (PSS) exists on Linux only")

    def disk(self) -> tuple[int, int]:
        with errors_translated():
            if not hasattr(self._process, "io_counters"):
                raise NotImplementedError("this system does not report the disk traffic of a process")
            counters = self._process.io_counters()
            return counters.read_bytes, counters.write_bytes

    def close(self) -> None:
        """Release nothing."""


Process = LinuxProcess | OtherProcess


@contextlib.contextmanager
def errors_translated() -> Iterator[None]:
    """Translate psutil's errors: ProcessLookupError for an ended process, PermissionError for a refused one."""
    try:
        yield
    except psutil.AccessDenied as error:
        raise PermissionError from error
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError from error


def opened(pid: int) -> Process:
    """Open a process for reading. Raises ProcessLookupError if it has ended."""
    try:
        return LinuxProcess(pid) if (PROC / "self" / "stat").exists() else OtherProcess(pid)
    except FileNotFoundError:
        raise ProcessLookupError from None


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of processes together; shared pages count once per process."""
    total = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError), contextlib.closing(opened(pid)) as process:
            total += process.state().rss_bytes
    return total


class Together:
    """Several processes as one: sums over the living ones.

    Counters only grow. They include ended processes, and a process that was missing for a while continues its count.
    unread: reasons for unavailable readings.
    """

    def __init__(self) -> None:
        self._processes: dict[int, Process] = {}
        self._last: dict[int, tuple[State, int]] = {}
        self._counted: dict[int, dict[str, int]] = defaultdict(dict)  # of all processes, ended ones included
        self._totals: dict[str, int] = defaultdict(int)
        self._threads = 0
        self.unread: dict[str, str] = {}

    def follow(self, pids: set[int]) -> None:
        """Replace the set of processes."""
        for pid in self._processes.keys() - pids:
            self._drop(pid)
        for pid in pids - self._processes.keys():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._processes[pid] = opened(pid)

    def close(self) -> None:
        self.follow(set())

    def fast(self) -> dict[str, float]:
        """Return rss_bytes and, from the second reading on, cpu_share (cores in use since the last reading).

        Empty if no process lives.
        """
        rss, cores = 0, 0.0
        known = compared = False
        self._threads = 0
        for pid, process in list(self._processes.items()):
            try:
                state = process.state()
            except (ProcessLookupError, PermissionError) as error:
                self._report("memory and processor time", error)
                self._drop(pid)
                continue
            now_ns = time.monotonic_ns()
            known = True
            rss += state.rss_bytes
            self._threads += state.threads
            if (before := self._last.get(pid)) is not None and now_ns > before[1]:
                cores += (state.cpu_s - before[0].cpu_s) / (now_ns - before[1]) * 1e9
                compared = True
            if state.minor_faults is not None and state.major_faults is not None:
                self._count(pid, major_faults=state.major_faults, minor_faults=state.minor_faults)
            self._last[pid] = state, now_ns
        return ({"rss_bytes": rss} if known else {}) | ({"cpu_share": cores} if compared else {})

    def slow(self) -> dict[str, float]:
        """Return threads and faults as of the last fast reading, and read_bytes, written_bytes of disks."""
        if not self._processes:
            return {}
        found: dict[str, float] = {"threads": self._threads}
        found |= {name: self._totals[name] for name in ("major_faults", "minor_faults") if name in self._totals}
        disks = self._read_each("disk traffic", methodcaller("disk"))
        if disks is not None:
            for pid, (read, written) in disks.items():
                self._count(pid, read_bytes=read, written_bytes=written)
            found |= {name: self._totals[name] for name in ("read_bytes", "written_bytes")}
        return found

    def proportional(self) -> dict[str, float]:
        """Return pss_bytes, proportional memory; empty if one process does not report it."""
        sizes = self._read_each("proportional memory (PSS)", methodcaller("pss_bytes"))
        return {"pss_bytes": sum(sizes.values())} if sizes else {}

    def _read_each(self, what: str, read: Callable[[Process], Any]) -> dict[int, Any] | None:
        """Return a value of every living process, by process number; None if one refuses."""
        found, whole = {}, True
        for pid, process in self._processes.items():
            try:
                found[pid] = read(process)
            except ProcessLookupError:
                continue  # dropped by the next fast reading
            except (NotImplementedError, PermissionError) as error:
                self._report(what, error)
                whole = False
        return found if whole else None

    def _report(self, what: str, error: Exception) -> None:
        if not isinstance(error, ProcessLookupError):
            why = str(error) if isinstance(error, NotImplementedError) else "access to one of the processes is denied"
            self.unread.setdefault(what, f"{what} cannot be read: {why}")

    def _count(self, pid: int, **counters: int) -> None:
        """Add the growth of a process's counters.

        If a counter is smaller than before, another process has the same number; then all of it is growth.
        """
        before = self._counted[pid]
        another = any(now < before.get(name, 0) for name, now in counters.items())
        for name, now in counters.items():
            self._totals[name] += now if another else now - before.get(name, 0)
        before.update(counters)

    def _drop(self, pid: int) -> None:
        if (process := self._processes.pop(pid, None)) is not None:
            process.close()
        self._last.pop(pid, None)
