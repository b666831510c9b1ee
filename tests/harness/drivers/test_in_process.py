"""Engines in this process, in real and in virtual time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from engines.base import Chunk, ChunkKind, EngineInfo, Request
from harness.drivers.base import Control
from harness.records import Phase, Record, Status
from harness.schedule.timing import Window
from tests import virtual_time
from tests.scripted_server import MS, SECOND, Plan, measure, open_plan


class Scripted:
    """Yields two tokens, the first after `first_s`, the second `gap_s` later; what goes wrong is given by number."""

    def __init__(self, first_s: float = 0.1, gap_s: float = 0.02, faults: dict[int, str] | None = None) -> None:
        self._first_s, self._gap_s, self._faults = first_s, gap_s, faults or {}
        self._count = 0
        self.closed = 0

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """There is none."""
        return ()

    def prepare(self) -> None:
        """Needs nothing."""

    async def start(self) -> EngineInfo:
        """Starts nothing."""
        return EngineInfo("scripted")

    async def stop(self) -> None:
        """Stops nothing."""

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Two tokens, or a fault."""
        fault = self._faults.get(self._count)
        self._count += 1
        try:
            await asyncio.sleep(self._first_s)
            if fault == "error":
                yield Chunk(ChunkKind.ERROR, "asked for")
                return
            if fault != "silent":
                yield Chunk(ChunkKind.CONTENT, "a", 1)
            if fault == "hang":
                await asyncio.get_running_loop().create_future()
            if fault == "raise":
                raise RuntimeError("engine bug")
            if fault == "cut":
                return
            await asyncio.sleep(self._gap_s)
            if fault != "silent":
                yield Chunk(ChunkKind.CONTENT, "b", 1)
            yield Chunk(ChunkKind.FINISH, finish_reason="stop")
        finally:
            self.closed += 1


def virtual(engine: Any, plan: Plan, **rest: Any) -> tuple[list[Record], Any]:
    """Records of a plan in virtual time."""
    return virtual_time.run(measure(engine, plan, **rest))


def test_virtual_times_are_exact() -> None:
    """In virtual time nothing is late: sent when due, tokens when the engine yields them."""
    records, report = virtual(Scripted(), open_plan([0, 30, 70_000]))
    assert [record.sent_ns for record in records] == [0, 30 * MS, 70 * SECOND]
    assert [record.first_token_ns - record.due_ns for record in records] == [100 * MS] * 3  # type: ignore[operator]
    assert [record.done_ns - record.due_ns for record in records] == [120 * MS] * 3  # type: ignore[operator]
    assert {(record.clock, record.output_tokens, record.token_source) for record in records} == {("loop", 2, "engine")}
    assert report.send_lag_max_ms == 0


def test_faults_in_process() -> None:
    """Errors, exceptions, hangs, cuts and silence each get their status; the trial goes on."""
    faults = {1: "error", 2: "hang", 3: "raise", 4: "cut", 5: "silent"}
    engine = Scripted(faults=faults)
    records, _ = virtual(engine, open_plan([0, 1, 2, 3, 4, 5, 6]), timeout_ms=30_000)
    assert [record.status for record in records] == [
        Status.OK,
        Status.STREAM_ERROR,
        Status.TIMEOUT,
        Status.STREAM_ERROR,
        Status.TRUNCATED,
        Status.EMPTY,
        Status.OK,
    ]
    assert records[2].done_ns == 30 * SECOND + 2 * MS
    assert records[2].first_token_ns == 102 * MS
    assert "engine bug" in (records[3].error or "")
    assert engine.closed == 7


def test_closed_loop_in_virtual_time() -> None:
    """Eight users, one second of service, one of thinking: four requests a second, exactly."""
    plan = Plan(None, users=8, think_ns=SECOND, window=Window(10 * SECOND, 70 * SECOND), continues=True)
    records, _ = virtual(Scripted(first_s=0.5, gap_s=0.5), plan)
    measured = [record for record in records if record.phase == Phase.MEASURE]
    assert len(measured) == 4 * 60
    assert {record.status for record in measured} == {Status.OK}
    assert {record.done_ns - record.due_ns for record in measured} == {SECOND}  # type: ignore[operator]


@pytest.mark.parametrize("way", ["stop", "abort"])
def test_stop_and_abort_in_process(way: str) -> None:
    """Stop lets the engine finish, abort closes its iterator; rows never sent are kept."""

    async def main() -> list[Record]:
        control = Control()
        asyncio.get_running_loop().call_later(0.05, getattr(control, way))
        records, report = await measure(Scripted(), open_plan([0, 500]), control=control)
        assert report.interrupted
        return records

    first = Status.OK if way == "stop" else Status.UNFINISHED
    assert [record.status for record in virtual_time.run(main())] == [first, Status.NOT_SENT]


def test_real_time_in_process() -> None:
    """In real time the same driver stamps by the system's clock."""
    records, report = asyncio.run(measure(Scripted(0.02, 0.01), open_plan([0, 10])))
    assert {record.status for record in records} == {Status.OK}
    assert all(record.first_token_ns - record.sent_ns >= 19 * MS for record in records)  # type: ignore[operator]
    assert report.heartbeat_p99_ms is not None


@pytest.mark.slow
def test_a_population_with_failures_is_counted_exactly() -> None:
    """9 700 good, 100 errors, 100 cuts, 100 hangs: each in its place, none missing."""
    kinds = {1: "error", 2: "cut", 3: "hang"}
    numbers = np.random.default_rng(13).permutation(10_000)[:300]
    faults = {int(number): kinds[1 + index % 3] for index, number in enumerate(numbers)}
    plan = open_plan([i * 10.0 for i in range(10_000)])
    records, _ = virtual(Scripted(0.08, 0.02, faults), plan, timeout_ms=30_000)
    counts = {status: sum(record.status == status for record in records) for status in Status}
    assert counts[Status.OK] == 9_700
    assert counts[Status.STREAM_ERROR] == counts[Status.TRUNCATED] == counts[Status.TIMEOUT] == 100
    assert all(
        (record.done_ns - record.due_ns == 30 * SECOND) == (record.status == Status.TIMEOUT)  # type: ignore[operator]
        for record in records
    )


@pytest.mark.slow
def test_many_virtual_requests() -> None:
    """20,000 requests over more than eight minutes of virtual time."""
    records, _ = virtual(Scripted(), open_plan(np.arange(20_000) * 25.0), keep_chunks=False)
    assert len(records) == 20_000
    assert {record.done_ns - record.due_ns for record in records} == {120 * MS}  # type: ignore[operator]


def test_waiting_for_nothing_is_an_error() -> None:
    """A virtual loop in which nothing can happen says so instead of hanging."""

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="deadlock"):
        virtual_time.run(main())


@pytest.mark.parametrize("way", ["stop", "abort"])
def test_an_end_at_the_moment_at_which_a_request_falls_due(way: str) -> None:
    """A request that was cut off before its first step has its one row, and the trial ends."""

    async def main() -> list[Record]:
        control = Control()
        asyncio.get_running_loop().call_later(0.5, getattr(control, way))
        return (await asyncio.wait_for(measure(Scripted(), open_plan([0, 500, 900]), control=control), 60))[0]

    second = Status.OK if way == "stop" else Status.UNFINISHED
    assert [record.status for record in virtual_time.run(main())] == [Status.OK, second, Status.NOT_SENT]


def test_a_user_waits_after_a_failure() -> None:
    """100 ms at least, or as long as he thinks; after a reply only that."""
    for think_ms, waits_ms in ((0, [100, 0, 100]), (30, [100, 30, 100]), (200, [200, 200, 200])):
        plan = Plan(4, users=1, think_ns=think_ms * MS)
        records, _ = virtual_time.run(measure(Scripted(faults={0: "error", 2: "raise"}), plan))
        done_ns = [record.done_ns for record in records]
        waited = [(one.due_ns - at_ns) / MS for one, at_ns in zip(records[1:], done_ns[:-1], strict=True)]  # type: ignore[operator]
        assert waited == waits_ms


def test_nothing_is_accepted_or_sent_again_in_process() -> None:
    """There is no other side."""
    records, report = virtual_time.run(measure(Scripted(), open_plan([0, 10])))
    assert [(record.accepting_ns, record.resends) for record in records] == [(None, 0)] * 2
    assert report.resends == 0


class Busy:
    """An engine that takes the loop's whole time: each reply costs it so many ms of work."""

    def __init__(self, work_ms: float) -> None:
        self._work_s = work_ms / 1e3
        self.begun = 0

    async def generate(self, request: Request) -> AsyncIterator[Chunk]:
        """Yield one token, after as much work."""
        self.begun += 1
        until_s = time.monotonic() + self._work_s
        while time.monotonic() < until_s:
            pass
        yield Chunk(ChunkKind.CONTENT, " a", tokens=1)
        yield Chunk(ChunkKind.FINISH, finish_reason="length")


def test_an_engine_that_cannot_keep_up_is_overloaded_and_not_hung() -> None:
    """Three times as much work as time: others are heard all the while, each request has its row, those that were come
    to after their time-out are not sent, and the trial ends when the last one's time is over.
    """
    engine = Busy(3.0)
    begun_at_looks: list[int] = []

    async def look() -> None:
        while True:
            begun_at_looks.append(engine.begun)
            await asyncio.sleep(0)

    async def main() -> list[Record]:
        looking = asyncio.ensure_future(look())
        try:
            records, _ = await measure(engine, open_plan(list(range(600))), timeout_ms=300)  # type: ignore[arg-type]
        finally:
            looking.cancel()
        return records

    records = asyncio.run(main())
    assert max(b - a for a, b in pairwise(begun_at_looks)) <= 16  # of 600: the others have their turn in between
    assert [record.request for record in records] == list(range(600))
    statuses = Counter(record.status for record in records)
    assert statuses[Status.OK] > 0
    assert statuses[Status.NOT_SENT] > 0
    assert set(statuses) <= {Status.OK, Status.NOT_SENT, Status.TIMEOUT}
    late = next(record for record in records if record.status == Status.NOT_SENT)
    assert late.error == "this client came to send it only after its time-out of 0.3 s"
    assert late.sent_ns is None
