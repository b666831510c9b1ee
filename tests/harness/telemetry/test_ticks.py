"""Ticks are absolute, counted where they come late, never made up for, and cost what they say."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from harness.telemetry.sampler import Pace, Paced, Ticker

MS = 1_000_000


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 900)), min_size=1, max_size=50))
def test_ticks_stay_on_their_grid_and_none_is_made_up_for(delays: list[tuple[int, int]]) -> None:
    """However late a tick begins and however long it takes: the next is due on the grid and in the future, and every
    moment of the grid that has passed was either taken or counted as late.
    """
    pace = Pace(begun_ns=7 * MS, interval_ns=100 * MS)
    for late_ms, lasted_ms in delays:
        begin_ns = pace.due_ns + late_ms * MS
        pace.begins(begin_ns)
        end_ns = begin_ns + lasted_ms * MS
        pace.ended(end_ns, cpu_ns=0)
        assert (pace.due_ns - pace.begun_ns) % pace.interval_ns == 0
        assert end_ns < pace.due_ns <= end_ns + pace.interval_ns
    passed = (pace.due_ns - pace.begun_ns) // pace.interval_ns
    assert pace.ticks == len(delays)
    late = sum(late_ms > 50 for late_ms, _ in delays)
    assert passed - pace.ticks == pace.late_ticks - late


def test_a_tick_that_takes_three_intervals_leaves_out_what_it_overran() -> None:
    """The ones in between are counted, and the one after is in time again."""
    pace = Pace(begun_ns=0, interval_ns=100 * MS)
    pace.begins(0)
    pace.ended(310 * MS, cpu_ns=5 * MS)
    assert (pace.ticks, pace.late_ticks, pace.due_ns) == (1, 3, 400 * MS)
    pace.begins(400 * MS)
    pace.ended(410 * MS, cpu_ns=8 * MS)
    told = pace.summary()
    assert (told["ticks"], told["late_ticks"], told["interval_s"], told["ms_per_tick"]) == (2, 3, 0.1, 4.0)
    assert told["cpu_share"] == 8 / 410


def test_before_the_first_tick_nothing_is_known_of_the_cost() -> None:
    """Not zero."""
    told = Pace(0, MS).summary()
    assert (told["cpu_share"], told["ms_per_tick"]) == (None, None)


def test_the_thread_ticks_until_it_is_stopped() -> None:
    """On a thread of its own; nothing more is done once `stop` has returned."""
    seen: list[tuple[int, int]] = []
    three = threading.Event()

    def action(pace: Pace) -> None:
        seen.append((pace.ticks, threading.get_ident()))
        if len(seen) == 3:
            three.set()

    ticker = Ticker(action, 0.001)
    ticker.start()
    assert three.wait(60)
    assert ticker.stop() is None
    count = len(seen)
    assert [number for number, _ in seen] == list(range(1, count + 1))
    assert {thread for _, thread in seen} != {threading.get_ident()}
    assert ticker.pace.ticks == count
    assert ticker.pace.cpu_ns > 0


def test_stop_returns_the_exception_of_the_action() -> None:
    """The thread ends, and the error is not lost."""

    def full(_: Pace) -> None:
        raise OSError("no space left")

    ticker = Ticker(full, 0.001)
    ticker.start()
    error = ticker.stop()
    assert isinstance(error, OSError)


def test_what_costs_much_is_read_rarely() -> None:
    """A reading of 5 ms at a thousandth of a core is due again after 5 s, a cheap one after the usual time."""
    paced = Paced(every_s=1.0, share=0.001)
    assert paced.due(0)
    paced.took(0, cost_ns=5 * MS)
    assert not paced.due(4_999 * MS)
    assert paced.due(5_000 * MS)
    paced.took(5_000 * MS, cost_ns=0)
    assert (paced.due(5_999 * MS), paced.due(6_000 * MS)) == (False, True)
    paced.took(0, cost_ns=10**12)
    paced.at_once()
    assert paced.due(1)
    assert paced.read(lambda: "value") == "value"
