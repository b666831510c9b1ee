"""Cap on the requests in flight beside a rate: how many places there are, and since when each is free. No I/O."""

from __future__ import annotations

import heapq

ALWAYS = 0
"""Since when a place that was never taken has been free."""


class Cap:
    """Places for requests in flight. Each request takes the place that has been free for longest."""

    def __init__(self, places: int) -> None:
        self._unused = places
        self._freed_ns: list[int] = []  # of the other free places, a heap

    @property
    def full(self) -> bool:
        """True if no place is free."""
        return not (self._unused or self._freed_ns)

    def take(self) -> int:
        """Take a place; return since when it has been free. Raises IndexError if none is."""
        if self._unused:
            self._unused -= 1
            return ALWAYS
        return heapq.heappop(self._freed_ns)

    def leave(self, at_ns: int) -> None:
        """Free a place."""
        heapq.heappush(self._freed_ns, at_ns)
