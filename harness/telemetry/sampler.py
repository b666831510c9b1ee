"""Periodic readings of this machine's memory, processors and GPUs, outside the process that sends the load.

An unavailable reading is reported once in `Sampler.unread` and is absent from the samples, never zero. Readings are
taken at absolute ticks on a thread of their own. Missed ticks are counted and skipped, never caught up in a burst.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

from engines.cores import OWN, ROOT
from harness.records import Sample
from harness.telemetry.cgroup import Group
from harness.telemetry.gpus import find_gpus
from harness.telemetry.gpus.base import Gpus
from harness.telemetry.host import Host
from harness.telemetry.processes import PROC, Together, numbers_are_the_machines, tree

T = TypeVar("T")
LONGEST_SLEEP_S = 0.1
SLOW_S = 1.0
TREES_S = 2.0
START_TREES_S = 0.2  # during an engine's start there is no measurement to disturb
MOST_OF_A_CORE = 0.0005
NOT_IDENTIFIED = (
    "processes on the GPUs cannot be identified: the driver lists the machine's process numbers, "
    "and this container has its own"
)
_GLANCE = {"memory_used_bytes": "gpu_memory_bytes", "memory_total_bytes": "gpu_memory_total_bytes"}


@dataclass(slots=True)
class Pace:
    """Statistics of the ticks so far."""

    begun_ns: int
    interval_ns: int
    ticks: int = 0
    late_ticks: int = 0  # skipped, or begun over half an interval late
    late_ms: float = 0.0  # of the present tick
    cpu_ns: int = 0  # of the thread
    ended_ns: int = 0
    _number: int = 0

    @property
    def due_ns(self) -> int:
        return self.begun_ns + self._number * self.interval_ns

    def begins(self, now_ns: int) -> None:
        """Count the start of the tick that is due."""
        self.ticks += 1
        self.late_ms = (now_ns - self.due_ns) / 1e6
        self.late_ticks += now_ns - self.due_ns > self.interval_ns / 2

    def ended(self, now_ns: int, cpu_ns: int) -> None:
        """Count the end of the tick; the next one is the first in the future."""
        self.ended_ns, self.cpu_ns = now_ns, cpu_ns
        following = max(self._number + 1, (now_ns - self.begun_ns) // self.interval_ns + 1)
        self.late_ticks += following - self._number - 1
        self._number = following

    def summary(self) -> dict[str, Any]:
        """Return the manifest's entry: interval_s, ticks, late_ticks, cpu_share (of one core), ms_per_tick."""
        lasted_ns = self.ended_ns - self.begun_ns
        return {
            "interval_s": self.interval_ns / 1e9,
            "ticks": self.ticks,
            "late_ticks": self.late_ticks,
            "cpu_share": self.cpu_ns / lasted_ns if lasted_ns > 0 else None,
            "ms_per_tick": self.cpu_ns / self.ticks / 1e6 if self.ticks else None,
        }


class Ticker:
    """Caller of an action at every tick, at least once, until `stop`, which returns the action's exception."""

    def __init__(self, action: Callable[[Pace], None], interval_s: float) -> None:
        self._action = action
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self.pace = Pace(time.monotonic_ns(), max(1, round(interval_s * 1e9)))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> Exception | None:
        """Wait for the present tick, take no more, and return the exception of the action, if there was one."""
        self._ended.set()
        self._thread.join()
        return self._failure

    def _run(self) -> None:
        before_ns = time.thread_time_ns()
        try:
            while True:
                self.pace.begins(time.monotonic_ns())
                self._action(self.pace)
                self.pace.ended(time.monotonic_ns(), time.thread_time_ns() - before_ns)
                if not self._wait():
                    return
        except Exception as error:
            self._failure = error

    def _wait(self) -> bool:
        """Sleep until the next tick; return False at the end. A plain sleep costs half of a lock's wait."""
        while not self._ended.is_set() and (left_ns := self.pace.due_ns - time.monotonic_ns()) > 0:
            time.sleep(min(left_ns / 1e9, LONGEST_SLEEP_S))
        return not self._ended.is_set()


class Paced:
    """Due times of a reading: at a fixed interval, or rarer to stay below a share of a core."""

    def __init__(self, every_s: float, share: float) -> None:
        self._every_ns, self._share = round(every_s * 1e9), share
        self._next_ns = 0

    def due(self, now_ns: int) -> bool:
        return now_ns >= self._next_ns

    def at_once(self) -> None:
        """Make the reading due now."""
        self._next_ns = 0

    def read(self, reading: Callable[[], T]) -> T:
        """Take the reading and measure its cost."""
        now_ns, before_ns = time.monotonic_ns(), time.thread_time_ns()
        found = reading()
        self.took(now_ns, time.thread_time_ns() - before_ns)
        return found

    def took(self, now_ns: int, cost_ns: int) -> None:
        """Store the start and the CPU time of a reading."""
        self._next_ns = now_ns + max(self._every_ns, round(cost_ns / self._share))


@dataclass(frozen=True, slots=True)
class _Watched:
    """Processes of the engine: these and all their descendants, or (`below`) the descendants only."""

    engine_pids: tuple[int, ...]
    client_pid: int | None
    below: bool = False


class Sampler:
    """Sampler of the engine's processes, the load generator's, the host, the control group and the GPUs.

    `sample` is called on one thread, everything else from any. Fast values (memory and CPU time of the engine, GPUs)
    are read every time, the rest once a second; PSS and descendants more rarely if they take long. `watch` names the
    engine's processes; their descendants are found.

    Args:
        sink: Receives the samples.
        client_pid: Process that sends the load, with its descendants except the engine's; None: engine in process.
        scope: "server", or "client" if the server is on another machine.
        gpus: Numbers of the GPUs, as the driver counts; None: all, (): none.
        beside: Processes that are not counted as foreign, for they wait while the engine works; more may be added.
    """

    def __init__(
        self,
        sink: Callable[[Sample], None],
        *,
        client_pid: int | None,
        scope: str = "server",
        gpus: Collection[int] | None = None,
        beside: Collection[int] = (),
    ) -> None:
        self._sink, self._beside = sink, beside
        self.scope = scope
        self._watched = _Watched((), client_pid)
        self._following: _Watched | None = None
        self._together = {"engine": Together(), "client": Together()}
        self._members: dict[str, set[int]] = {"engine": set(), "client": set()}
        self._host, self._group = Host(), Group()
        no_gpu = None, "no GPU was read: the engine is given none"
        self._gpus, reason = no_gpu if gpus is not None and not gpus else find_gpus(gpus)
        self.unread = [reason] if reason else []
        self._trees, self._pss = Paced(TREES_S, MOST_OF_A_CORE), Paced(SLOW_S, MOST_OF_A_CORE)
        self._slow_ns = self._trees_ns = self._own_ns = self._own_cpu_ns = 0
        self._latest_ms = 0.0
        self._others_on_gpus: int | None = None
        self._glance: dict[str, float] = {}
        self._engines_gpus: set[str] = set()
        self._lock = threading.Lock()

    def watch(self, engine_pids: Iterable[int], client_pid: int | None) -> None:
        """Set the processes of the engine and of the load generator."""
        self._watched = _Watched(tuple(engine_pids), client_pid)

    def watch_start(self, child_pid: int, *, in_process: bool) -> None:
        """Set the process that starts its engine, in itself or in processes below it, which are found quickly."""
        self._watched = _Watched((child_pid,), None) if in_process else _Watched((child_pid,), child_pid, below=True)

    def take_others_on_gpus(self) -> int | None:
        """Return the largest number of foreign processes on the GPUs since the last call; None: not read."""
        with self._lock:
            most, self._others_on_gpus = self._others_on_gpus, None
        return most

    def glance(self) -> dict[str, float]:
        """Return the last rss_bytes of the engine, and gpu_memory_bytes and gpu_memory_total_bytes of its GPUs.

        If its GPUs are unknown, all GPUs that are read count. Unavailable values are absent. If the server is on
        another machine, all are absent.
        """
        return dict(self._glance) if self.scope == "server" else {}

    def sample(self, pace: Pace | None = None) -> None:
        """Take all readings that are due. pace: statistics of the ticks, to report their cost."""
        now_ns = time.monotonic_ns()
        self._refresh_trees(now_ns)
        slow = now_ns - self._slow_ns >= 0.99 * SLOW_S * 1e9
        if slow:
            self._slow_ns = now_ns
        engine = self._read("engine", self._together["engine"].fast)
        glance = {"rss_bytes": float(engine["rss_bytes"])} if "rss_bytes" in engine else {}
        if self._gpus:
            glance |= self._read_gpus(self._gpus)
        if slow:
            self._read_slowly()
        if pace is not None:
            self._emit_own_cost(pace, slow)
        self._glance = self._glance | glance

    def close(self) -> None:
        """Close the files and report the unavailable readings."""
        self._collect_unread()
        for processes in self._together.values():
            processes.close()
        self._host.close()
        self._group.close()

    def _read(self, source: str, read: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """Emit readings taken together, with their common moment and width."""
        before_ns = time.monotonic_ns()
        values = read()
        after_ns = time.monotonic_ns()
        scope = "client" if source in ("client", "sampler") else self.scope
        for name, value in values.items():
            at_ns, width_ns = (before_ns + after_ns) // 2, after_ns - before_ns
            self._sink(Sample(at_ns, source, name, float(value), scope, width_ns))
        return values

    def _read_gpus(self, gpus: Gpus) -> dict[str, float]:
        """Emit the readings of the GPUs; return the memory of the engine's together, of all if they are unknown."""
        readings = list(gpus.samples(self._members["engine"]))
        self._engines_gpus |= {one.source for one in readings if one.name == "engine_memory_bytes" and one.value > 0}
        seen: dict[str, float] = {}
        for one in readings:
            self._sink(Sample(one.at_ns, one.source, one.name, one.value, self.scope, one.width_ns))
            if one.name in _GLANCE and (not self._engines_gpus or one.source in self._engines_gpus):
                seen[_GLANCE[one.name]] = seen.get(_GLANCE[one.name], 0.0) + one.value
        return seen

    def _read_slowly(self) -> None:
        now_ns = time.monotonic_ns()
        self._read("client", self._together["client"].fast)
        for source, processes in self._together.items():
            self._read(source, processes.slow)
        if self._members["engine"] and self._pss.due(now_ns):
            self._pss.read(self._read_proportional)
        self._read("host", self._host.read)
        self._read("cgroup", self._group.read)
        self._collect_unread()

    def _read_proportional(self) -> None:
        for source, processes in self._together.items():
            self._read(source, processes.proportional)

    def _collect_unread(self) -> None:
        """Collect the sentences of all sources, each once."""
        sentences = [*self._host.unread.values(), self._group.unread, *(self._gpus.unread if self._gpus else ())]
        for processes in self._together.values():
            sentences += processes.unread.values()
        self.unread += [one for one in dict.fromkeys(sentences) if one and one not in self.unread]

    def _emit_own_cost(self, pace: Pace, slow: bool) -> None:
        """Emit the sampler's own CPU share since the last report, and its lateness."""
        self._latest_ms = max(self._latest_ms, pace.late_ms)
        if not slow:
            return
        if self._own_ns and pace.ended_ns > self._own_ns:
            share = (pace.cpu_ns - self._own_cpu_ns) / (pace.ended_ns - self._own_ns)
            self._read("sampler", lambda: {"cpu_share": share, "late_ms": self._latest_ms})
        self._own_ns, self._own_cpu_ns, self._latest_ms = pace.ended_ns, pace.cpu_ns, 0.0

    def _refresh_trees(self, now_ns: int) -> None:
        """Find the descendants, rarely because it reads many processes, or at once if `watch` changed."""
        watched = self._watched
        if watched is not self._following:
            self._follow_others(watched)
        elif not self._trees.due(now_ns) and not (watched.below and now_ns - self._trees_ns >= START_TREES_S * 1e9):
            return
        self._trees_ns = now_ns
        self._members = self._trees.read(lambda: _members(watched))
        for source, pids in self._members.items():
            self._together[source].follow(pids)
        if self._gpus and self._members["engine"]:  # otherwise the engine's own process would count as foreign
            self._count_others(self._gpus.processes(self._members["engine"]))

    def _follow_others(self, watched: _Watched) -> None:
        """Restart the counters, and switch to the engine's control group."""
        self._following = watched
        self._pss.at_once()
        self._engines_gpus = set()
        for source in self._together:
            self._together[source].close()
        self._together = {source: Together() for source in self._together}
        own = next((file for pid in watched.engine_pids if (file := PROC / str(pid) / "cgroup").exists()), OWN)
        self._group.close()
        self._group = Group(ROOT, own)

    def _count_others(self, on_gpus: set[int]) -> None:
        ours = self._members["engine"] | self._members["client"]
        if on_gpus and not on_gpus & ours and not numbers_are_the_machines():
            self.unread += [] if NOT_IDENTIFIED in self.unread else [NOT_IDENTIFIED]
            return
        idle = tree(tuple(self._beside))
        found = {pid for pid in on_gpus - ours - idle if psutil.pid_exists(pid)}  # ended ones stay listed for a while
        with self._lock:
            self._others_on_gpus = max(len(found), self._others_on_gpus or 0)


def _members(watched: _Watched) -> dict[str, set[int]]:
    engine = tree(watched.engine_pids) - set(watched.engine_pids if watched.below else ())
    return {"engine": engine, "client": tree([watched.client_pid]) - engine if watched.client_pid else set()}


def one_at_a_time(sink: Callable[[Sample], None]) -> Callable[[Sample], None]:
    """Make a sink safe for several threads."""
    lock = threading.Lock()

    def locked(sample: Sample) -> None:
        with lock:
            sink(sample)

    return locked
