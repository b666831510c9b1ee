"""Readings of a group of processes (memory, CPU time, page faults, disk traffic), and the search for descendants."""

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
    """Return the living processes of these, with all their descendants."""
    roots = [pid for pid in pids if psutil.pid_exists(pid)]
    if not roots:
        return set()
    return _by_their_threads(roots, proc) if _threads_list_children(str(proc)) else _by_their_parents(roots, proc)


def numbers_are_the_machines(proc: Path = PROC) -> bool:
    """Return True if process numbers are the machine's, not those of a container."""
    try:
        return os.readlink(proc / "self" / "ns" / "pid") == f"pid:[{FIRST_NAMESPACE}]"
    except OSError:
        return True  # systems without namespaces


@cache
def _threads_list_children(proc: str) -> bool:
    """Return True if this kernel lists the children of a thread, which saves a look at every process."""
    return os.path.exists(f"{proc}/self/task/{os.getpid()}/children")


def _by_their_threads(roots: Iterable[int], proc: Path) -> set[int]:
    return _all_below(roots, lambda pid: _children_of(f"{proc}/{pid}/task"))


def _all_below(roots: Iterable[int], children_of: Callable[[int], Iterable[int]]) -> set[int]:
    """Return the roots and all their descendants."""
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children_of(pid)
    return found


def _children_of(tasks: str) -> list[int]:
    """Return the children started by the threads of a process; empty if it has ended."""
    found: list[int] = []
    try:
        for thread in os.listdir(tasks):
            found += map(int, _content(f"{tasks}/{thread}/children").split())
    except OSError:
        return found  # it ended during the reading
    return found


def _by_their_parents(roots: Iterable[int], proc: Path) -> set[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for pid, parent in parents(proc).items():
        children[parent].append(pid)
    return _all_below(roots, children.__getitem__)


def parents(proc: Path = PROC) -> dict[int, int]:
    """Return the parent of every visible process."""
    if not (proc / "self" / "stat").exists():
        return {process.pid: process.info["ppid"] for process in psutil.process_iter(["ppid"])}
    found = {}
    for name in os.listdir(proc):
        if name.isdecimal():
            try:
                stat = _content(f"{proc}/{name}/stat")
            except OSError:
                continue  # it ended after the listing
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
    """Reading of one process; CPU time and faults since its start, faults None if unavailable."""

    rss_bytes: int
    cpu_s: float
    threads: int
    minor_faults: int | None = None
    major_faults: int | None = None


class Process(Protocol):
    """Single process. Methods raise ProcessLookupError once it has ended, PermissionError if access is refused."""

    def state(self) -> State:
        """Read the cheap values."""
        ...

    def pss_bytes(self) -> int:
        """Read the proportional memory (PSS): shared pages are divided among their users.

        It walks the page tables: about a millisecond per 100 MB. Raises NotImplementedError if unsupported.
        """
        ...

    def disk(self) -> tuple[int, int]:
        """Read (bytes read, bytes written) of storage since the start. Raises NotImplementedError if unsupported."""
        ...

    def close(self) -> None:
        """Close the files."""
        ...


class LinuxProcess:
    """Process in /proc. Its `stat` stays open: cheap to read again, and never another process of the same number."""

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
        file = self._opened("smaps_rollup")
        try:
            found = file.numbers(b"Pss")
        finally:
            file.close()
        if not found:
            raise ProcessLookupError  # the file of an ending process is empty
        return found["Pss"] * 1024

    def disk(self) -> tuple[int, int]:
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
    """Process by psutil, on other systems."""

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
        with contextlib.suppress(ProcessLookupError, PermissionError):
            process = opened(pid)
            try:
                total += process.state().rss_bytes
            finally:
                process.close()
    return total


class Together:
    """Several processes as one: sums over the living ones.

    Counters only grow. They include ended processes, and a process that was missing for a while continues its count.
    unread: reasons for unavailable readings.
    """

    def __init__(self) -> None:
        self._processes: dict[int, Process] = {}
        self._last: dict[int, tuple[State, int]] = {}
        self._faults: dict[int, tuple[int, int]] = {}  # of all processes, ended ones included
        self._disk: dict[int, tuple[int, int]] = {}  # likewise
        self._minor = self._major = self._read = self._written = 0
        self._faults_known = False
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
        """Return threads and faults as of the last fast reading, and read_bytes, written_bytes of disks."""
        if not self._processes:
            return {}
        found: dict[str, float] = {"threads": self._threads}
        if self._faults_known:
            found |= {"major_faults": self._major, "minor_faults": self._minor}
        if self._each("disk traffic", self._add_disk):
            found |= {"read_bytes": self._read, "written_bytes": self._written}
        return found

    def proportional(self) -> dict[str, float]:
        """Return pss_bytes, proportional memory; empty if one process does not report it."""
        sizes: list[int] = []
        whole = self._each("proportional memory (PSS)", lambda _, process: sizes.append(process.pss_bytes()))
        return {"pss_bytes": sum(sizes)} if whole and sizes else {}

    def _each(self, what: str, read: Callable[[int, Process], None]) -> bool:
        """Read a value of every process; return True if none refused."""
        whole = True
        for pid, process in self._processes.items():
            try:
                read(pid, process)
            except ProcessLookupError:
                continue  # dropped by the next fast reading
            except (NotImplementedError, PermissionError) as error:
                self._refused(pid, what, error)
                whole = False
        return whole

    def _refused(self, pid: int, what: str, error: Exception) -> None:
        if not isinstance(error, ProcessLookupError):
            why = str(error) if isinstance(error, NotImplementedError) else "access to one of the processes is denied"
            self.unread.setdefault(what, f"{what} cannot be read: {why}")

    def _count_faults(self, pid: int, state: State) -> None:
        if state.minor_faults is not None and state.major_faults is not None:
            self._faults_known = True
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
    """Return the growth of two counters of a process since the last reading, and store the present values.

    If a counter is smaller than before, another process has the same number; then all of it is growth.
    """
    before = counted.get(pid, (0, 0))
    counted[pid] = now
    if now[0] < before[0] or now[1] < before[1]:
        return now
    return now[0] - before[0], now[1] - before[1]
