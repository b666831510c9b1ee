"""Parts of a plan, offered by several processes: together they are the plan."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.drivers.due_queue import Due, DueQueue
from harness.drivers.workers.group import merged
from harness.records import Loop, Phase
from harness.schedule.requests import Schedule, Shard, build
from tests.plans import load_of, workload_of

MS = 1_000_000
SERVICE_NS = 30 * MS
PLANS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "open": ({"kind": "sustained", "rate": 20, "requests": 40, "warmup": "500ms"}, {}),
    "open for a time": ({"kind": "burst", "rate": 5, "burst_rate": 50, "burst_for": "500ms", "every": "1s",
                         "duration": "2s", "timeout": "1s"}, {}),
    "closed": ({"kind": "sustained", "users": 5, "requests": 41, "think_time": "10ms"}, {}),
    "conversations of users": (
        {"kind": "sustained", "users": 5, "requests": 41},
        {"turns": {"dist": "uniform", "min": 1, "max": 4}, "think_time": "20ms"},
    ),
    "sessions": (
        {"kind": "sessions", "rate": 10, "sessions": 17, "think_time": "50ms", "warmup": "300ms"},
        {"turns": {"dist": "uniform", "min": 1, "max": 4}},
    ),
    "sessions for a time": ({"kind": "sessions", "rate": 20, "turns": 3, "duration": "2s", "timeout": "1s"}, {}),
}  # fmt: skip


@cache
def plan_of(name: str) -> Schedule:
    """Return a plan by name: what carries it out keeps notes of its own."""
    load, workload = PLANS[name]
    return build(load_of(**load), workload_of(**workload), 3)


def carried_out(schedule: Schedule, shard: Shard, stop_after: int | None = None) -> tuple[list[Due], list[Due]]:
    """Return the taken rows of a shard, with replies of 30 ms, and the rows reported at the stop."""
    offer = DueQueue(schedule, shard)
    offer.begin(0)
    taken: list[Due] = []
    running: list[Due] = []
    while not offer.over and (stop_after is None or len(taken) < stop_after):
        due_ns = offer.next_due_ns
        ends_ns = running[0].due_ns + SERVICE_NS if running else None
        if due_ns is not None and (ends_ns is None or due_ns <= ends_ns):
            running.append(offer.take())
            taken.append(running[-1])
        else:
            ended = running.pop(0)
            offer.ended(ended, ended.due_ns + SERVICE_NS)
    return taken, [] if stop_after is None else list(offer.close())


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(set(PLANS) - {"conversations of users"})), st.integers(1, 8))
def test_the_shards_of_a_plan_are_the_plan(name: str, workers: int) -> None:
    """Whatever the number of workers: the same requests, due times and phases, each from one worker."""
    schedule = plan_of(name)
    parts = [carried_out(schedule, Shard(index, workers))[0] for index in range(workers)]
    alone, _ = carried_out(schedule, Shard(0, 1))
    together = sorted((due.row.request, due.due_ns, due.phase) for part in parts for due in part)
    counting = [one for one in together if one[2] != Phase.COOLDOWN]
    assert counting == sorted((due.row.request, due.due_ns, due.phase) for due in alone if due.phase != Phase.COOLDOWN)
    if schedule.to_be_done is not None:
        assert [one[0] for one in counting] == list(range(schedule.to_be_done))
    for part in parts:
        assert [due.due_ns for due in part] == sorted(due.due_ns for due in part)


@pytest.mark.parametrize("workers", range(1, 9))
def test_workers_share_the_requests_of_users_by_their_users(workers: int) -> None:
    """Which rows are measured depends on who is free, so that workers may choose others; together they are as many, and
    each user's are the first of his.
    """
    schedule = plan_of("conversations of users")
    measured = [
        due.row.request
        for index in range(workers)
        for due in carried_out(schedule, Shard(index, workers))[0]
        if due.phase == Phase.MEASURE
    ]
    assert len(measured) == len(set(measured)) == 41
    for user in range(5):
        own = sorted(request for request in measured if request % 5 == user)
        assert own == list(range(user, user + 5 * len(own), 5))


@pytest.mark.parametrize("workers", range(1, 9))
def test_a_warm_up_leaves_all_measured_requests_to_the_shards(workers: int) -> None:
    """Also where some workers have no user at all."""
    schedule = build(load_of(kind="sustained", users=3, requests=20, warmup="200ms"), workload_of(), 1)
    parts = [carried_out(schedule, Shard(index, workers))[0] for index in range(workers)]
    assert sum(due.phase == Phase.MEASURE for part in parts for due in part) == 20


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["open", "sessions"]), st.integers(1, 4), st.integers(0, 30))
def test_every_row_of_a_stopped_plan_is_recorded_once(name: str, workers: int, stop_after: int) -> None:
    """Taken and unsent rows together are the measured plan, later turns included."""
    schedule = plan_of(name)
    told: list[int] = []
    for index in range(workers):
        taken, never = carried_out(schedule, Shard(index, workers), stop_after)
        told += [due.row.request for due in (*taken, *never) if due.phase != Phase.COOLDOWN]
    assert sorted(told) == list(range(schedule.to_be_done or 0))


@pytest.mark.parametrize("name", ["sessions", "sessions for a time"])
def test_conversations_begin_by_plan_and_go_on_after_replies(name: str) -> None:
    """First turns fall due when the plan says, later ones after the reply and the think time; all are labelled so. Of
    a number of conversations all turns are measured, of those for a time the turns that fall due in it.
    """
    schedule = plan_of(name)
    assert schedule.loop is Loop.PARTLY_OPEN
    taken, _ = carried_out(schedule, Shard(0, 1))
    by_request = {due.row.request: due for due in taken}
    for due in taken:
        if due.row.after is None:
            assert (due.due_ns, schedule.loop_of(due.row)) == (due.row.due_ns, Loop.OPEN)
        else:
            before = by_request[due.row.after]
            assert due.due_ns == before.due_ns + SERVICE_NS + due.row.think_ns
            assert schedule.loop_of(due.row) is Loop.CLOSED
        start, end = schedule.window.start_ns, schedule.window.end_ns
        begun = schedule.row(int(schedule.starts[due.row.session or 0])).phase
        late = end is not None and due.due_ns >= end and not (name == "sessions" and begun == Phase.MEASURE)
        assert due.phase == (Phase.WARMUP if due.due_ns < start else Phase.COOLDOWN if late else Phase.MEASURE)


def test_later_turns_are_not_written_ahead() -> None:
    """No request that needs a reply can be prepared."""
    schedule = plan_of("sessions")
    offer = DueQueue(schedule)
    offer.begin(0)
    due = offer.take()
    assert list(offer.upcoming(1000)) == [int(start) for start in schedule.starts[1:]]
    offer.ended(due, due.due_ns + SERVICE_NS)
    assert not any(schedule.is_later_turn(request) for request in offer.upcoming(1000))
    assert offer.follower(due) is None


def test_users_of_several_workers_are_measured_until_the_first_was_not() -> None:
    """The earliest end of the workers' shares ends the window; without any there is none."""
    told = [{"measured_until_ns": at, "resends": again} for at, again in ((7, 1), (None, 0), (5, 2))]
    together = merged(told, 0, None)
    assert (together.measured_until_ns, together.resends) == (5, 3)
    assert merged([{"measured_until_ns": None}], 0, None).measured_until_ns is None


def test_a_shard_with_requests_left_is_not_over() -> None:
    """The end is unknown while a request is left, then the next due time, then the real one."""
    schedule = build(load_of(kind="sustained", users=2, requests=3, think_time="10ms"), workload_of(), 1)
    offer = DueQueue(schedule)
    offer.begin(5 * MS)
    one, _ = offer.take(), offer.take()
    assert offer.measured_until_ns is None
    offer.ended(one, 35 * MS)
    third = offer.take()
    assert (third.phase, offer.measured_until_ns) == (Phase.MEASURE, None)
    offer.ended(third, 65 * MS)
    assert offer.measured_until_ns == 70 * MS
    assert (offer.take().phase, offer.measured_until_ns) == (Phase.COOLDOWN, 70 * MS)


def test_what_is_passed_over_is_given_back() -> None:
    """A turn that is not sent takes no place among those to be measured."""
    schedule = build(load_of(kind="sustained", users=1, requests=2), workload_of(), 1)
    offer = DueQueue(schedule)
    offer.begin(0)
    for _ in range(5):
        due = offer.take()
        assert (due.due_ns, due.phase) == (0, Phase.MEASURE)
        offer.skip(due)
    for _ in range(2):
        due = offer.take()
        offer.ended(due, due.due_ns + SERVICE_NS)
    assert offer.over
