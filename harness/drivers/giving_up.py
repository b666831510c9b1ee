"""When requests that the plan gives up are to be given up."""

from __future__ import annotations

import heapq

from harness.timeline import NS_PER_S
from harness.workload import Row


class GivingUp:
    """Requests under way that are to be given up, by time: absolute, counted from when each was sent."""

    def __init__(self) -> None:
        self._times: list[tuple[int, int]] = []

    def add(self, request: int, at_ns: int) -> None:
        """Give up a request at this time."""
        heapq.heappush(self._times, (at_ns, request))

    @property
    def next_ns(self) -> int | None:
        """When the next one is due; None when there is none."""
        return self._times[0][0] if self._times else None

    def take(self, now_ns: int) -> list[int]:
        """The requests whose time has come."""
        found = []
        while self._times and self._times[0][0] <= now_ns:
            found.append(heapq.heappop(self._times)[1])
        return found


def why_given_up(row: Row) -> str:
    """One sentence for the record."""
    return f"given up by the client {(row.cancel_ns or 0) / NS_PER_S:g} s after it was sent, as planned"
