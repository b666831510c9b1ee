"""Who takes part in a distributed trial: admitted, refused, late, lost; and how clocks are related."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.drivers.locust.roster import Clock, Roster, least_round_trip
from harness.schedule.requests import Shard


def ready(roster: Roster, *names: str) -> None:
    """These workers come and can begin."""
    for name in names:
        assert roster.admit(name) is not None
        worker = roster.get(name)
        assert worker is not None
        worker.clock = Clock(0, 0)


def test_shares_are_given_out_once_each() -> None:
    """Every worker gets a share of its own, the same one if it asks again; one too many gets none, and that is said."""
    roster = Roster(2)
    assert roster.admit("a") == Shard(0, 2)
    assert roster.admit("b") == Shard(1, 2)
    assert roster.admit("a") == Shard(0, 2)
    assert roster.admit("c") is None
    assert roster.notes == ["a load worker was one more than the 2 expected and was sent away"]


def test_a_worker_that_refuses_makes_room() -> None:
    """Before the start the share of a worker that cannot take part goes to the next one."""
    roster = Roster(1)
    roster.admit("a")
    roster.refuse("a", "the environment variable KEY is not set")
    assert roster.admit("b") == Shard(0, 1)
    assert roster.notes == ["a load worker refused: the environment variable KEY is not set"]


def test_a_worker_that_comes_late_is_sent_away() -> None:
    """After the start nobody is admitted; the shares that nobody has are known."""
    roster = Roster(3)
    ready(roster, "a")
    roster.admit("slow")
    roster.begin()
    assert [worker.name for worker in roster] == ["a"]
    assert roster.absent == [1, 2]
    assert roster.admit("slow") is None
    assert roster.notes[0] == "2 of 3 load workers had not come in time: their requests were not sent"


def test_a_worker_lost_in_mid_run_is_not_waited_for() -> None:
    """The others' end is the end; what it said before counts."""
    roster = Roster(2)
    ready(roster, "a", "b")
    roster.begin()
    roster.hear("b", 5)
    roster.lose("b", "was lost")
    worker = roster.get("b")
    assert worker is not None
    assert (worker.lost, worker.heard_ns) == ("it was lost", 5)
    assert not roster.all_counted
    other = roster.get("a")
    assert other is not None
    other.counted = True
    assert roster.all_counted
    other.report = {}
    assert roster.all_over


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
