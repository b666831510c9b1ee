"""Asyncio loop whose time jumps to the next timer when nothing is ready: hours of waiting in milliseconds.

For engines in process that wait only by the loop's timers. Sockets, threads and signals are not supported.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_NS_PER_S = 1_000_000_000


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Loop that never waits; `time()` starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual_s = 0.0

    def time(self) -> float:
        return self._virtual_s

    def time_ns(self) -> int:
        """Return the virtual time in nanoseconds."""
        return round(self._virtual_s * _NS_PER_S)

    def be_busy(self, seconds: float) -> None:
        """Let time pass in which nothing else runs here, as during a computation."""
        self._virtual_s += seconds

    def _run_once(self) -> None:
        # `_ready` and `_scheduled` are private to asyncio but stable since 3.4. Every other way polls.
        if not self._ready and not self._stopping:  # type: ignore[attr-defined]
            while self._scheduled and self._scheduled[0]._cancelled:  # type: ignore[attr-defined]
                timer = heapq.heappop(self._scheduled)  # type: ignore[attr-defined]
                timer._scheduled = False
                self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            if not self._scheduled:  # type: ignore[attr-defined]
                raise RuntimeError("deadlock: no task is ready and no timer is set")
            self._virtual_s = max(self._virtual_s, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time and return its result."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
