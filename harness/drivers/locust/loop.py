"""Asyncio loop inside one greenlet, so that the load generator runs beside Locust's users, web page and messages.

Locust makes the whole process cooperative (gevent), and asyncio's own selectors would block it. This loop keeps the
system's selector, at the same cost as without Locust. Gevent's hub waits for the selector as for one file. Only for
Locust's processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import selectors
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, TypeVar

import gevent
from gevent.monkey import get_original
from gevent.timeout import Timeout

from harness.processes import aside

_Result = TypeVar("_Result")
_SystemsSelector: Any = get_original("selectors", "DefaultSelector")
Ready = list[tuple[selectors.SelectorKey, int]]


class HubSelector(_SystemsSelector):  # type: ignore[misc]
    """System's selector, awaited in gevent's hub, so that other greenlets run meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(self.fileno(), 1)

    def close(self) -> None:
        self._watcher.close()
        super().close()

    def select(self, timeout: float | None = None) -> Ready:
        """Wait at most `timeout` seconds for ready files; let other greenlets run in any case."""
        poll: Callable[[float], Ready] = super().select
        ready = poll(0)
        if ready or (timeout is not None and timeout <= 0):
            gevent.sleep(0)
            return ready
        patience = Timeout.start_new(timeout, ref=True) if timeout is not None else None
        try:
            self._hub.wait(self._watcher)
        except Timeout as over:
            if over is not patience:
                raise
        finally:
            if patience is not None:
                patience.close()
        return poll(0)


def run_in_greenlet(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end in this greenlet, like `asyncio.run` in a thread; loads Locust."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


def new_loop() -> asyncio.AbstractEventLoop:
    """Make a loop that lets other greenlets run while it waits; loads Locust.

    Locust removes the system's poller from `select`. The load generator's poller needs it and never blocks for long.
    """
    import_module("locust")
    if not hasattr(select, "epoll"):
        with contextlib.suppress(AttributeError):  # no epoll on this system
            setattr(select, "epoll", get_original("select", "epoll"))  # noqa: B010  (assignment fails the type check)
    return asyncio.SelectorEventLoop(HubSelector())


async def off_the_loop(work: Callable[[], _Result]) -> _Result:
    """Run a long computation in a thread of the system, so that heartbeats continue."""
    return await aside(work, gevent.get_hub().threadpool.spawn)
