"""Records of the requests of a load process that died.

The records that such a process had written are on disk and valid. For the rest, the plan gives the requests, and the
stored records give the progress. A request due by then is `unfinished`, another `not_sent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from harness.drivers.due_queue import Due, DueQueue, requests_of
from harness.drivers.timeline import not_sent
from harness.records import Loop, Phase, Record, Status
from harness.schedule.chains import Int64
from harness.schedule.requests import Schedule, Shard
from harness.store.run import Ended

MOST_UNSENT_OF_USERS = 1_000_000


def lost_rows(
    schedule: Schedule, shard: Shard, recorded: Mapping[int, Ended], until_ns: int, why: str = "its load worker died"
) -> Iterator[Record]:
    """Yield records of the requests that a dead process had not recorded, as `recorded` has them.

    In a closed loop these are its users' requests in flight, found by their predecessors. If a number of requests is
    the limit, the rest follows, up to a million rows. `until_ns` is the time of death as an offset from T0, negative if
    T0 was never set.
    """
    if schedule.loop is Loop.CLOSED:
        dues = _of_users(schedule, schedule.starts[shard.index :: shard.of], recorded, until_ns)
    else:
        dues = _of_the_plan(schedule, shard, recorded, until_ns)
    for due in dues:
        record = not_sent(due.row, due.phase, due.due_ns, schedule.loop_of(due.row), why)
        record.worker = shard.index
        begun = due.row.after is None or due.row.after in recorded
        if due.due_ns <= until_ns and begun:  # later progress is unknown
            record = replace(record, status=Status.UNFINISHED, done_ns=until_ns)
        yield record


def _of_the_plan(schedule: Schedule, shard: Shard, recorded: Mapping[int, Ended], until_ns: int) -> Iterator[Due]:
    """Yield the planned rows, and the later turns that had begun, with the best known due times."""
    queue = DueQueue(schedule, shard)
    queue.begin(0)
    listed = set()
    for due in queue.close():
        if due.row.request not in recorded:
            listed.add(due.row.request)
            yield due._replace(due_ns=_due_ns(schedule, due.row.request, recorded, due.due_ns))
    if schedule.loop is Loop.PARTLY_OPEN:
        for request in recorded:
            turn = schedule.follower(request)
            if turn is not None and turn not in recorded and turn not in listed:
                due_ns = _due_ns(schedule, turn, recorded, until_ns + 1)
                if due_ns <= until_ns:
                    yield Due(schedule.row(turn), due_ns, schedule.window.phase_of(due_ns))


def _of_users(
    schedule: Schedule, users: Sequence[int] | Int64, recorded: Mapping[int, Ended], until_ns: int
) -> Iterator[Due]:
    """Yield the next request of each user, by due time, and the requests never reached."""
    following = sorted(_following(schedule, int(user), recorded) for user in users)
    waiting = sorted((_due_ns(schedule, row, recorded, max(until_ns, 0)), row) for row in following)
    left = None
    if schedule.measured is not None:  # the shared requests that were not measured yet
        measured = sum(one.phase == Phase.MEASURE for one in recorded.values())
        left = max(0, requests_of(users, schedule.measured, schedule.users) - measured)
    for due_ns, request in waiting:
        phase: str = schedule.window.phase_of(due_ns)
        if phase == Phase.MEASURE and left is not None:
            phase, left = (Phase.MEASURE, left - 1) if left else (Phase.COOLDOWN, 0)
        if due_ns <= until_ns or (phase == Phase.MEASURE and left is not None):
            yield Due(schedule.row(request), due_ns, phase)
    if left and waiting:
        yield from islice(_never_come_to(schedule, following, max(until_ns, 0)), min(left, MOST_UNSENT_OF_USERS))


def _following(schedule: Schedule, user: int, recorded: Mapping[int, Ended]) -> int:
    """Return a user's first request without a record."""
    request = user
    while request in recorded:
        following = schedule.follower(request)
        assert following is not None  # a user's rows never end
        request = following
    return request


def _never_come_to(schedule: Schedule, after: Sequence[int], due_ns: int) -> Iterator[Due]:
    """Yield further requests, round the users; their due times are unknown."""
    while True:
        after = [schedule.follower(request) or 0 for request in after]  # a user's rows never end
        for request in after:
            yield Due(schedule.row(request), due_ns, Phase.MEASURE)


def _due_ns(schedule: Schedule, request: int, recorded: Mapping[int, Ended], otherwise_ns: int) -> int:
    """Return the due time of a request: planned, or after its predecessor; else `otherwise_ns`."""
    row = schedule.row(request)
    if row.after is None:
        return row.due_ns or 0
    before = recorded.get(row.after)
    return otherwise_ns if before is None or before.done_ns is None else before.done_ns + schedule.wait_ns(request)
