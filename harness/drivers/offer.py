"""Which request falls due next, and when a trial is over: the plan's side of a driver. Opens and awaits nothing.

A request that waits for nobody falls due at the plan's time, whatever happens to others; one that follows another
(a user's next, the next turn of a conversation) when that has ended and the think time is over. Load that goes on after
the window (cooldown) is offered only while a request that counts (warm-up or measured) is still to be sent or in
flight. The users of a closed loop limited by requests share them: whoever is free takes the next, and when all are
taken everyone goes on, for as many requests again at most, so that the last ones meet the same load as the first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from harness.records import Loop, Phase
from harness.schedule.chains import Int64
from harness.schedule.requests import WHOLE, Row, Schedule, Shard
from harness.schedule.timing import PHASES

AFTER_FAILURE_NS = 100_000_000
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
        self._counting_in_flight = 0
        self._counting_pending = 0
        self._closed = False
        self._starts = schedule.starts[shard.index :: shard.of]
        self._next = self._end = self._must_end = 0  # places among the starts that have a planned due time
        self._pool = _pool_of(schedule, self._starts)
        self._waiting: list[tuple[int, int]] = []
        # Of conversations limited by number every turn is told of, so that it matters which ones have been taken.
        told = schedule.loop is Loop.PARTLY_OPEN and schedule.measured is not None
        self._taken = bytearray(schedule.count or 0) if told else None
        if schedule.due_ns is not None:
            self._plan_starts()
        else:
            for request in self._starts:
                self._wait(0, int(request))

    def _plan_starts(self) -> None:
        schedule = self._schedule
        assert schedule.due_ns is not None
        self._due_ns = schedule.due_ns[self._shard.index :: self._shard.of]
        self._end = self._must_end = len(self._due_ns)
        if schedule.phases is not None:
            cooldown = (schedule.phases[self._shard.index :: self._shard.of] == _COOLDOWN).nonzero()[0]
            self._must_end = int(cooldown[0]) if len(cooldown) else self._end

    def begin(self, t0_ns: int) -> None:
        """Offset 0 is at this absolute time. To be called once, before the first `take`."""
        self._waiting = [(due_ns + t0_ns, request) for due_ns, request in self._waiting]
        self._t0_ns = t0_ns

    @property
    def next_due_ns(self) -> int | None:
        """When the next request falls due; None when none is known."""
        if self._closed or (self._pool is not None and self._pool.empty):
            return None
        waiting_ns = self._waiting[0][0] if self._waiting else None
        if self._next >= self._end:
            return waiting_ns
        planned_ns = self._t0_ns + int(self._due_ns[self._next])
        return planned_ns if waiting_ns is None else min(planned_ns, waiting_ns)

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
        if self._pool is not None:
            return self._closed or self._pool.measured == 0
        return self._closed or (self._next >= self._must_end and self._counting_pending == 0)

    @property
    def measured_until_ns(self) -> int | None:
        """When the first request fell due, or would have, that was not measured any more, as an offset; None where that
        is planned, or was not reached.
        """
        pool = self._pool
        if pool is None or pool.measured or not pool.requests:
            return None
        end_ns = pool.ended_ns
        if end_ns is None and self._waiting:
            end_ns = self._waiting[0][0]
        return None if end_ns is None else end_ns - self._t0_ns

    def take(self) -> Due:
        """The request that falls due next; IndexError when there is none."""
        if self._next < self._end:
            due_ns = self._t0_ns + int(self._due_ns[self._next])
            if not self._waiting or due_ns <= self._waiting[0][0]:
                request = int(self._starts[self._next])
                self._next += 1
                return self._taken_now(request, due_ns)
        due_ns, request = heapq.heappop(self._waiting)
        self._counting_pending -= self._counts(due_ns, request)
        return self._taken_now(request, due_ns)

    def _taken_now(self, request: int, due_ns: int) -> Due:
        due = self._due(request, due_ns)
        if self._pool is not None:
            due = self._pool.take(due)
        self._counting_in_flight += due.phase != Phase.COOLDOWN
        if self._taken is not None:
            self._taken[request] = 1
        return due

    def ended(self, due: Due, done_ns: int, *, failed: bool = False) -> None:
        """A request has ended; the one that follows it falls due after the think time.

        After a failure that is 100 ms at least: a server that refuses must not be asked a million times a second.
        """
        self._counting_in_flight -= due.phase != Phase.COOLDOWN
        if self._closed:
            return
        following = self._schedule.follower(due.row.request)
        if following is None:
            return
        think_ns = self._schedule.wait_ns(following)
        self._wait(done_ns + (max(think_ns, AFTER_FAILURE_NS) if failed else think_ns), following)

    def passed_over(self, due: Due) -> None:
        """A request that was taken is not sent; what follows it falls due in its own time, and another is measured."""
        if self._pool is not None:
            self._pool.give_back(due)
        self.ended(due, due.due_ns)

    def upcoming(self, limit: int) -> Iterator[int]:
        """Requests that will probably fall due next and can be written already, in order, at most `limit`."""
        if self._closed:
            return iter(())
        later_turn = self._schedule.is_later_turn
        waiting = (request for _, request in self._waiting[:limit] if not later_turn(request))
        planned = (int(self._starts[place]) for place in range(self._next, min(self._next + limit, self._end)))
        return islice((request for some in (planned, waiting) for request in some), limit)

    def follower(self, due: Due) -> int | None:
        """The request that falls due after this one has ended, if it can be written already; else None."""
        following = None if self._closed else self._schedule.follower(due.row.request)
        return None if following is None or self._schedule.is_later_turn(following) else following

    def close(self) -> Iterator[Due]:
        """Offer nothing more; gives the rows that count, had a planned time or waited for one that had, and were never
        sent; nothing the second time. How far users of a closed loop would have come is not planned.
        """
        if self._closed:
            return
        self._closed = True
        for place in range(self._next, self._must_end):
            yield self._due(int(self._starts[place]), self._t0_ns + int(self._due_ns[place]))
        if self._taken is None:
            if self._schedule.loop is Loop.PARTLY_OPEN:
                waiting = ((due_ns, request) for due_ns, request in self._waiting if self._counts(due_ns, request))
                yield from (self._due(request, due_ns) for due_ns, request in waiting)
            return
        yield from self._later_turns(self._taken)

    def _later_turns(self, taken: bytearray) -> Iterator[Due]:
        """Those never sent. Where nobody can know when one would have been due, the beginning of its conversation is
        written.
        """
        known_ns = {request: due_ns for due_ns, request in self._waiting}
        for place in range(self._must_end):
            start = self._starts[place]
            start_ns = self._t0_ns + int(self._due_ns[place])
            turn = self._schedule.follower(int(start))
            while turn is not None:
                if not taken[turn]:
                    yield self._due(turn, known_ns.get(turn, start_ns))
                turn = self._schedule.follower(turn)

    def _due(self, request: int, due_ns: int) -> Due:
        row = self._schedule.row(request)
        return Due(row, due_ns, row.phase or self._phase(due_ns, row))

    def _wait(self, due_ns: int, request: int) -> None:
        heapq.heappush(self._waiting, (due_ns, request))
        self._counting_pending += self._counts(due_ns, request)

    def _counts(self, due_ns: int, request: int) -> bool:
        """Whether a request that waits for another will be measured, or comes before those that are."""
        end_ns = self._schedule.window.end_ns
        if end_ns is None or due_ns - self._t0_ns < end_ns:
            return True
        return self._taken is not None and self._phase(due_ns, self._schedule.row(request)) != Phase.COOLDOWN

    def _phase(self, due_ns: int, row: Row) -> str:
        """By the due time; all turns of the conversations that are measured belong to them, however late."""
        phase = self._schedule.window.phase_of(due_ns - self._t0_ns)
        if phase is not Phase.COOLDOWN or self._taken is None or row.session is None or self._schedule.phases is None:
            return phase
        began = PHASES[self._schedule.phases[row.session]]
        return Phase.MEASURE if began == Phase.MEASURE else Phase.COOLDOWN


class Pool:
    """The requests that the users of a closed loop share.

    requests: how many shall be measured.   measured: how many of them are left.   further: how many may follow those.
    ended_ns: when the first of these fell due.
    """

    def __init__(self, requests: int) -> None:
        self.requests = self.measured = self.further = requests
        self.ended_ns: int | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing more is to be sent."""
        return not self.measured and not self.further

    def take(self, due: Due) -> Due:
        """One that falls due now, measured if there is one left; those of the warm-up are not counted."""
        if due.phase == Phase.WARMUP:
            return due
        if self.measured:
            self.measured -= 1
            return due
        self.further -= 1
        if self.ended_ns is None:
            self.ended_ns = due.due_ns
        return due._replace(phase=Phase.COOLDOWN)

    def give_back(self, due: Due) -> None:
        """It was not sent."""
        self.measured += due.phase == Phase.MEASURE


def _pool_of(schedule: Schedule, users: Sequence[int] | Int64) -> Pool | None:
    """The requests of these users of a closed loop, so that the shards together have them all; None where the rows
    themselves are planned, or time is the limit.
    """
    if schedule.measured is None or schedule.loop is not Loop.CLOSED:
        return None
    return Pool(requests_of(users, schedule.measured, schedule.users))


def requests_of(users: Sequence[int] | Int64, requests: int, of: int) -> int:
    """How many of the requests that so many users share these of them have."""
    return sum(len(range(int(user), requests, of)) for user in users)
