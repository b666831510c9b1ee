"""Absolute ticks on a thread of its own: what comes too late is counted and left out, never made up for in a burst."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
LONGEST_SLEEP_S = 0.1


@dataclass(slots=True)
class Pace:
    """How the ticks have gone so far.

    ticks: those taken.   late_ticks: those left out, and those that began over half an interval after their time.
    cpu_ns: processor time of the thread.   late_ms: of the tick that is being taken.
    """

    begun_ns: int
    interval_ns: int
    ticks: int = 0
    late_ticks: int = 0
    late_ms: float = 0.0
    cpu_ns: int = 0
    ended_ns: int = 0
    _number: int = 0

    @property
    def due_ns(self) -> int:
        """When the next tick is due."""
        return self.begun_ns + self._number * self.interval_ns

    def begins(self, now_ns: int) -> None:
        """The tick that is due begins now."""
        self.ticks += 1
        self.late_ms = (now_ns - self.due_ns) / 1e6
        self.late_ticks += now_ns - self.due_ns > self.interval_ns / 2

    def ended(self, now_ns: int, cpu_ns: int) -> None:
        """It is over: the next is the first whose time has not passed."""
        self.ended_ns, self.cpu_ns = now_ns, cpu_ns
        following = max(self._number + 1, (now_ns - self.begun_ns) // self.interval_ns + 1)
        self.late_ticks += following - self._number - 1
        self._number = following

    def told(self) -> dict[str, Any]:
        """As the manifest keeps it: interval_s, ticks, late_ticks, cpu_share (of one core), ms_per_tick."""
        lasted_ns = self.ended_ns - self.begun_ns
        return {
            "interval_s": self.interval_ns / 1e9,
            "ticks": self.ticks,
            "late_ticks": self.late_ticks,
            "cpu_share": self.cpu_ns / lasted_ns if lasted_ns > 0 else None,
            "ms_per_tick": self.cpu_ns / self.ticks / 1e6 if self.ticks else None,
        }


class Ticker:
    """Calls an action at every tick, the first in any case, until `stop`. One that raises ends it; `stop` tells."""

    def __init__(self, action: Callable[[Pace], None], interval_s: float) -> None:
        self._action = action
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)
        self.pace = Pace(time.monotonic_ns(), max(1, round(interval_s * 1e9)))

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> Exception | None:
        """Wait for the tick that is being taken, take no more; what the action raised, if it did."""
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
        """Sleep until the next tick; False if there is to be none. A plain sleep costs half of what a lock's does."""
        while not self._ended.is_set() and (left_ns := self.pace.due_ns - time.monotonic_ns()) > 0:
            time.sleep(min(left_ns / 1e9, LONGEST_SLEEP_S))
        return not self._ended.is_set()


class Paced:
    """When a reading is due again: every so often, or as much rarer as it takes to cost this share of a core."""

    def __init__(self, every_s: float, share: float) -> None:
        self._every_ns, self._share = round(every_s * 1e9), share
        self._next_ns = 0

    def due(self, now_ns: int) -> bool:
        """Whether it is."""
        return now_ns >= self._next_ns

    def at_once(self) -> None:
        """It is due, whatever it cost before."""
        self._next_ns = 0

    def read(self, reading: Callable[[], T]) -> T:
        """Take the reading, and see what it costs."""
        now_ns, before_ns = time.monotonic_ns(), time.thread_time_ns()
        found = reading()
        self.took(now_ns, time.thread_time_ns() - before_ns)
        return found

    def took(self, now_ns: int, cost_ns: int) -> None:
        """A reading that began now cost so much processor time."""
        self._next_ns = now_ns + max(self._every_ns, round(cost_ns / self._share))
