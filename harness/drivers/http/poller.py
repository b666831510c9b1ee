"""Poller of sockets: an own epoll inside the asyncio loop.

The loop sees one file descriptor. All ready sockets are handled in one pass, at a fraction of the cost of a loop
callback each. When nothing is ready, deferred work is done (decoding, encoding requests).
"""

from __future__ import annotations

import asyncio
import select
import selectors
from collections.abc import Callable
from time import monotonic_ns

READ = 1  # the values of EPOLLIN and EPOLLOUT
WRITE = 4
_BATCH = 128
_PASS_NS = 5_000_000
_FEW = 16  # with fewer ready sockets, deferred work may be done before the next poll
_LINGER_S = 0.001  # waiting here for the next read costs less than a pass through the loop

Handler = Callable[[int], None]


class Poller:
    """Calls `handler(events)` per ready file descriptor, and `idle()` when none is ready, until it returns False.

    `before` is called before each round of handlers. Exceptions go to `failed`: the loop would only log them, and the
    trial would never end.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        idle: Callable[[], bool],
        failed: Callable[[Exception], None],
        before: Callable[[], None],
    ) -> None:
        self._loop, self._idle, self._failed, self._before = loop, idle, failed, before
        self._set = select.epoll() if hasattr(select, "epoll") else _PortableEpoll()
        self._handlers: dict[int, Handler] = {}
        self._again: asyncio.Handle | None = None
        loop.add_reader(self._set.fileno(), self._pass)

    def add(self, file: int, handler: Handler, events: int = READ) -> None:
        self._handlers[file] = handler
        self._set.register(file, events)

    def handle(self, file: int, handler: Handler) -> None:
        """Replace the handler of a file descriptor."""
        self._handlers[file] = handler

    def change(self, file: int, events: int) -> None:
        self._set.modify(file, events)

    def remove(self, file: int) -> None:
        """Stop watching; call before the file is closed."""
        if self._handlers.pop(file, None) is not None:
            self._set.unregister(file)

    def wake(self) -> None:
        """Schedule a pass, even if nothing is ready."""
        if self._again is None:
            self._again = self._loop.call_soon(self._pass)

    def close(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if not self._set.closed:
            self._loop.remove_reader(self._set.fileno())
            self._set.close()

    def _pass(self) -> None:
        self._again = None
        try:
            self._handle_ready()
        except Exception as error:
            self._failed(error)

    def _handle_ready(self) -> None:
        until_ns = monotonic_ns() + _PASS_NS
        handlers = self._handlers
        wait_s = 0.0
        while not self._set.closed:
            ready = self._set.poll(wait_s, _BATCH)
            self._before()
            for file, events in ready:
                handler = handlers.get(file)
                if handler is not None:
                    handler(events)
            if len(ready) < _FEW:
                more = self._idle()
                if not ready and not more:
                    return
                wait_s = 0.0 if more else _LINGER_S
            if monotonic_ns() > until_ns:  # give the loop's other callbacks a turn
                self.wake()
                return


class _PortableEpoll:
    """Subset of `select.epoll`, on kqueue or the platform's other selectors."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.closed = False

    def fileno(self) -> int:
        return int(self._selector.fileno())

    def register(self, file: int, events: int) -> None:
        self._selector.register(file, _mask(events))

    def modify(self, file: int, events: int) -> None:
        self._selector.modify(file, _mask(events))

    def unregister(self, file: int) -> None:
        self._selector.unregister(file)

    def poll(self, timeout: float, _: int) -> list[tuple[int, int]]:
        return [
            (key.fd, (READ if mask & selectors.EVENT_READ else 0) | (WRITE if mask & selectors.EVENT_WRITE else 0))
            for key, mask in self._selector.select(timeout)
        ]

    def close(self) -> None:
        self._selector.close()
        self.closed = True


def _mask(events: int) -> int:
    return (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)
