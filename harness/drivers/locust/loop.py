"""An asyncio loop inside one greenlet, so that the measuring client runs beside Locust's users, web page and messages.

Locust makes the whole process cooperative (gevent); asyncio's own selectors would block it. Here the system's selector
is kept, which costs as little as without Locust, and gevent's hub waits for it as for one file. Only for processes of
Locust's.
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable, Coroutine, Mapping
from importlib import import_module
from typing import Any, TypeVar

import gevent
from gevent.monkey import get_original
from gevent.timeout import Timeout

_Result = TypeVar("_Result")
Ready = list[tuple[selectors.SelectorKey, int]]


class HubSelector(selectors.BaseSelector):
    """The system's selector, waited for in gevent's hub: other greenlets run meanwhile."""

    def __init__(self) -> None:
        self._native: selectors.BaseSelector = get_original("selectors", "DefaultSelector")()
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(self._native.fileno(), 1)

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the system's."""
        return self._native.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """As the system's."""
        return self._native.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """As the system's."""
        return self._native.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """As the system's."""
        return self._native.get_map()

    def close(self) -> None:
        """Let go of the hub and of the system's selector."""
        self._watcher.close()
        self._native.close()

    def select(self, timeout: float | None = None) -> Ready:
        """What is ready, waiting for it at most so many seconds; every call lets other greenlets run."""
        ready = self._native.select(0)
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
        return self._native.select(0)


def run_in_greenlet(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end in this greenlet, as `asyncio.run` would in a thread; loads Locust."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(work)


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop whose waiting lets other greenlets run; loads Locust."""
    import_module("locust")  # which makes the process cooperative, and takes its pollers away
    give_back_epoll()
    return asyncio.SelectorEventLoop(HubSelector())


def give_back_epoll() -> None:
    """gevent takes the system's poller out of `select`; the client's own poller never blocks for long and needs it."""
    if not hasattr(select, "epoll") and (epoll := _original_epoll()) is not None:
        setattr(select, "epoll", epoll)  # noqa: B010  (to the type checker it is there)


def _original_epoll() -> Any:
    try:
        return get_original("select", "epoll")
    except AttributeError:  # a system without it
        return None


async def off_the_loop(work: Callable[[], _Result]) -> _Result:
    """Run work that computes for long in a thread of the system's, so that heartbeats go on; raises what it raises."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    results: list[_Result] = []
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)  # gevent would print it

    def tell() -> None:
        if not done.done():
            done.set_result(None)

    def ended(_: Any) -> None:
        loop.call_soon_threadsafe(tell)

    gevent.get_hub().threadpool.spawn(attempt).rawlink(ended)
    await done
    if errors:
        raise errors[0]
    return results[0]
