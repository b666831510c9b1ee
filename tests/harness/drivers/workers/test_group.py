"""Membership of a shared trial (admitted, refused, late, lost), and clock offsets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from harness.drivers.base import Control
from harness.drivers.workers.group import Worker, WorkerGroup, least_round_trip, merged


class Nobody:
    """A transport that reaches nobody."""

    def send(self, worker: Worker, word: str, data: Mapping[str, Any]) -> None:
        """Ignore the message."""

    def look(self) -> None:
        """Nobody is to be seen."""


def crew_of(count: int) -> WorkerGroup:
    """A group that nobody has come to."""
    return WorkerGroup(count, Control(), Nobody())


def share_of(group: WorkerGroup, name: str) -> int | None:
    """Which share a worker is given that comes."""
    worker = group.admit(name)
    return None if worker is None else worker.index


def ready(group: WorkerGroup, *names: str) -> None:
    """These workers come and can begin."""
    for name in names:
        assert group.admit(name) is not None
        group.receive(name, "ready", {"offset_ns": 0, "uncertainty_ns": 0}, 0)


def test_shares_are_given_out_once_each() -> None:
    """Every worker gets a share of its own, the same one if it asks again; one too many gets none, and that is said."""
    group = crew_of(2)
    assert [share_of(group, name) for name in ("a", "b", "a", "c")] == [0, 1, 0, None]
    assert group.notes == ["a load worker was one more than the 2 expected and was dismissed"]


def test_a_worker_that_refuses_makes_room() -> None:
    """Before the start the share of a worker that cannot take part goes to the next one."""
    group = crew_of(1)
    group.admit("a")
    group.refuse("a", "the environment variable KEY is not set")
    assert share_of(group, "b") == 0
    assert group.notes == ["a load worker refused: the environment variable KEY is not set"]


def test_a_worker_lost_before_the_start_makes_room() -> None:
    """The share goes to the next worker, with a note."""
    group = crew_of(1)
    ready(group, "a")
    assert group.lose("a", "it was lost", "a load worker was lost before the start")
    assert group.ready == 0
    assert share_of(group, "b") == 0
    assert group.notes == ["a load worker was lost before the start"]


def test_a_worker_that_comes_late_is_sent_away() -> None:
    """After the start nobody is admitted; the shares that nobody has are known."""
    group = crew_of(3)
    ready(group, "a")
    group.admit("slow")
    group.close()
    assert [worker.name for worker in group] == ["a"]
    assert group.absent == [1, 2]
    assert group.admit("slow") is None
    assert group.notes[0] == "2 of 3 load workers did not come in time: their requests were not sent"


def test_a_worker_lost_in_mid_run_is_not_waited_for() -> None:
    """The others' end is the end; what it said before counts, what it says afterwards does not."""
    group = crew_of(2)
    ready(group, "a", "b")
    group.close()
    group.receive("b", "heartbeat", {}, 5)
    assert group.lose("b", "it was lost", "load worker 1 was lost")
    assert not group.lose("b", "it was lost", "load worker 1 was lost")
    worker = group.get("b")
    assert worker is not None
    assert (worker.lost, worker.last_message_ns) == ("it was lost", 5)
    assert not group.all_counted
    group.receive("a", "counted", {}, 6)
    assert group.all_counted
    group.receive("b", "report", {"report": {}}, 7)
    assert worker.report is None
    group.receive("a", "report", {"report": {}}, 7)
    assert group.all_over


@given(
    offset_ns=st.integers(-(10**15), 10**15),
    delays=st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**8)), min_size=1, max_size=30),
)
def test_the_clock_is_right_to_within_its_uncertainty(offset_ns: int, delays: list[tuple[int, int]]) -> None:
    """Whatever the delays there and back, the true offset lies within the stated uncertainty."""
    exchanges, worker_ns = [], 10**12
    for there_ns, back_ns in delays:
        master_ns = worker_ns + there_ns + offset_ns
        exchanges.append((worker_ns, master_ns, worker_ns + there_ns + back_ns))
        worker_ns += there_ns + back_ns + 1000
    clock = least_round_trip(exchanges)
    assert abs(clock.offset_ns - offset_ns) <= clock.uncertainty_ns
    assert clock.uncertainty_ns <= (min(there + back for there, back in delays) + 1) // 2
    assert clock.there(10**12 + clock.offset_ns) == 10**12


def test_failed_attempts_add_up_by_their_cause() -> None:
    """As the other counters do; a worker of an older version counts none."""
    report = merged([{"retried": {"HTTP 503": 2}}, {"retried": {"HTTP 503": 1, "connect": 4}}, {}], 0, None)
    assert report.retried == {"HTTP 503": 3, "connect": 4}
