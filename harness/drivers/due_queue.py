"""Order of the requests of a trial: which one falls due next, and when the trial is over. Pure logic, no I/O.

Requests are encoded before they fall due (`Prepared`), so that encoding never delays sending.

A request without a predecessor falls due at its planned time. Its successor (the user's next request, the
conversation's next turn) falls due when it has ended and the think time has passed. Cooldown load runs only while a
counting request (warm-up or measured) is still to be sent or in flight.

The users of a closed loop limited by requests share these requests: a free user takes the next one. When all are taken,
all users continue for at most as many requests again, so that the last measured requests meet the same load as the
first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

from harness.drivers.cap import Cap
from harness.records import Loop, Phase
from harness.schedule.chains import Int64
from harness.schedule.requests import WHOLE, Row, Schedule, Shard
from harness.schedule.timing import PHASES

AFTER_FAILURE_NS = 100_000_000
_COOLDOWN = PHASES.index(Phase.COOLDOWN)
T = TypeVar("T")


class Due(NamedTuple):
    """Planned request whose time has come; due_ns is absolute.

    `place_ns`: since when its place has been free, absolute; None without a cap.
    """

    row: Row
    due_ns: int
    phase: str
    place_ns: int | None = None

    @property
    def held_ns(self) -> int | None:
        """Time from due until a place was free; None without a cap."""
        return None if self.place_ns is None else max(0, self.place_ns - self.due_ns)


class DueQueue:
    """Queue of the rows of a schedule, or of a shard of it, in the order of their due times. `begin` sets the clock.

    If it `lingers`, the load continues after the window until `release`, because other shards are still measuring. The
    queue of a schedule that grows waits for `release`, too.
    With a `cap`, no request falls due while its places are taken: those whose time has come wait, in their order. A
    request has a place from `take` to `ended`.
    """

    def __init__(
        self, schedule: Schedule, shard: Shard = WHOLE, *, lingers: bool = False, cap: Cap | None = None
    ) -> None:
        self._schedule = schedule
        self._lingers = lingers or schedule.grows
        self._shard = shard
        self._cap = cap
        self._t0_ns = 0
        self._counting_in_flight = 0
        self._counting_pending = 0
        self._closed = False
        self._starts = schedule.starts[shard.index :: shard.of]
        self._next = self._end = self._must_end = 0  # places among the starts that have a planned due time
        self._pool: Pool | None = None
        if schedule.measured is not None and schedule.loop is Loop.CLOSED:
            self._pool = Pool(requests_of(self._starts, schedule.measured, schedule.users))
        self._waiting: list[tuple[int, int]] = []
        # In conversations limited by number every unsent turn is reported, so the taken ones are marked.
        limited = schedule.loop is Loop.PARTLY_OPEN and schedule.measured is not None
        self._taken = bytearray(schedule.count or 0) if limited else None
        if schedule.due_ns is None:
            for request in self._starts:
                self._wait(0, int(request))
            return
        self.take_up()

    def take_up(self) -> None:
        """Take up the rows of the schedule that have not been taken: after it has grown, other ones than before."""
        schedule, shard = self._schedule, self._shard
        assert schedule.due_ns is not None
        self._starts = schedule.starts[shard.index :: shard.of]
        self._due_ns = schedule.due_ns[shard.index :: shard.of]
        self._end = self._must_end = len(self._due_ns)
        if schedule.phases is not None:
            cooldown = (schedule.phases[shard.index :: shard.of] == _COOLDOWN).nonzero()[0]
            self._must_end = int(cooldown[0]) if len(cooldown) else self._end

    def begin(self, t0_ns: int) -> None:
        """Set the absolute time of offset 0. Call once, before the first `take`."""
        self._waiting = [(due_ns + t0_ns, request) for due_ns, request in self._waiting]
        self._t0_ns = t0_ns

    @property
    def next_due_ns(self) -> int | None:
        """Due time of the next request, if one is known and has a place."""
        if self._closed or (self._pool is not None and self._pool.empty) or (self._cap is not None and self._cap.full):
            return None
        waiting_ns = self._waiting[0][0] if self._waiting else None
        if self._next >= self._end:
            return waiting_ns
        planned_ns = self._t0_ns + int(self._due_ns[self._next])
        return planned_ns if waiting_ns is None else min(planned_ns, waiting_ns)

    def release(self) -> None:
        """End the load that went on for other shards: none of them has a counting request left."""
        self._lingers = False

    @property
    def over(self) -> bool:
        """True if there is nothing left to send or to wait for."""
        return self.counted and (self._closed or not self._lingers)

    @property
    def counted(self) -> bool:
        """True if no counting request is left to send or in flight."""
        if self._counting_in_flight:
            return False
        if self._pool is not None:
            return self._closed or self._pool.measured == 0
        return self._closed or (self._next >= self._must_end and self._counting_pending == 0)

    @property
    def measured_until_ns(self) -> int | None:
        """Due time of the first request that is not measured, as an offset; None if planned or not reached."""
        pool = self._pool
        if pool is None or pool.measured or not pool.requests:
            return None
        end_ns = self._waiting[0][0] if pool.ended_ns is None and self._waiting else pool.ended_ns
        return None if end_ns is None else end_ns - self._t0_ns

    def take(self) -> Due:
        """Remove and return the request due next. Raises IndexError if there is none, or no place for it."""
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
        if self._cap is not None:
            due = due._replace(place_ns=self._cap.take())
        self._counting_in_flight += due.phase != Phase.COOLDOWN
        if self._taken is not None:
            self._taken[request] = 1
        return due

    def ended(self, due: Due, done_ns: int, *, failed: bool = False, sent: bool = True) -> None:
        """Schedule the follower of a request that has ended, and free its place; unless `sent`, as it was before.

        After a failure the wait is at least 100 ms, so that a refusing server does not get a flood of requests.
        """
        if self._cap is not None and due.place_ns is not None:
            self._cap.leave(done_ns if sent else due.place_ns)
        self._counting_in_flight -= due.phase != Phase.COOLDOWN
        following = None if self._closed else self._schedule.follower(due.row.request)
        if following is not None:
            think_ns = self._schedule.wait_ns(following)
            self._wait(done_ns + (max(think_ns, AFTER_FAILURE_NS) if failed else think_ns), following)

    def skip(self, due: Due) -> None:
        """Skip a taken request: its follower falls due in its own time, and another request is measured instead."""
        if self._pool is not None:
            self._pool.measured += due.phase == Phase.MEASURE
        self.ended(due, due.due_ns, sent=False)

    def upcoming(self, limit: int) -> Iterator[int]:
        """Yield up to `limit` requests that will probably fall due next and can be encoded already, in order."""
        if self._closed:
            return iter(())
        later_turn = self._schedule.is_later_turn
        waiting = (request for _, request in self._waiting[:limit] if not later_turn(request))
        planned = (int(self._starts[place]) for place in range(self._next, min(self._next + limit, self._end)))
        return islice((request for some in (planned, waiting) for request in some), limit)

    def follower(self, due: Due) -> int | None:
        """Return the request that falls due after this one, if it can be encoded already."""
        following = None if self._closed else self._schedule.follower(due.row.request)
        return None if following is None or self._schedule.is_later_turn(following) else following

    def close(self) -> Iterator[Due]:
        """End the load; yield the counting rows that were never sent. A second call yields nothing.

        A row counts if it had a planned time, or waited for a row with one. The rows that users of a closed loop would
        have reached are not planned.
        """
        if self._closed:
            return
        self._closed = True
        for place in range(self._next, self._must_end):
            yield self._due(int(self._starts[place]), self._t0_ns + int(self._due_ns[place]))
        if self._taken is not None:
            yield from self._later_turns(self._taken)
        elif self._schedule.loop is Loop.PARTLY_OPEN:
            waiting = ((due_ns, request) for due_ns, request in self._waiting if self._counts(due_ns, request))
            yield from (self._due(request, due_ns) for due_ns, request in waiting)

    def _later_turns(self, taken: bytearray) -> Iterator[Due]:
        """Yield the later turns that were never sent; an unknown due time is replaced by the conversation's start."""
        known_ns = {request: due_ns for due_ns, request in self._waiting}
        for place in range(self._must_end):
            start_ns = self._t0_ns + int(self._due_ns[place])
            turn = self._schedule.follower(int(self._starts[place]))
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
        """Return True if a waiting request will be measured, or precedes measured ones."""
        end_ns = self._schedule.window.end_ns
        if end_ns is None or due_ns - self._t0_ns < end_ns:
            return True
        return self._taken is not None and self._phase(due_ns, self._schedule.row(request)) != Phase.COOLDOWN

    def _phase(self, due_ns: int, row: Row) -> str:
        """Return the phase by due time. All turns of a measured conversation are measured, however late."""
        phase = self._schedule.window.phase_of(due_ns - self._t0_ns)
        if phase is not Phase.COOLDOWN or self._taken is None or row.session is None or self._schedule.phases is None:
            return phase
        began = PHASES[self._schedule.phases[row.session]]
        return Phase.MEASURE if began == Phase.MEASURE else Phase.COOLDOWN


class Pool:
    """Requests that the users of a closed loop share. The pools of all shards together hold all requests."""

    def __init__(self, requests: int) -> None:
        self.requests = requests  # to measure
        self.measured = requests  # left of them
        self.further = requests  # allowed after them
        self.ended_ns: int | None = None  # due time of the first further request

    @property
    def empty(self) -> bool:
        return not self.measured and not self.further

    def take(self, due: Due) -> Due:
        """Assign the phase of a request due now: measured while any are left. Warm-up requests do not count."""
        if due.phase == Phase.WARMUP:
            return due
        if self.measured:
            self.measured -= 1
            return due
        self.further -= 1
        if self.ended_ns is None:
            self.ended_ns = due.due_ns
        return due._replace(phase=Phase.COOLDOWN)


def requests_of(users: Sequence[int] | Int64, requests: int, of: int) -> int:
    """Return the share of these users in the requests that `of` users share."""
    return sum(len(range(int(user), requests, of)) for user in users)


class Prepared(Generic[T]):
    """Cache of encoded requests that fall due next: at most `limit`, of about `limit_bytes` by `size`.

    Later turns of conversations are encoded after a call of `want`, because they depend on the reply before.
    """

    def __init__(
        self,
        make: Callable[[int], T],
        queue: DueQueue,
        size: Callable[[T], int],
        limit: int = 256,
        limit_bytes: int = 32 << 20,
    ) -> None:
        self._make, self._queue, self._size = make, queue, size
        self._limit, self._limit_bytes = limit, limit_bytes
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
        if (follower := self._queue.follower(due)) is not None:
            self._wanted[follower] = None
        return made

    def drop(self, request: int) -> None:
        """Forget a request that will not be sent."""
        self._wanted.pop(request, None)
        made = self._made.pop(request, None)
        if made is not None:
            self._bytes -= self._size(made)

    def look_again(self) -> None:
        """Choose again what to encode: the schedule has other rows now. What was encoded belongs to its number."""
        self._wanted.clear()

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
