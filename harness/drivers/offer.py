"""Which request falls due next, and when a trial is over: the plan's side of a driver. Opens and awaits nothing.

Open loop: rows fall due at the plan's times, whatever happens to others. Closed loop: a user's next request falls due
when the previous one has ended and the think time is over. Load that goes on after the window (cooldown) is offered
only while a request that counts (warm-up or measured) is still to be sent or in flight.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

from harness.records import Loop, Phase
from harness.timing import PHASES
from harness.workload import WHOLE, Row, Schedule, Shard

AFTER_LOST_CONNECTION_NS = 100_000_000
_COOLDOWN = PHASES.index(Phase.COOLDOWN)


class Due(NamedTuple):
    """A planned request whose time has come; due_ns is absolute."""

    row: Row
    due_ns: int
    phase: str


class Offer:
    """Hands out the rows of a schedule, or of a shard of it, as they fall due, once `begin` has laid it on the clock.

    lingers: go on offering what follows the window until `release`, for the sake of other shards.
    """

    def __init__(self, schedule: Schedule, shard: Shard = WHOLE, *, lingers: bool = False) -> None:
        self._schedule = schedule
        self._shard = shard
        self._lingers = lingers
        self._t0_ns = 0
        self._open = schedule.loop is Loop.OPEN
        self._counting_in_flight = 0
        self._counting_pending = 0
        self._closed = False
        self._next = 0
        self._end = 0
        self._must_end = 0
        self._measured_left = _part_of(schedule.measured, shard)
        self._waiting: list[tuple[int, int]] = []
        if self._open:
            self._plan_open()
        else:
            self._plan_closed()

    def _plan_open(self) -> None:
        schedule = self._schedule
        assert schedule.due_ns is not None
        self._due_ns = schedule.due_ns[self._shard.index :: self._shard.of]
        self._end = self._must_end = len(self._due_ns)
        if schedule.phases is not None:
            cooldown = (schedule.phases[self._shard.index :: self._shard.of] == _COOLDOWN).nonzero()[0]
            self._must_end = int(cooldown[0]) if len(cooldown) else self._end

    def _plan_closed(self) -> None:
        users = self._schedule.users
        first = users if self._schedule.count is None else min(users, self._schedule.count)
        for user in range(self._shard.index, first, self._shard.of):
            self._wait(self._schedule.row(user).due_ns or 0, user)

    def begin(self, t0_ns: int) -> None:
        """Offset 0 is at this absolute time. To be called once, before the first `take`."""
        self._waiting = [(due_ns + t0_ns, request) for due_ns, request in self._waiting]
        self._t0_ns = t0_ns

    @property
    def next_due_ns(self) -> int | None:
        """When the next request falls due; None when none is known."""
        if self._closed:
            return None
        if self._open:
            return self._t0_ns + int(self._due_ns[self._next]) if self._next < self._end else None
        return self._waiting[0][0] if self._waiting else None

    def release(self) -> None:
        """No other shard has anything left that counts."""
        self._lingers = False

    @property
    def over(self) -> bool:
        """Whether nothing more is to be sent, and nothing in flight to be waited for."""
        return self.counted and (self._closed or not self._lingers)

    @property
    def counted(self) -> bool:
        """Whether nothing that counts is still to be sent or in flight."""
        if self._counting_in_flight:
            return False
        if self._closed:
            return True
        return self._next >= self._must_end if self._open else self._counting_pending == 0

    def take(self) -> Due:
        """The request that falls due next; IndexError when there is none."""
        if self._open:
            due_ns = self._t0_ns + int(self._due_ns[self._next])
            row = self._schedule.row(self._request(self._next))
            self._next += 1
        else:
            due_ns, request = heapq.heappop(self._waiting)
            row = self._schedule.row(request)
            self._counting_pending -= self._counts(due_ns)
        due = Due(row, due_ns, row.phase or self._phase(due_ns))
        self._counting_in_flight += due.phase != Phase.COOLDOWN
        return due

    def ended(self, due: Due, done_ns: int, *, connection_lost: bool = False) -> None:
        """A request has ended; in a closed loop its user's next one falls due after the think time.

        A user whose connection failed waits 100 ms at least: a dead server must not be asked a million times a second.
        """
        self._counting_in_flight -= due.phase != Phase.COOLDOWN
        if self._open or self._closed:
            return
        following = due.row.request + self._schedule.users
        if self._schedule.count is not None and following >= self._schedule.count:
            return
        think_ns = self._schedule.row(following).think_ns
        self._wait(done_ns + (max(think_ns, AFTER_LOST_CONNECTION_NS) if connection_lost else think_ns), following)

    def upcoming(self, limit: int) -> Iterator[int]:
        """Requests that will probably fall due next, in order, at most `limit`."""
        if self._closed:
            return iter(())
        if self._open:
            return map(self._request, range(self._next, min(self._next + limit, self._end)))
        return (request for _, request in self._waiting[:limit])

    def follower(self, due: Due) -> int | None:
        """The request that falls due after this one has ended; None in open loops and after a user's last."""
        following = due.row.request + self._schedule.users
        last = self._schedule.count is not None and following >= self._schedule.count
        return None if self._open or self._closed or last else following

    def close(self) -> Iterator[Due]:
        """Offer nothing more; gives the rows of an open plan that count and were never sent."""
        self._closed = True
        if self._open:
            for place in range(self._next, self._must_end):
                row = self._schedule.row(self._request(place))
                due_ns = self._t0_ns + int(self._due_ns[place])
                yield Due(row, due_ns, row.phase or self._phase(due_ns))

    def _request(self, place: int) -> int:
        """The number of the request in the whole plan."""
        return self._shard.index + place * self._shard.of

    def _wait(self, due_ns: int, request: int) -> None:
        if self._measured_left is not None and self._phase(due_ns) == Phase.MEASURE:
            if self._measured_left == 0:
                return
            self._measured_left -= 1
        heapq.heappush(self._waiting, (due_ns, request))
        self._counting_pending += self._counts(due_ns)

    def _counts(self, due_ns: int) -> bool:
        end_ns = self._schedule.window.end_ns
        return end_ns is None or due_ns - self._t0_ns < end_ns

    def _phase(self, due_ns: int) -> str:
        if due_ns - self._t0_ns < self._schedule.window.start_ns:
            return Phase.WARMUP
        return Phase.MEASURE if self._counts(due_ns) else Phase.COOLDOWN


def _part_of(count: int | None, shard: Shard) -> int | None:
    """How many of `count` fall to a shard, so that the shards together have them all."""
    return None if count is None else len(range(shard.index, count, shard.of))
