"""Requests encoded before they fall due, so that encoding never stands between due and sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from harness.drivers.offer import Due, Offer

T = TypeVar("T")
_AHEAD = 256


class Prepared(Generic[T]):
    """Holds what `make` made of the requests that fall due next, at most `limit` and about `limit_bytes` of them.

    The later turns of conversations are made once they are `want`ed: what they say depends on the reply before.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        offer: Offer,
        size: Callable[[T], int],
        limit: int = _AHEAD,
        limit_bytes: int = 32 << 20,
    ) -> None:
        self._make = make
        self._offer = offer
        self._size = size
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._made: dict[int, T] = {}
        self._wanted: dict[int, None] = {}

    def fill(self) -> None:
        """Make as many as may be held."""
        while self.step():
            pass

    def take(self, due: Due) -> T:
        """What was made of a request, or is made now; its follower is wanted next."""
        request = due.row.request
        self._wanted.pop(request, None)
        made = self._made.pop(request, None)
        if made is None:
            made = self._make(request)
        else:
            self._bytes -= self._size(made)
        follower = self._offer.follower(due)
        if follower is not None:
            self._wanted[follower] = None
        return made

    def want(self, request: int) -> None:
        """It can be made from now on, and will be needed."""
        self._wanted[request] = None

    def step(self) -> bool:
        """Make one more; whether there was one to make."""
        if len(self._made) >= self._limit or self._bytes >= self._limit_bytes:
            return False
        if not self._wanted and len(self._made) <= self._limit // 2:
            self._wanted = {request: None for request in self._offer.upcoming(self._limit) if request not in self._made}
        if not self._wanted:
            return False
        request = next(iter(self._wanted))
        del self._wanted[request]
        made = self._made[request] = self._make(request)
        self._bytes += self._size(made)
        return True
