"""A cap on the requests in flight beside a rate: who waits for a place, for how long, and what the records say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.drivers.base import Control, DriveSettings
from harness.drivers.cap import ALWAYS, Cap
from harness.drivers.drive import drive
from harness.drivers.due_queue import DueQueue
from harness.records import Phase, Record, Status
from tests import virtual_time
from tests.driven import driven_on, measured, simulated
from tests.plans import exact_schedule
from tests.queues import several_servers
from tests.scripted_server import MS, SECOND, Call, measure, open_plan, run, serving

CONSTANT = {"kind": "sustained", "arrivals": "constant"}


def held_s(records: Sequence[Record]) -> list[float]:
    """How long each request waited for a place, in seconds."""
    return [round((one.held_ns or 0) / SECOND, 6) for one in records]


def most_at_once(records: Sequence[Record]) -> int:
    """The most requests between sent and done; what ends at a moment is gone before what is sent then."""
    events = [(one.sent_ns, 1) for one in records if one.sent_ns is not None]
    events += [(one.done_ns or 0, -1) for one in records if one.sent_ns is not None]
    at_once = most = 0
    for _, change in sorted(events):
        at_once += change
        most = max(most, at_once)
    return most


def test_a_place_that_was_never_taken_has_always_been_free() -> None:
    """Of freed places the one that has been free for longest is taken first, in whatever order they were freed."""
    cap = Cap(2)
    assert [cap.take(), cap.take(), cap.full] == [ALWAYS, ALWAYS, True]
    cap.leave(7)
    cap.leave(5)
    assert [cap.take(), cap.take()] == [5, 7]
    with pytest.raises(IndexError):
        cap.take()


def test_a_request_that_is_not_sent_leaves_its_place_as_it_was() -> None:
    """The place was freed at 5; what took it and was not sent did not free it later."""
    offer = DueQueue(exact_schedule(1, rate=1, requests=4, **CONSTANT), cap=Cap(1))
    offer.begin(0)
    first = offer.take()
    assert (first.place_ns, first.held_ns, offer.next_due_ns) == (ALWAYS, 0, None)
    offer.ended(first, 5 * SECOND)
    offer.ended(offer.take(), 9 * SECOND, sent=False)
    offer.skip(offer.take())
    last = offer.take()
    assert (last.due_ns, last.place_ns, last.held_ns) == (3 * SECOND, 5 * SECOND, 2 * SECOND)


def test_waits_are_those_of_a_queue_of_constant_services() -> None:
    """D/D/8 at 10/s with services of 1 s: the k-th request waits floor(k / 8) times the 0.2 s by which a round of eight
    is due too soon.
    """
    engine = simulated(ttft_ms=1000, tpot_ms=0)
    records = measured(driven_on(engine, exact_schedule(1, rate=10, requests=160, **CONSTANT), cap=8)[0])
    assert held_s(records) == [round(0.2 * (k // 8), 6) for k in range(160)]
    assert all(one.sent_ns == (one.due_ns or 0) + (one.held_ns or 0) for one in records)
    assert all(one.done_ns == (one.sent_ns or 0) + SECOND for one in records)
    assert most_at_once(records) == 8


def test_a_cap_that_is_never_reached_holds_nobody() -> None:
    """The records are those without a cap, but for a wait of 0 that is unknown there."""
    plan = exact_schedule(1, rate=10, requests=60, **CONSTANT)
    capped, free = (measured(driven_on(simulated(ttft_ms=500, tpot_ms=0), plan, cap=cap)[0]) for cap in (6, None))
    assert {one.held_ns for one in capped} == {0}
    assert {one.held_ns for one in free} == {None}
    stamps = [[(one.request, one.due_ns, one.sent_ns, one.done_ns) for one in each] for each in (capped, free)]
    assert stamps[0] == stamps[1]


@settings(max_examples=40, deadline=None)
@given(
    cap=st.integers(1, 6), rate=st.sampled_from([5, 20, 80]), seed=st.integers(0, 99), arrivals=st.sampled_from([1, 2])
)
def test_places_are_the_servers_of_a_queue(cap: int, rate: int, seed: int, arrivals: int) -> None:
    """Random arrivals and random services: never more than the cap are in flight, requests are sent in the order of
    their due times, and wait, lag and service add up. Each is sent when the servers of the same queue are free for it.
    """
    kind = {"arrivals": "poisson"} if arrivals == 1 else {"arrivals": "gamma", "cv": 2}
    plan = exact_schedule(1, kind="sustained", rate=rate, requests=60, seed=seed, **kind)
    engine = simulated(ttft_ms=100, tpot_ms=0, service="exponential", seed=seed)
    records = measured(driven_on(engine, plan, cap=cap)[0])
    due, sent, done = (
        np.array([getattr(one, name) for one in records], dtype=np.int64) for name in ("due_ns", "sent_ns", "done_ns")
    )
    held = np.array([one.held_ns for one in records], dtype=np.int64)
    assert most_at_once(records) <= cap
    assert (np.diff(sent) >= 0).all()
    assert (done - due == held + (sent - due - held) + (done - sent)).all()
    assert (abs(sent - due - held) <= 1000).all()  # virtual time is a float of seconds
    queue = several_servers(due, done - sent, cap)
    assert sent == pytest.approx(queue.begun_ns, abs=1000 * len(records))


def test_no_wait_is_counted_as_lateness_of_the_load_generator() -> None:
    """It is busy for 30 ms after each reply: the place was free before, and only these are its lag."""
    plan = exact_schedule(1, rate=10, requests=12, **CONSTANT)
    records, report = driven_on(simulated(ttft_ms=300, tpot_ms=0), plan, cap=1, busy_s=0.03)
    lags = [(one.sent_ns or 0) - (one.due_ns or 0) - (one.held_ns or 0) for one in measured(records)]
    assert [round(lag / MS) for lag in lags] == [0, *[30] * 11]
    assert report.send_lag_max_ms == pytest.approx(30)


def test_a_request_without_a_place_within_its_time_out_has_timed_out() -> None:
    """Eight at once on two places, 1 s each, a time-out of 2 s: four are answered in time. Places are free for the
    others only when they have timed out, which they did 2 s after they were due, unsent.
    """
    engine = simulated(ttft_ms=1000, tpot_ms=0)

    async def body() -> list[Record]:
        await engine.start()
        records, _ = await measure(engine, open_plan([0] * 8), timeout_ms=2000.001, most_in_flight=2)
        return records

    records = virtual_time.run(body())
    assert [one.status for one in records] == [Status.OK] * 4 + [Status.TIMEOUT] * 4
    assert [one.sent_ns is None for one in records] == [False] * 6 + [True] * 2
    late = records[6:]
    assert {one.error for one in late} == {"no place was free within 2 s after it was due"}
    assert {(one.done_ns or 0) - (one.due_ns or 0) for one in late} == {2_000_001_000}
    assert {one.held_ns for one in late} == {2_000_001_000}


def test_a_turn_in_flight_has_a_place_and_a_thinking_user_has_none() -> None:
    """Conversations of two turns, a reply of 1 s and 2 s of thinking, on one place: others begin while the first users
    think, three more than are measured. A later turn waits for those that fell due before it.
    """
    load = {"kind": "sessions", "rate": 10, "sessions": 3, "turns": 2, "think_time": "2s", "arrivals": "constant"}
    records = measured(driven_on(simulated(ttft_ms=1000, tpot_ms=0), exact_schedule(1, **load), cap=1)[0])
    by_turn = [[one for one in records if one.turn == turn] for turn in (0, 1)]
    assert held_s(by_turn[0]) == [0, 0.9, 1.8]
    assert [round((one.sent_ns or 0) / SECOND, 6) for one in by_turn[1]] == [6, 7, 8]
    assert held_s(by_turn[1]) == [3, 3, 3]
    assert most_at_once(records) == 1


def test_conversations_end_whose_turn_found_no_place() -> None:
    """The server never answers, and its only place is taken until the time-out of the first: of the others, due within
    milliseconds, some find no place in time and some are sent too late. All have timed out, and no later turn is sent.
    """
    load = {"kind": "sessions", "rate": 1000, "sessions": 8, "turns": 2, "arrivals": "constant"}
    records: list[Record] = []

    async def silent(call: Call) -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        async with serving(silent) as server:
            chosen = DriveSettings(200 * MS, most_in_flight=1)
            await drive(exact_schedule(1, **load), server.endpoint, chosen, records.append)

    asyncio.run(main())
    first, second = ([one for one in measured(records) if one.turn == turn] for turn in (0, 1))
    assert [one.status for one in first] == [Status.TIMEOUT] * 8
    assert [one.status for one in second] == [Status.NOT_SENT] * 8
    assert {str(one.error).split(":")[0] for one in second} == {"the conversation was interrupted"}
    assert all((one.done_ns or 0) - (one.due_ns or 0) >= 200 * MS for one in first)
    assert any(one.sent_ns is None for one in first)


def test_turns_over_a_socket_share_the_places() -> None:
    """Each turn carries the reply before it, and no two are in flight."""
    load = {"kind": "sessions", "rate": 100, "sessions": 4, "turns": 3, "arrivals": "constant"}
    records: list[Record] = []

    async def main() -> list[bytes]:
        async with serving(Call.good) as server:
            chosen = DriveSettings(60 * SECOND, most_in_flight=1, keep_text=True)
            await drive(exact_schedule(2, **load), server.endpoint, chosen, records.append)
            return [call.body for call in server.calls]

    bodies = asyncio.run(main())
    assert {one.status for one in measured(records)} == {Status.OK}
    assert len(measured(records)) == 12
    assert most_at_once(records) == 1
    assert sum(body.count(b" a b") == 2 for body in bodies) >= 4


def test_a_stopped_load_sends_nobody_who_waits() -> None:
    """What was due and had no place when the load was stopped has a row, and was not sent."""
    control = Control()

    async def script(call: Call) -> None:
        control.stop()
        await call.good()

    records, _, server = run(script, open_plan([0, 0, 0]), control=control, most_in_flight=1)
    assert [one.status for one in records] == [Status.OK, Status.NOT_SENT, Status.NOT_SENT]
    assert len(server.calls) == 1


def test_requests_wait_for_a_server_as_well() -> None:
    """Over a socket: the server sees two at once, in the order of their due times, and the wait of each is the time
    until the arrival of a reply's end.
    """
    at_once, most, order = 0, 0, list[int]()

    async def script(call: Call) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        order.append(call.number)
        await asyncio.sleep(0.03)
        at_once -= 1
        await call.good()

    records, _, _ = run(script, open_plan([0] * 10), most_in_flight=2)
    assert (most, order) == (2, list(range(10)))
    assert {one.status for one in records} == {Status.OK}
    sent = [one.sent_ns or 0 for one in records]
    assert sent == sorted(sent)
    ends = [0, 0, *sorted(one.done_ns or 0 for one in records)]
    waits = [max(0, end - (one.due_ns or 0)) for one, end in zip(records, ends[:10], strict=True)]
    assert [one.held_ns for one in records] == pytest.approx(waits, abs=MS)
    assert all((one.sent_ns or 0) >= (one.due_ns or 0) + (one.held_ns or 0) for one in records)


def test_the_load_generator_rests_while_every_place_is_taken() -> None:
    """A hundred requests are overdue and the only place is taken for 0.4 s: no alarm rings for them meanwhile."""
    spent = 0.0

    async def script(call: Call) -> None:
        nonlocal spent
        if call.number == 0:
            before = time.process_time()
            await asyncio.sleep(0.4)
            spent = time.process_time() - before
        await call.good()

    records, _, _ = run(script, open_plan([0] * 100), most_in_flight=1)
    assert {one.status for one in records} == {Status.OK}
    assert spent < 0.2, f"{spent:.3f} s of processor time in 0.4 s"


def test_load_after_the_window_waits_behind_the_measured_requests() -> None:
    """The cooldown takes no place from a measured request that is due before it."""
    plan = exact_schedule(1, rate=20, duration="2s", **CONSTANT)
    records = driven_on(simulated(ttft_ms=500, tpot_ms=0), plan, cap=2)[0]
    sent = sorted((one.sent_ns, one.phase) for one in records if one.sent_ns is not None)
    phases = [phase for _, phase in sent]
    assert phases == sorted(phases, key=[Phase.MEASURE, Phase.COOLDOWN].index)
    assert phases.count(Phase.MEASURE) == 40
