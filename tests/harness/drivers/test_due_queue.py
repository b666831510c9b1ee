"""Due times in open and closed loops, connections, lost servers, stopping."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import numpy as np
import pytest

from engines.base import Endpoint, Request
from harness.drivers.base import Control, DriveSettings
from harness.drivers.drive import drive
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk
from harness.records import Clock, Phase, Record, Status
from harness.schedule.timing import Window
from tests.scripted_server import MS, Call, Plan, ending, measure, open_plan, piece, reply, run, serving

pytestmark = pytest.mark.slow


async def good(call: Call) -> None:
    """A good reply at once."""
    await call.good()


def test_an_open_loop_gives_one_row_for_each_planned_request() -> None:
    """Rows equal the plan: numbers, due times, phases; nothing is sent before it is due."""
    due_ms = sorted(np.random.default_rng(1).uniform(0, 300, 100))
    plan = open_plan(due_ms, phases=[0] * 20 + [1] * 80)
    records, report, server = run(good, plan)
    assert [record.request for record in records] == list(range(100))
    assert [record.due_ns for record in records] == plan.due_ns.tolist()
    assert [record.phase for record in records] == [Phase.WARMUP] * 20 + [Phase.MEASURE] * 80
    assert all(record.status == Status.OK and record.sent_ns >= record.due_ns for record in records)
    assert (report.planned, report.recorded, len(server.calls)) == (100, 100, 100)
    assert not report.interrupted


def test_the_order_of_a_record_is_the_order_of_events() -> None:
    """Due, dispatched, sent, headers, first byte, tokens, done never run backwards."""
    records, report, _ = run(good, open_plan([0, 1, 2]))
    for record in records:
        times = [record.due_ns, record.dispatched_ns, record.sent_ns, record.headers_ns, record.first_byte_ns]
        times += [record.first_token_ns, record.last_token_ns, record.done_ns]
        assert times == sorted(times)  # type: ignore[type-var]
        assert (record.output_tokens, record.token_source, record.finish_reason) == (2, "usage", "length")
        assert record.text == " a b"
    assert report.clock in set(Clock)


def test_a_slow_server_does_not_slow_down_an_open_loop() -> None:
    """Requests are sent when due although no reply has come; new connections are opened for them."""
    every_request_came = asyncio.Event()

    async def slow(call: Call) -> None:
        if call.number == 3:
            every_request_came.set()
        await every_request_came.wait()
        await call.good()

    records, report, server = run(slow, open_plan([0, 50, 100, 150]), warm_connections=1)
    assert [record.status for record in records] == [Status.OK] * 4
    assert [record.connection_reused for record in records] == [True, False, False, False]
    assert server.connections == report.connections_opened == 4
    assert records[0].connected_ns is None
    assert records[1].connected_ns is not None


def test_requests_that_are_due_together_wait_for_no_connection() -> None:
    """Each of a spike has one before the start, and more than the 64 of other open loops."""
    records, report, server = run(good, open_plan([0] * 100))
    assert (server.connections, report.connections_in_window) == (100, 0)
    assert {record.connection_reused for record in records} == {True}


def test_connections_are_kept_and_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single user needs one connection for any number of requests."""
    monkeypatch.setattr("harness.drivers.http.pool._REST_NS", 0)
    records, _, server = run(good, Plan(5, users=1))
    assert server.connections == 1
    assert {record.connection_reused for record in records} == {True}


def test_closed_loop_users_take_turns_with_themselves() -> None:
    """A request falls due when its user's previous one is done and the think time is over."""
    records, _, _ = run(good, Plan(12, users=3, think_ns=20 * MS))
    assert [record.request for record in records] == list(range(12))
    by_number = {record.request: record for record in records}
    for record in records[3:]:
        before = by_number[record.request - 3]
        assert record.user == before.user
        assert record.after == before.request
        assert record.due_ns == before.done_ns + 20 * MS  # type: ignore[operator]


def test_a_closed_loop_with_a_window_ends_after_its_measured_requests() -> None:
    """Phases come from due times; what is in flight afterwards is cooldown and is cut off."""
    plan = Plan(None, users=2, think_ns=10 * MS, window=Window(100 * MS, 300 * MS), continues=True)
    records, report, _ = run(good, plan)
    for record in records:
        expected = (
            Phase.WARMUP if record.due_ns < 100 * MS else Phase.MEASURE if record.due_ns < 300 * MS else Phase.COOLDOWN
        )
        assert record.phase == expected
    assert all(record.status == Status.OK for record in records if record.phase != Phase.COOLDOWN)
    for user in range(2):
        last = [record for record in records if record.user == user][-1]
        assert last.phase == Phase.COOLDOWN or last.done_ns >= 290 * MS  # type: ignore[operator]  # nobody stops early
    assert not report.interrupted


def test_cooldown_continues_only_while_a_request_is_measured() -> None:
    """Cooldown rows go on while the last measured request runs; those never due have no record."""

    three_came = asyncio.Event()

    async def script(call: Call) -> None:
        if call.number == 2:
            three_came.set()
        await three_came.wait()
        await call.good()

    plan = open_plan([0, 50, 100, 600_000, 600_100], phases=[1, 2, 2, 2, 2], continues=True)
    records, report, _ = run(script, plan)
    assert [record.request for record in records] == [0, 1, 2]
    assert report.recorded == 3


def test_a_server_that_vanishes_gives_errors_at_their_due_times() -> None:
    """After a kill every later request is a connection error when it falls due; nothing hangs."""

    class Numbered(Plan):
        def request(self, i: int, history: Any = ()) -> Request:
            return Request(f"number {i}", 4)

    async def main() -> list[Record]:
        answered: set[int] = set()
        three_answered = asyncio.Event()
        async with serving(good) as server:

            async def killer(call: Call) -> None:
                number = int(json.loads(call.body)["prompt"].removeprefix("number "))
                if number < 3:
                    await call.good()
                    answered.add(number)
                    if len(answered) == 3:
                        three_answered.set()
                else:
                    await three_answered.wait()  # several may have come at once
                    server.kill()

            server._script = killer
            plan = Numbered(10, due_ns=np.arange(10) * 20 * MS)
            records, _ = await measure(server.endpoint, plan)
            return records

    records = asyncio.run(main())
    assert [record.status for record in records[:3]] == [Status.OK] * 3
    assert {record.status for record in records[3:]} == {Status.CONNECTION_ERROR}
    assert all(record.done_ns >= record.due_ns for record in records)  # type: ignore[operator]


def test_closed_loop_users_do_not_storm_a_dead_server() -> None:
    """A user whose connection failed waits 100 ms before the next try."""
    plan = Plan(None, users=2, window=Window(0, 350 * MS), continues=True)
    records, _ = asyncio.run(measure(Endpoint("http://127.0.0.1:9", "openai-completions"), plan))
    assert {record.status for record in records} == {Status.CONNECTION_ERROR}
    assert 2 <= len(records) <= 10


@pytest.mark.parametrize("status", ["429 slow down", "500 no", "503 busy"])
def test_closed_loop_users_do_not_storm_a_server_that_refuses(status: str) -> None:
    """After a refusal a user waits 100 ms too, or as long as he thinks, whichever is longer."""

    async def refusing(call: Call) -> None:
        await call.send(reply(status, b"{}"))

    for think_ms in (0, 30, 150):
        records, _, _ = run(refusing, Plan(6, users=2, think_ns=think_ms * MS))
        assert {record.status for record in records} <= {Status.HTTP_ERROR, Status.REJECTED}
        done_ns = {record.request: record.done_ns for record in records}
        for record in records[2:]:
            before_ns = done_ns[record.request - 2]
            assert record.due_ns == before_ns + max(100, think_ms) * MS  # type: ignore[operator]


def test_a_connection_that_the_server_wants_closed_is_not_reused() -> None:
    """`connection: close` is obeyed."""

    async def script(call: Call) -> None:
        head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        await call.send(head + chunk(piece()) + chunk(ending()) + LAST_CHUNK)
        call.writer.close()

    records, _, server = run(script, Plan(2, users=1), warm_connections=1)
    assert [record.status for record in records] == [Status.OK, Status.OK]
    assert server.connections == 2


def test_users_share_the_requests_that_are_measured() -> None:
    """A user with a slow first reply leaves the other requests to the others.

    When all are taken they continue beside it, for at most as many again; the report has the end of the window.
    """
    others_are_done = asyncio.Event()

    async def script(call: Call) -> None:
        if call.number == 12:
            others_are_done.set()
        if call.number == 0:
            await others_are_done.wait()
        await call.good()

    plan = Plan(None, users=3, measured=10, continues=True)
    records, report, _ = run(script, plan)
    first = next(record for record in records if record.done_ns == max(one.done_ns or 0 for one in records[:3]))
    measured = [record for record in records if record.phase == Phase.MEASURE]
    further = [record for record in records if record.phase == Phase.COOLDOWN]
    assert len(measured) == 10
    assert 3 <= len(further) <= 10
    assert [record.request for record in measured if record.user == first.user] == [first.user]
    assert report.measured_until_ns == min(record.due_ns or 0 for record in further)
    assert max(record.due_ns or 0 for record in measured) <= report.measured_until_ns


def test_one_user_ends_with_his_last_measured_request() -> None:
    """Nobody is measured beside whom he would have to go on; the window ends when his next one would have been due."""
    records, report, server = run(good, Plan(None, users=1, measured=5, continues=True, think_ns=10 * MS))
    assert [record.phase for record in records] == [Phase.MEASURE] * 5
    assert len(server.calls) == 5
    assert records[-1].done_ns is not None
    assert report.measured_until_ns == records[-1].done_ns + 10 * MS


@pytest.mark.parametrize("way", ["stop", "abort"])
def test_stop_and_abort(way: str) -> None:
    """Stop lets replies end, abort does not; either way each planned row of an open loop has a record."""

    async def main() -> tuple[list[Record], bool]:
        control = Control()

        async def slow(call: Call) -> None:
            getattr(control, way)()
            await asyncio.sleep(0.1)
            await call.good()

        async with serving(slow) as server:
            records, report = await measure(server.endpoint, open_plan([0, 600_000, 600_100]), control=control)
            return records, report.interrupted

    records, interrupted = asyncio.run(main())
    assert interrupted
    first = Status.OK if way == "stop" else Status.UNFINISHED
    assert [record.status for record in records] == [first, Status.NOT_SENT, Status.NOT_SENT]


def test_what_does_not_end_within_the_drain_is_unfinished() -> None:
    """After a stop, requests in flight have `drain_ns` to end; the first token of one that has not is kept."""

    async def main() -> list[Record]:
        control = Control()
        token_sent = asyncio.Event()

        async def script(call: Call) -> None:
            if call.number == 0:
                await call.send(STREAM_HEAD + chunk(piece()))
                token_sent.set()
            elif call.number == 1:
                await token_sent.wait()
                await call.good()  # which the client reads after the token, and then asks again
                return
            else:
                control.stop()
            await asyncio.Event().wait()

        async with serving(script) as server:
            records, _ = await measure(server.endpoint, Plan(4, users=2), control=control, drain_ns=100 * MS)
            return records

    records = asyncio.run(main())
    assert sorted(record.status for record in records) == [Status.OK, Status.UNFINISHED, Status.UNFINISHED]
    assert [record.first_token_ns is not None for record in records] == [True, True, False]


def test_a_failing_sink_ends_the_trial() -> None:
    """An error of the writer is raised to whoever drives, not lost in the loop."""

    def broken(record: Record) -> None:
        raise OSError("disk full")

    async def main() -> None:
        async with serving(good) as server:
            await drive(open_plan([0]), server.endpoint, DriveSettings(10**9), broken)  # type: ignore[arg-type]

    with pytest.raises(OSError, match="disk full"):
        asyncio.run(main())


@pytest.mark.parametrize("frozen", [0, 1000])
def test_the_collector_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, frozen: int) -> None:
    """Garbage collection is off during the trial only; objects that were frozen before it stay frozen."""
    monkeypatch.setattr("gc.get_freeze_count", lambda: frozen)
    unfrozen: list[bool] = []
    monkeypatch.setattr("gc.unfreeze", lambda: unfrozen.append(True))
    seen = []

    async def script(call: Call) -> None:
        seen.append(gc.isenabled())
        await call.good()

    run(script, open_plan([0]))
    assert seen == [False]
    assert gc.isenabled()
    assert bool(unfrozen) == (frozen == 0)


def test_arrivals_agree_with_the_server_own_log() -> None:
    """An arrival lies between the moment before the token was written and that before the next one was."""

    async def script(call: Call) -> None:
        await call.send(STREAM_HEAD)
        await call.send(chunk(piece(" a")), after_ms=30)
        await call.send(chunk(piece(" b")) + chunk(ending()) + LAST_CHUNK, after_ms=30)

    records, report, server = run(script, open_plan([0]))
    record = records[0]
    assert record.first_token_ns is not None
    if report.clock == Clock.KERNEL:
        _, written_ns, next_ns = server.calls[0].log_ns
        assert written_ns <= record.first_token_ns + report.t0_ns < next_ns  # not blurred into the gap
