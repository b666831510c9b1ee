"""Which sockets are ready: an epoll of our own inside the asyncio loop.

The loop sees one file descriptor. All that is ready is handled in one tight pass, which costs a fraction of the loop's
callback for each, and "nothing is ready" is known: work that can wait (decoding, preparing requests) is done then.
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
_FEW = 16  # so few were ready that work which can wait may be done before looking again
_LINGER_S = 0.001  # waiting here for the next read costs less than going through the loop for it

Handler = Callable[[int], None]


class Poller:
    """Calls `handler(events)` for every ready file descriptor; `idle()` when none is, until it returns False.

    before: called before each round of handlers. What any of them raises goes to `failed`: the loop would only log it,
    and the trial would wait for ever.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        idle: Callable[[], bool],
        failed: Callable[[Exception], None],
        before: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._idle = idle
        self._failed = failed
        self._before = before
        self._set = select.epoll() if hasattr(select, "epoll") else _PortableEpoll()
        self._handlers: dict[int, Handler] = {}
        self._again: asyncio.Handle | None = None
        loop.add_reader(self._set.fileno(), self._pass)

    def add(self, file: int, handler: Handler, events: int = READ) -> None:
        """Watch a file descriptor."""
        self._handlers[file] = handler
        self._set.register(file, events)

    def handle(self, file: int, handler: Handler) -> None:
        """Call another handler from now on."""
        self._handlers[file] = handler

    def change(self, file: int, events: int) -> None:
        """Watch for other events."""
        self._set.modify(file, events)

    def remove(self, file: int) -> None:
        """Watch no longer; to be called before the file is closed."""
        if self._handlers.pop(file, None) is not None:
            self._set.unregister(file)

    def wake(self) -> None:
        """Make a pass soon, as if something were ready."""
        if self._again is None:
            self._again = self._loop.call_soon(self._pass)

    def close(self) -> None:
        """Watch nothing any more."""
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
            if monotonic_ns() > until_ns:  # let the loop's other callbacks run
                self.wake()
                return


class _PortableEpoll:
    """The part of `select.epoll` used here, by kqueue or what else the platform has."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.closed = False

    def fileno(self) -> int:
        return int(self._selector.fileno())

    def register(self, file: int, events: int) -> None:
        self._selector.register(file, self._mask(events))

    def modify(self, file: int, events: int) -> None:
        self._selector.modify(file, self._mask(events))

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

    def _mask(self, events: int) -> int:
        return (selectors.EVENT_READ if events & READ else 0) | (selectors.EVENT_WRITE if events & WRITE else 0)
