"""Requests encoded before they fall due, so that encoding never delays sending."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from harness.drivers.due_queue import Due, DueQueue

T = TypeVar("T")
_AHEAD = 256


class Prepared(Generic[T]):
    """Cache of encoded requests that fall due next: at most `limit`, of about `limit_bytes`.

    Later turns of conversations are encoded after a call of `want`, because they depend on the reply before.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        queue: DueQueue,
        size: Callable[[T], int],
        limit: int = _AHEAD,
        limit_bytes: int = 32 << 20,
    ) -> None:
        self._make = make
        self._queue = queue
        self._size = size
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._made: dict[int, T] = {}
        self._wanted: dict[int, None] = {}

    def fill(self) -> None:
        """Encode as many requests as fit."""
        while self.step():
            pass

    def take(self, due: Due) -> T:
        """Return an encoded request, encoding it now if necessary, and mark its follower as wanted."""
        request = due.row.request
        self._wanted.pop(request, None)
        made = self._made.pop(request, None)
        if made is None:
            made = self._make(request)
        else:
            self._bytes -= self._size(made)
        follower = self._queue.follower(due)
        if follower is not None:
            self._wanted[follower] = None
        return made

    def want(self, request: int) -> None:
        """Mark a request that can be encoded from now on."""
        self._wanted[request] = None

    def step(self) -> bool:
        """Encode one more request; return True if there was one."""
        if len(self._made) >= self._limit or self._bytes >= self._limit_bytes:
            return False
        if not self._wanted and len(self._made) <= self._limit // 2:
            self._wanted = {request: None for request in self._queue.upcoming(self._limit) if request not in self._made}
        if not self._wanted:
            return False
        request = next(iter(self._wanted))
        del self._wanted[request]
        made = self._made[request] = self._make(request)
        self._bytes += self._size(made)
        return True
