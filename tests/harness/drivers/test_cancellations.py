"""Requests that the plan gives up: the client goes away in mid-reply, at the planned time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest

from engines.base import EngineSpec
from engines.simulated import SimulatedEngine
from harness.drivers.base import DriveReport, DriveSettings
from harness.drivers.drive import drive
from harness.records import Phase, Record, Status
from harness.schedule.requests import Schedule, build
from tests import virtual_time
from tests.plans import load_of, workload_of
from tests.scripted_server import MS, SECOND, Call, serving

pytestmark = pytest.mark.slow

FIVE = {"output_tokens": {"dist": "fixed", "value": 50, "exact": True}}


def plan_of(share: float, after: Any, **load: Any) -> Schedule:
    """A plan, a share of which is given up."""
    wanted = load or {"kind": "sustained", "rate": 50, "requests": 400}
    return build(load_of(**wanted), workload_of(cancel={"share": share, "after": after}, **FIVE), 2)


def in_virtual_time(plan: Schedule, **options: Any) -> list[Record]:
    """Records of the measured requests, in the order of their numbers."""
    records: list[Record] = []

    async def body() -> None:
        engine = SimulatedEngine(EngineSpec("simulated", options=options))
        await engine.start()
        await drive(plan, engine, DriveSettings(60 * SECOND), records.append)
        await engine.stop()

    virtual_time.run(body())
    return measured(records)


def measured(records: list[Record]) -> list[Record]:
    """In the order of their numbers, without what follows them as load."""
    return sorted((one for one in records if one.phase == Phase.MEASURE), key=lambda record: record.request)


def test_the_chosen_rows_are_planned() -> None:
    """About the asked share, each with a time of its own; another seed chooses others, the rest stays as it is."""
    plan = plan_of(0.3, {"dist": "exponential", "mean": "1s"}, kind="sustained", rate=50, requests=4000)
    after = [plan.row(i).cancel_ns for i in range(4000)]
    chosen = [one for one in after if one is not None]
    assert len(chosen) / 4000 == pytest.approx(0.3, abs=0.03)
    assert np.mean(chosen) == pytest.approx(SECOND, rel=0.1)
    plain = build(load_of(kind="sustained", rate=50, requests=4000), workload_of(**FIVE), 2)
    assert [plain.request(i) for i in range(50)] == [plan.request(i) for i in range(50)]
    assert plain.plan_hash != plan.plan_hash


def test_a_request_is_cancelled_at_its_time_in_process() -> None:
    """After 100 ms of a reply of 50 + 49 * 10 ms: what had come is kept, the engine's slot is free again."""
    plan = plan_of(0.4, "100ms")
    records = in_virtual_time(plan, ttft_ms=50, tpot_ms=10)
    for record, planned in zip(records, map(plan.row, range(400)), strict=True):
        assert record.planned_cancel_ns == planned.cancel_ns
        assert record.status == (Status.OK if planned.cancel_ns is None else Status.CANCELLED)
        if record.status == Status.CANCELLED:
            assert record.done_ns - record.sent_ns == 100 * MS  # type: ignore[operator]
            assert record.output_tokens in (5, 6)
            assert record.first_token_ns is not None
            assert record.error == "cancelled by the load generator 0.1 s after it was sent, as planned"


def test_a_reply_that_ends_sooner_is_not_cancelled() -> None:
    """Nobody leaves who has what he wanted; that he would have left stays known."""
    records = in_virtual_time(plan_of(1, "10s"), ttft_ms=50, tpot_ms=1)
    assert {record.status for record in records} == {Status.OK}
    assert {record.planned_cancel_ns for record in records} == {10 * SECOND}


def test_a_user_continues_after_a_cancellation() -> None:
    """His next request falls due when he left, plus the think time."""
    plan = plan_of(1, "100ms", kind="single_user", requests=3, think_time="1s")
    records = in_virtual_time(plan, ttft_ms=500)
    assert [record.due_ns for record in records] == [0, 1100 * MS, 2200 * MS]
    assert {record.status for record in records} == {Status.CANCELLED}
    assert {record.output_tokens for record in records} == {None}


def test_the_connection_is_closed_at_the_time_over_the_wire() -> None:
    """The server sees the client leave; tokens that had come are kept, others go on undisturbed."""
    plan = plan_of(1, "60ms", kind="sustained", rate=50, requests=5)
    wanted = {str(plan.request(i).prompt) for i in range(5)}
    left: dict[str, Call] = {}
    all_left = asyncio.Event()

    async def talking(call: Call) -> None:
        await call.talk()
        left[json.loads(call.body)["prompt"]] = call
        if wanted <= set(left):
            all_left.set()

    async def main() -> tuple[list[Record], DriveReport]:
        records: list[Record] = []
        async with serving(talking) as server:
            report = await drive(plan, server.endpoint, DriveSettings(60 * SECOND), records.append)
            await asyncio.wait_for(all_left.wait(), 60)
        return measured(records), report

    records, report = asyncio.run(main())
    assert len(records) == 5
    for record in records:
        assert record.status == Status.CANCELLED
        assert record.sent_ns is not None
        assert record.done_ns is not None
        assert record.done_ns - record.sent_ns >= 60 * MS
        sent = left[str(plan.request(record.request).prompt)].sent_by(report.t0_ns + record.done_ns)
        assert sent - 1 <= (record.output_tokens or 0) <= sent  # the last one may not have been read yet
        assert record.token_source == ("chunks" if record.output_tokens else None)


def test_the_last_turns_go_on_with_what_had_come() -> None:
    """A conversation does not end because its user cut a reply short."""
    load = load_of(kind="sessions", rate=5, sessions=3, turns=3)
    plan = build(load, workload_of(cancel={"share": 1, "after": "100ms"}, **FIVE), 2)
    records = in_virtual_time(plan, ttft_ms=50, tpot_ms=10)
    assert [record.status for record in records] == [Status.CANCELLED] * 9
