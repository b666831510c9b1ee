"""Readings of memory, processors and GPUs, taken from outside the process that generates or sends the load.

Everything here is a reading of this machine. What cannot be read is said once, in `Sampler.unread`, and is absent from
the samples: it is never a zero.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator

import psutil

from harness.gpus import find_gpus
from harness.records import Sample

TREE_REFRESH_S = 1.0


def tree(pids: Iterable[int]) -> set[int]:
    """These processes and all their descendants, as far as they live."""
    members: set[int] = set()
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            members.add(pid)
            members.update(child.pid for child in process.children(recursive=True))
    return members


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of processes together; shared pages count once per process."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += psutil.Process(pid).memory_info().rss
    return total


class Sampler:
    """Reads the engine's processes, the client's, the host and the GPUs.

    client_pid: the process that sends the load, with its descendants (load processes) but not the engine's; None when
    the engine runs inside it. scope: "server", or "client" when the server is on another machine. `watch` names the
    engine's processes; their descendants are found.
    """

    def __init__(self, sink: Callable[[Sample], None], *, client_pid: int | None, scope: str = "server") -> None:
        self._sink = sink
        self._scope = scope
        self._client_pid = client_pid
        self._engine_pids: tuple[int, ...] = ()
        self._trees: dict[str, set[int]] = {}
        self._tree_read_s = 0.0
        self._processes: dict[int, psutil.Process] = {}
        self._gpus, reason = find_gpus()
        self.unread = [reason] if reason else []
        self._others_on_gpus: int | None = None
        psutil.cpu_percent()  # the first call only sets the starting point

    def watch(self, engine_pids: Iterable[int], client_pid: int | None) -> None:
        """Change whose memory counts as the engine's and as the client's."""
        self._engine_pids, self._client_pid = tuple(engine_pids), client_pid
        self._tree_read_s = 0.0

    def take_others_on_gpus(self) -> int | None:
        """The most processes that computed on the GPUs and are not ours, since this was asked last; None: not read."""
        most, self._others_on_gpus = self._others_on_gpus, None
        return most

    def sample(self) -> None:
        """Take one reading of everything."""
        at_ns = time.monotonic_ns()
        self._refresh_trees()
        for source, pids in self._trees.items():
            if pids:
                self._emit(at_ns, source, "rss_bytes", self._resident(pids))
                self._emit(at_ns, source, "cpu_share", self._cpu(pids))
        memory = psutil.virtual_memory()
        self._emit(at_ns, "host", "memory_used_bytes", memory.total - memory.available)
        self._emit(at_ns, "host", "memory_used_share", 1 - memory.available / memory.total)
        self._emit(at_ns, "host", "cpu_share", psutil.cpu_percent() / 100)
        if self._gpus:
            for reading in self._gpus.samples(at_ns):
                self._emit(reading.at_ns, reading.source, reading.name, reading.value)

    def _emit(self, at_ns: int, source: str, name: str, value: float) -> None:
        scope = "client" if source == "client" else self._scope
        self._sink(Sample(at_ns, source, name, float(value), scope))

    def _refresh_trees(self) -> None:
        """Finding descendants walks all of /proc, so it is done once a second."""
        if time.monotonic() - self._tree_read_s < TREE_REFRESH_S:
            return
        self._tree_read_s = time.monotonic()
        engine = tree(self._engine_pids)
        client = tree([self._client_pid]) - engine if self._client_pid else set()
        self._trees = {"engine": engine, "client": client}
        if self._gpus and engine:  # else the engine's own process is not known to be it
            # A driver may tell the numbers that processes have outside of this container: those are not found here.
            found = {pid for pid in self._gpus.processes() - engine - client if psutil.pid_exists(pid)}
            self._others_on_gpus = max(len(found), self._others_on_gpus or 0)
        self._processes = {
            pid: self._processes.get(pid) or psutil.Process(pid) for pid in self._existing(engine | client)
        }

    @staticmethod
    def _existing(pids: set[int]) -> list[int]:
        return [pid for pid in pids if psutil.pid_exists(pid)]

    def _each(self, pids: set[int]) -> Iterator[psutil.Process]:
        return (self._processes[pid] for pid in pids if pid in self._processes)

    def _resident(self, pids: set[int]) -> float:
        total = 0
        for process in self._each(pids):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.memory_info().rss
        return total

    def _cpu(self, pids: set[int]) -> float:
        """Cores in use since the last reading (1.0 is one whole core)."""
        total = 0.0
        for process in self._each(pids):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += process.cpu_percent() / 100
        return total
