"""Readings of processes together: memory, processor time, page faults, files read and written.

Which processes belong together: some, and all that descend from them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import psutil

from harness.telemetry.procfs import KeptFile

PROC = Path("/proc")
FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO of the kernel


def tree(pids: Iterable[int], proc: Path = PROC) -> set[int]:
    """These processes and all their descendants, as far as they live."""
    roots = [pid for pid in pids if psutil.pid_exists(pid)]
    if not roots:
        return set()
    return _by_their_threads(roots, proc) if _threads_tell(str(proc)) else _by_their_parents(roots, proc)


def numbers_are_the_machines(proc: Path = PROC) -> bool:
    """Whether processes have the same numbers here as for drivers: not in a container with numbers of its own."""
    try:
        return os.readlink(proc / "self" / "ns" / "pid") == f"pid:[{FIRST_NAMESPACE}]"
    except OSError:
        return True  # systems without namespaces


@cache
def _threads_tell(proc: str) -> bool:
    """Whether this kernel lists the children of a thread, so that nobody else need be looked at."""
    return os.path.exists(f"{proc}/self/task/{os.getpid()}/children")


def _by_their_threads(roots: Iterable[int], proc: Path) -> set[int]:
    return _all_below(roots, lambda pid: _children_of(f"{proc}/{pid}/task"))


def _all_below(roots: Iterable[int], children_of: Callable[[int], Iterable[int]]) -> set[int]:
    """The roots, their children, and so on."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children_of(pid)
    return found


def _children_of(tasks: str) -> list[int]:
    """The children that the threads of a process started; none of one that has ended."""
    found: list[int] = []
    try:
        for thread in os.listdir(tasks):
            found += map(int, _content(f"{tasks}/{thread}/children").split())
    except OSError:
        return found  # it ends while it is looked at
    return found


def _by_their_parents(roots: Iterable[int], proc: Path) -> set[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in parents(proc).items():
        children[parent].append(pid)
    return _all_below(roots, children.__getitem__)


def parents(proc: Path = PROC) -> dict[int, int]:
    """The parent of every process that can be seen."""
    if not (proc / "self" / "stat").exists():
        return {process.pid: process.info["ppid"] for process in psutil.process_iter(["ppid"])}
    found = {}
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                stat = _content(f"{proc}/{name}/stat")
            except OSError:
                continue  # it has ended since it was listed
            behind_name = stat.rindex(b")") + 4
            found[int(name)] = int(stat[behind_name : stat.index(b" ", behind_name)])
    return found


def _content(path: str) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, 4096)
    finally:
        os.close(file)


PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_MINOR, _MAJOR, _USER, _SYSTEM, _THREADS, _PAGES = 7, 9, 11, 12, 17, 21
_ENDED = (b"Z", b"X")


@dataclass(frozen=True, slots=True)
class State:
    """One reading of one process; cpu_s and the faults since it began, the latter None where they are not told."""

    rss_bytes: int
    cpu_s: float
    threads: int
    minor_faults: int | None = None
    major_faults: int | None = None


class Process(Protocol):
    """One process. Every method raises ProcessLookupError once it has ended, PermissionError where it is refused."""

    def state(self) -> State:
        """What is cheap to read."""
        ...

    def pss_bytes(self) -> int:
        """Its memory, what it shares with others divided among them; walks its page tables, which takes a
        millisecond for about 100 MB. Raises NotImplementedError where the system does not tell.
        """
        ...

    def disk(self) -> tuple[int, int]:
        """(bytes read from, bytes written to) storage since it began. Raises NotImplementedError like `pss_bytes`."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class LinuxProcess:
    """By /proc, its `stat` kept open: cheap to read again, and never another process of the same number."""

    def __init__(self, pid: int, proc: Path = PROC) -> None:
        self._folder = f"{proc}/{pid}"
        with gone_is_gone():
            self._stat = KeptFile(f"{self._folder}/stat", 1024)
        self._io: KeptFile | None = None

    def state(self) -> State:
        """See Process."""
        text = self._stat.read()
        fields = text[text.rindex(b")") + 2 :].split(b" ", _PAGES + 1)
        if fields[0] in _ENDED:
            raise ProcessLookupError
        ticks = int(fields[_USER]) + int(fields[_SYSTEM])
        rss_bytes, threads = int(fields[_PAGES]) * PAGE_BYTES, int(fields[_THREADS])
        return State(rss_bytes, ticks / TICKS_PER_S, threads, int(fields[_MINOR]), int(fields[_MAJOR]))

    def pss_bytes(self) -> int:
        """See Process."""
        file = self._opened("smaps_rollup")
        try:
            found = file.numbers(b"Pss")
        finally:
            file.close()
        if not found:
            raise ProcessLookupError  # of one that ends it is empty
        return found["Pss"] * 1024

    def disk(self) -> tuple[int, int]:
        """See Process."""
        self._io = self._io or self._opened("io")
        found = self._io.numbers(b"read_bytes", b"write_bytes")
        return found["read_bytes"], found["write_bytes"]

    def _opened(self, name: str) -> KeptFile:
        try:
            return KeptFile(f"{self._folder}/{name}")
        except FileNotFoundError:
            self.state()  # raises where it is the process that is missing
            raise NotImplementedError(f"this system has no /proc/<pid>/{name}") from None

    def close(self) -> None:
        """See Process."""
        self._stat.close()
        if self._io is not None:
            self._io.close()


class OtherProcess:
    """By psutil, on other systems."""

    def __init__(self, pid: int) -> None:
        with gone_is_gone():
            self._process = psutil.Process(pid)

    def state(self) -> State:
        """See Process."""
        with gone_is_gone(), self._process.oneshot():
            if self._process.status() == psutil.STATUS_ZOMBIE:
                raise ProcessLookupError
            times = self._process.cpu_times()
            rss_bytes = int(self._process.memory_info().rss)
            return State(rss_bytes, times.user + times.system, self._process.num_threads())

    def pss_bytes(self) -> int:
        """See Process."""
        raise NotImplementedError("proportional memory (PSS) is told on Linux only")

    def disk(self) -> tuple[int, int]:
        """See Process."""
        with gone_is_gone():
            if not hasattr(self._process, "io_counters"):
                raise NotImplementedError("this system does not tell what a process reads and writes")
            counters = self._process.io_counters()
            return counters.read_bytes, counters.write_bytes

    def close(self) -> None:
        """See Process."""


@contextlib.contextmanager
def gone_is_gone() -> Iterator[None]:
    """A process that ended is a ProcessLookupError, one that may not be read a PermissionError, whoever says so."""
    try:
        yield
    except psutil.AccessDenied as error:
        raise PermissionError from error
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError from error


def opened(pid: int) -> Process:
    """A process, to be read. Raises ProcessLookupError where it has ended."""
    try:
        return LinuxProcess(pid) if (PROC / "self" / "stat").exists() else OtherProcess(pid)
    except FileNotFoundError:
        raise ProcessLookupError from None


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of processes together; shared pages count once per process."""
    total = 0
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            process = opened(pid)
            try:
                total += process.state().rss_bytes
            finally:
                process.close()
    return total


class Together:
    """Several processes as one: sums over those that live.

    Counters only grow: what a process that ended had counted stays in them, and one that was not found for a while goes
    on where it was. unread: what could not be read, and why.
    """

    def __init__(self) -> None:
        self._processes: dict[int, Process] = {}
        self._last: dict[int, tuple[State, int]] = {}
        self._faults: dict[int, tuple[int, int]] = {}  # of all that ever were
        self._disk: dict[int, tuple[int, int]] = {}  # as well
        self._minor = self._major = self._read = self._written = 0
        self._faults_told = False
        self._threads = 0
        self.unread: dict[str, str] = {}

    def follow(self, pids: set[int]) -> None:
        """From now on these."""
        for pid in self._processes.keys() - pids:
            self._drop(pid)
        for pid in pids - self._processes.keys():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self._processes[pid] = opened(pid)

    def close(self) -> None:
        """Let go of all."""
        self.follow(set())

    def fast(self) -> dict[str, float]:
        """rss_bytes and, from the second reading on, cpu_share (cores in use since the one before). Empty where none
        lives.
        """
        rss, cores = 0, 0.0
        known = compared = False
        self._threads = 0
        for pid, process in list(self._processes.items()):
            try:
                state = process.state()
            except (ProcessLookupError, PermissionError) as error:
                self._refused(pid, "memory and processor time", error)
                self._drop(pid)
                continue
            now_ns = time.monotonic_ns()
            known = True
            rss += state.rss_bytes
            self._threads += state.threads
            if (before := self._last.get(pid)) is not None and now_ns > before[1]:
                cores += (state.cpu_s - before[0].cpu_s) / (now_ns - before[1]) * 1e9
                compared = True
            self._count_faults(pid, state)
            self._last[pid] = state, now_ns
        return ({"rss_bytes": rss} if known else {}) | ({"cpu_share": cores} if compared else {})

    def slow(self) -> dict[str, float]:
        """threads, major_faults, minor_faults as of the last fast reading; read_bytes and written_bytes of disks."""
        if not self._processes:
            return {}
        found: dict[str, float] = {"threads": self._threads}
        if self._faults_told:
            found |= {"major_faults": self._major, "minor_faults": self._minor}
        if self._each("disk traffic", self._add_disk):
            found |= {"read_bytes": self._read, "written_bytes": self._written}
        return found

    def proportional(self) -> dict[str, float]:
        """pss_bytes: memory with shared pages divided among those who share them; absent where one does not tell."""
        sizes: list[int] = []
        whole = self._each("proportional memory (PSS)", lambda _, process: sizes.append(process.pss_bytes()))
        return {"pss_bytes": sum(sizes)} if whole and sizes else {}

    def _each(self, what: str, read: Callable[[int, Process], None]) -> bool:
        """Read something of every process; whether none refused it."""
        whole = True
        for pid, process in self._processes.items():
            try:
                read(pid, process)
            except ProcessLookupError:
                continue  # the next fast reading drops it
            except (NotImplementedError, PermissionError) as error:
                self._refused(pid, what, error)
                whole = False
        return whole

    def _refused(self, pid: int, what: str, error: Exception) -> None:
        if not isinstance(error, ProcessLookupError):
            why = str(error) if isinstance(error, NotImplementedError) else "a process of it may not be read"
            self.unread.setdefault(what, f"{what} cannot be read: {why}")

    def _count_faults(self, pid: int, state: State) -> None:
        if state.minor_faults is not None and state.major_faults is not None:
            self._faults_told = True
            minor, major = _grown(self._faults, pid, (state.minor_faults, state.major_faults))
            self._minor, self._major = self._minor + minor, self._major + major

    def _add_disk(self, pid: int, process: Process) -> None:
        read, written = _grown(self._disk, pid, process.disk())
        self._read, self._written = self._read + read, self._written + written

    def _drop(self, pid: int) -> None:
        if (process := self._processes.pop(pid, None)) is not None:
            process.close()
        self._last.pop(pid, None)


def _grown(counted: dict[int, tuple[int, int]], pid: int, now: tuple[int, int]) -> tuple[int, int]:
    """By how much two counters of a process grew since they were counted last, which is from here on `now`; all of them
    where they are smaller than before: it is another process of the same number.
    """
    before = counted.get(pid, (0, 0))
    counted[pid] = now
    if now[0] < before[0] or now[1] < before[1]:
        return now
    return now[0] - before[0], now[1] - before[1]
