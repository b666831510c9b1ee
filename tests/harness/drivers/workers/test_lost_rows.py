"""Rows of requests whose process died before it wrote their records: known answers."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.drivers.workers.lost_rows import lost_rows
from harness.records import Loop, Phase, Record, Status
from harness.schedule.requests import WHOLE, Schedule, Shard, build
from harness.store.run import Ended
from tests.plans import exact_schedule, load_of, workload_of

MS = 1_000_000
SECOND = 1_000 * MS


def lost(schedule: Schedule, told: dict[int, Ended], until_ms: float, shard: Shard = WHOLE) -> list[Record]:
    """The rows."""
    return list(lost_rows(schedule, shard, told, round(until_ms * MS), "it died"))


def measured(done_ms: float) -> Ended:
    """A record that came in."""
    return Ended(round(done_ms * MS), Phase.MEASURE)


@cache
def forty_at_a_rate() -> Schedule:
    """Four seconds of ten requests each."""
    return build(load_of(kind="sustained", rate=10, requests=40, arrivals="constant"), workload_of(), 1)


@cache
def twenty_of(users: int) -> Schedule:
    """Twenty requests that so many users share."""
    return exact_schedule(4, kind="sustained", users=users, requests=20)


@given(st.integers(1, 5), st.sets(st.integers(0, 39)), st.integers(-1, 5000))
def test_every_row_of_a_dead_share_is_recorded_once(of: int, seen: set[int], died_ms: int) -> None:
    """Only its own rows are added: `unfinished` if due by its death, with that end, otherwise `not_sent`."""
    shard = Shard(of - 1, of)
    found = lost(forty_at_a_rate(), {request: measured(0) for request in seen}, died_ms, shard)
    assert [record.request for record in found] == [i for i in range(of - 1, 40, of) if i not in seen]
    for record in found:
        assert record.due_ns is not None
        due_by_then = record.due_ns <= died_ms * MS
        assert record.status == (Status.UNFINISHED if due_by_then else Status.NOT_SENT)
        assert record.done_ns == (died_ms * MS if due_by_then else None)
        assert record.worker == shard.index
        assert record.error == "it died"


def test_users_who_share_a_number_of_requests() -> None:
    """Three users, ten requests: rows 0 to 4 ended, so 3 of the first user, 4 of the second and 5 of the third follow.
    User 0 thinks until 350 ms and user 1 until 450 ms when it dies at 400; the third was in flight from 300 ms on. One
    row each, and of the ten the rest was never sent.
    """
    schedule = exact_schedule(4, kind="sustained", users=3, requests=10, think_time="100ms")
    told = {0: measured(100), 1: measured(150), 2: measured(200), 3: measured(250), 4: measured(350)}
    found = {record.request: record for record in lost(schedule, told, 400)}
    assert sorted(found) == [5, 6, 7, 8, 9]
    assert {record.phase for record in found.values()} == {Phase.MEASURE}
    assert [found[5].status, found[6].status] == [Status.UNFINISHED] * 2
    assert [found[5].due_ns, found[6].due_ns, found[7].due_ns] == [300 * MS, 350 * MS, 450 * MS]
    assert {found[request].status for request in (7, 8, 9)} == {Status.NOT_SENT}
    assert found[5].done_ns == 400 * MS
    assert found[5].loop == Loop.CLOSED


@pytest.mark.parametrize("users", [1, 3, 16])
@given(ended=st.lists(st.integers(0, 15), max_size=40))
def test_of_a_number_of_requests_none_is_missing(users: int, ended: list[int]) -> None:
    """However far the users had come, there are as many measured rows as were asked for, each request once."""
    told: dict[int, Ended] = {}
    for at, user in enumerate(ended[:20]):
        request = user % users
        while request in told:
            request += users
        told[request] = measured(at)
    found = lost(twenty_of(users), told, 100)
    phases = Counter(record.phase for record in found)
    assert phases[Phase.MEASURE] + len(told) == 20
    assert len({record.request for record in found} | set(told)) == len(found) + len(told)


def test_users_for_a_while_were_all_in_flight() -> None:
    """Each has one row; what would have come later, nobody knows."""
    schedule = exact_schedule(4, kind="sustained", users=3, duration="10s", warmup="1s")
    found = lost(schedule, {0: Ended(900 * MS, Phase.WARMUP), 3: measured(2000)}, 3000)
    assert [(record.request, record.phase, record.status) for record in found] == [
        (1, Phase.WARMUP, Status.UNFINISHED),
        (2, Phase.WARMUP, Status.UNFINISHED),
        (6, Phase.MEASURE, Status.UNFINISHED),
    ]


def test_before_the_first_request_nothing_was_sent() -> None:
    """A process that died while it planned has sent nothing."""
    for load in ({"users": 4, "requests": 20}, {"rate": 5, "requests": 20, "arrivals": "constant"}):
        found = lost(exact_schedule(4, kind="sustained", **load), {}, -1)
        assert [record.request for record in found] == list(range(20))
        assert {(record.status, record.phase) for record in found} == {(Status.NOT_SENT, Phase.MEASURE)}


def test_conversations_of_a_number() -> None:
    """Two of three turns each: the first has one turn behind it, so that its second was in flight and its third never
    sent; of the second conversation only the first turn can have been.
    """
    keys = {"kind": "sessions", "rate": 1, "arrivals": "constant", "think_time": "100ms"}
    schedule = exact_schedule(4, **keys, sessions=2, turns=3)
    found = {record.request: record for record in lost(schedule, {0: measured(500)}, 1500)}
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert {request: record.status for request, record in found.items()} == {
        1: Status.UNFINISHED, 2: Status.NOT_SENT, 3: Status.UNFINISHED, 4: Status.NOT_SENT, 5: Status.NOT_SENT,
    }  # fmt: skip
    assert found[1].due_ns == 600 * MS


def test_later_turns_of_conversations_limited_by_time() -> None:
    """The turn behind the one that had ended was in flight; nobody knows of later ones."""
    keys = {"kind": "sessions", "rate": 1, "arrivals": "constant", "think_time": "100ms"}
    schedule = exact_schedule(4, **keys, duration="3s", turns=3)
    found = {record.request: record.status for record in lost(schedule, {0: measured(500)}, 1500)}
    assert found == {1: Status.UNFINISHED, 3: Status.UNFINISHED, 6: Status.NOT_SENT}
