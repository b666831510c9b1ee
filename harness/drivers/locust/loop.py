"""An asyncio loop inside one greenlet, so that the measuring client runs beside Locust's users, web page and messages.

Locust makes the whole process cooperative (gevent); asyncio's own selectors would block it. Here the system's selector
is kept, which costs as little as without Locust, and gevent's hub waits for it as for one file. Only for processes of
Locust's.
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
    """The system's selector, waited for in gevent's hub: other greenlets run meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(self.fileno(), 1)

    def close(self) -> None:
        """Let go of the hub and of the system's selector."""
        self._watcher.close()
        super().close()

    def select(self, timeout: float | None = None) -> Ready:
        """Wait at most so many seconds for what becomes ready; every call lets other greenlets run."""
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
    """Run a coroutine to its end in this greenlet, as `asyncio.run` would in a thread; loads Locust."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


def new_loop() -> asyncio.AbstractEventLoop:
    """Make a loop whose waiting lets other greenlets run; loads Locust."""
    import_module("locust")  # which makes the process cooperative, and takes its pollers away
    give_back_epoll()
    return asyncio.SelectorEventLoop(HubSelector())


def give_back_epoll() -> None:
    """Put the system's poller back into `select`; the client's own poller needs it and never blocks for long."""
    if not hasattr(select, "epoll"):
        with contextlib.suppress(AttributeError):  # a system without it
            setattr(select, "epoll", get_original("select", "epoll"))  # noqa: B010  (to the type checker it is there)


async def off_the_loop(work: Callable[[], _Result]) -> _Result:
    """Run work that computes for long in a thread of the system's, so that heartbeats go on; raises what it raises."""
    return await aside(work, gevent.get_hub().threadpool.spawn)
