"""Rows of requests whose records nobody wrote, because the process that sent them is gone.

What such a process had written is on disk and true; of the rest the plan says what it was, and what was seen of others
how far it can have come. A request that had fallen due by then is `unfinished`, another `not_sent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from harness.drivers.offer import Due, Offer, requests_of
from harness.drivers.timeline import not_sent
from harness.records import Loop, Phase, Record, Status
from harness.schedule.chains import Int64
from harness.schedule.requests import Schedule, Shard
from harness.store.run import Told

MOST_UNSENT_OF_USERS = 1_000_000


def lost_rows(
    schedule: Schedule, shard: Shard, told: Mapping[int, Told], until_ns: int, why: str = "its load worker died"
) -> Iterator[Record]:
    """Records of what a process that died had not told of.

    In a closed loop those that its users had in flight, which follow from those that had ended, and where a number of
    requests limits it, the rest of them, for as many rows as a million.
    told: of the requests whose records have come in.   until_ns: when it died, as an offset from T0; negative where T0
    was never fixed.
    """
    if schedule.loop is Loop.CLOSED:
        dues = _of_users(schedule, schedule.starts[shard.index :: shard.of], told, until_ns)
    else:
        dues = _of_the_plan(schedule, shard, told, until_ns)
    for due in dues:
        record = not_sent(due.row, due.phase, due.due_ns, schedule.loop_of(due.row), why)
        record.worker = shard.index
        if due.due_ns <= until_ns and _begun(due, told):  # nobody saw more of it than until then
            record = replace(record, status=Status.UNFINISHED, done_ns=until_ns)
        yield record


def _begun(due: Due, told: Mapping[int, Told]) -> bool:
    """Whether it waited for nobody any more."""
    return due.row.after is None or due.row.after in told


def _of_the_plan(schedule: Schedule, shard: Shard, told: Mapping[int, Told], until_ns: int) -> Iterator[Due]:
    """The planned ones, and the later turns that had begun; of each the best that is known of its time."""
    offer = Offer(schedule, shard)
    offer.begin(0)
    listed = set()
    for due in offer.close():
        if due.row.request not in told:
            listed.add(due.row.request)
            yield due._replace(due_ns=_due_ns(schedule, due.row.request, told, due.due_ns))
    if schedule.loop is Loop.PARTLY_OPEN:
        for request in told:
            turn = schedule.follower(request)
            if turn is not None and turn not in told and turn not in listed:
                due_ns = _due_ns(schedule, turn, told, until_ns + 1)
                if due_ns <= until_ns:
                    yield Due(schedule.row(turn), due_ns, schedule.window.phase_of(due_ns))


def _of_users(
    schedule: Schedule, users: Sequence[int] | Int64, told: Mapping[int, Told], until_ns: int
) -> Iterator[Due]:
    """The next request of each user, by the time at which it fell due, and those never come to."""
    following = sorted(_following(schedule, int(user), told) for user in users)
    waiting = sorted((_due_ns(schedule, row, told, max(until_ns, 0)), row) for row in following)
    left = None if schedule.measured is None else _left(schedule, users, told)
    for due_ns, request in waiting:
        phase: str = schedule.window.phase_of(due_ns)
        if phase == Phase.MEASURE and left is not None:
            phase, left = (Phase.MEASURE, left - 1) if left else (Phase.COOLDOWN, 0)
        if due_ns <= until_ns or (phase == Phase.MEASURE and left is not None):
            yield Due(schedule.row(request), due_ns, phase)
    if left and waiting:
        yield from islice(_never_come_to(schedule, following, max(until_ns, 0)), min(left, MOST_UNSENT_OF_USERS))


def _following(schedule: Schedule, user: int, told: Mapping[int, Told]) -> int:
    """A user's first request without a record."""
    request = user
    while request in told:
        following = schedule.follower(request)
        assert following is not None  # the rows of users have no end
        request = following
    return request


def _never_come_to(schedule: Schedule, after: Sequence[int], due_ns: int) -> Iterator[Due]:
    """Further requests, each user's in turn; when they would have fallen due, nobody knows."""
    while True:
        after = [schedule.follower(request) or 0 for request in after]  # the rows of users have no end
        for request in after:
            yield Due(schedule.row(request), due_ns, Phase.MEASURE)


def _left(schedule: Schedule, users: Sequence[int] | Int64, told: Mapping[int, Told]) -> int:
    """How many of the requests that these users share were not measured yet."""
    assert schedule.measured is not None
    shared = requests_of(users, schedule.measured, schedule.users)
    return max(0, shared - sum(one.phase == Phase.MEASURE for one in told.values()))


def _due_ns(schedule: Schedule, request: int, told: Mapping[int, Told], otherwise_ns: int) -> int:
    """When a request fell due: planned, or after the one before it; `otherwise_ns` where that is not known."""
    row = schedule.row(request)
    if row.after is None:
        return row.due_ns or 0
    before = told.get(row.after)
    return otherwise_ns if before is None or before.done_ns is None else before.done_ns + schedule.wait_ns(request)
