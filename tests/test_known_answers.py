"""Known answers: from plan to record, on engines whose times theory or arithmetic can tell, in virtual time."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines.base import EngineSpec
from engines.simulated import SimulatedEngine
from harness.drivers.asyncio_driver import drive
from harness.drivers.base import DriveSettings
from harness.records import Loop, Phase, Record, Status
from harness.virtual_time import run
from harness.workload import Schedule
from tests.plans import exact_schedule

MS = 1_000_000
SECOND = 1_000_000_000
FROZEN = {"ttft_ms": 10, "tpot_ms": 0, "stall": {"at_s": 30, "for_s": 1}}


def driven(schedule: Schedule, **options: Any) -> list[Record]:
    """The records of a schedule on a simulated engine, in virtual time."""
    records: list[Record] = []

    async def body() -> None:
        engine = SimulatedEngine(EngineSpec("simulated", options=options))
        await engine.start()
        await drive(schedule, engine, DriveSettings(timeout_ns=1000 * SECOND), records.append)
        await engine.stop()

    run(body())
    assert {record.status for record in records if record.phase != Phase.COOLDOWN} == {Status.OK}
    return records


def measured(records: list[Record]) -> list[Record]:
    """The records of the measured phase."""
    return [record for record in records if record.phase == Phase.MEASURE]


def e2e_ms(records: list[Record]) -> NDArray[np.float64]:
    """Due to last token."""
    return np.array([(record.last_token_ns or 0) - (record.due_ns or 0) for record in records]) / MS


def quantiles(values: NDArray[np.float64], *percents: float) -> list[float]:
    """Order statistics (the inverse of the empirical distribution) with exact ranks, to the microsecond."""
    ranks = [math.ceil(Fraction(str(percent)) * len(values) / 100) for percent in percents]
    return [round(float(np.sort(values)[rank - 1]), 3) for rank in ranks]


def test_an_open_loop_sees_the_whole_freeze() -> None:
    """100/s for 60 s, 10 ms each, frozen for a second at 30 s: 101 requests suffer, p99 420 ms, mean 18.58 ms."""
    records = measured(
        driven(exact_schedule(1, kind="sustained", rate=100, arrivals="constant", duration="60s"), **FROZEN)
    )
    latencies = e2e_ms(records)
    assert len(records) == 6000
    assert {record.loop for record in records} == {Loop.OPEN}
    assert (latencies > 10.5).sum() == 101
    assert quantiles(latencies, 98, 98.5, 99, 99.5, 99.9, 100) == [10, 120, 420, 720, 960, 1010]
    assert latencies.mean() == pytest.approx(18.58, abs=0.01)


def test_a_closed_loop_hides_the_freeze_and_says_that_it_is_closed() -> None:
    """The same server with one user: one slow request, p99 10 ms; every record says that its loop is closed."""
    records = measured(driven(exact_schedule(1, kind="single_user", duration="60s"), **FROZEN))
    latencies = e2e_ms(records)
    assert len(records) == 5900
    assert quantiles(latencies, 99, 100) == [10, 1010]
    assert (latencies > 10.5).sum() == 1
    assert {record.loop for record in records} == {Loop.CLOSED}


def test_a_closed_loop_obeys_its_law() -> None:
    """Eight users, one second of thinking, one of service: 4.00 requests/s and 4.00 in flight (X = N / (R + Z))."""
    records = driven(
        exact_schedule(1, kind="sustained", users=8, think_time="1s", duration="500s"), ttft_ms=1000, tpot_ms=0
    )
    end = 500 * SECOND
    completed = sum(1 for record in records if (record.done_ns or 0) <= end) / 500
    busy_ns = sum(
        min(record.done_ns or 0, end) - (record.sent_ns or 0) for record in records if (record.sent_ns or 0) < end
    )
    assert completed == pytest.approx(4.0, rel=0.005)
    assert busy_ns / end == pytest.approx(4.0, rel=0.005)
    assert busy_ns / end == pytest.approx(completed * 1.0, rel=0.001)  # Little's law, one second in flight each


def test_a_warm_up_leaves_as_many_measured_requests_as_were_asked_for() -> None:
    """Three users, one second a reply, 5 s of warm-up: 15 warm-up requests, then exactly the 10 to be measured."""
    schedule = exact_schedule(1, kind="sustained", users=3, requests=10, warmup="5s")
    records = driven(schedule, ttft_ms=1000, tpot_ms=0)
    assert Counter(record.phase for record in records) == {Phase.WARMUP: 15, Phase.MEASURE: 10}
    assert schedule.count is None


def test_tokens_are_counted_when_they_come() -> None:
    """2 requests/s, each 100 tokens over 10 s: 200 tokens/s in the window; whole answers over all the time give 171."""
    schedule = exact_schedule(100, kind="sustained", rate=2, arrivals="constant", warmup="20s", duration="60s")
    records = driven(schedule, ttft_ms=100, tpot_ms=100)
    arrivals_ns = np.concatenate([np.asarray(record.chunk_ns or [], dtype=np.int64) for record in records])
    inside = ((arrivals_ns >= 20 * SECOND) & (arrivals_ns < 80 * SECOND)).sum()
    assert inside / 60 == pytest.approx(200, rel=0.005)
    last_ns = max(record.last_token_ns or 0 for record in measured(records))
    naive = sum(record.output_tokens or 0 for record in measured(records)) / ((last_ns - 20 * SECOND) / SECOND)
    assert naive == pytest.approx(171.4, rel=0.01)


def test_chunks_of_four_keep_their_tokens() -> None:
    """100 tokens in 25 chunks of 4, first at 200 ms, every 40 ms: last at 1,160 ms, (last - first) / 99 is 9.697 ms."""
    schedule = exact_schedule(100, kind="single_user", requests=1)
    (record,) = driven(schedule, ttft_ms=200, tpot_ms=10, tokens_per_chunk=4)
    assert record.first_token_ns is not None
    assert record.last_token_ns is not None
    assert record.due_ns is not None
    assert (record.first_token_ns - record.due_ns, record.last_token_ns - record.due_ns) == (200 * MS, 1160 * MS)
    assert list(record.chunk_tokens or ()) == [4] * 25
    assert record.output_tokens == 100
    assert (record.last_token_ns - record.first_token_ns) / 99 / MS == pytest.approx(9.697, abs=0.001)


def single_server_queue(rate: float, requests: int) -> tuple[NDArray[np.float64], float]:
    """Latencies in ms and the mean number in the system of M/M/1 with a service rate of 100/s."""
    schedule = exact_schedule(1, kind="sustained", rate=rate, requests=requests)
    records = driven(schedule, ttft_ms=10, tpot_ms=0, max_batch=1, service="exponential", seed=7)
    latencies = e2e_ms(records)
    spanned_ms = max(record.done_ns or 0 for record in records) / MS
    return latencies, float(latencies.sum() / spanned_ms)


@pytest.mark.parametrize(
    ("requests", "tolerance"),
    [(5_000, 0.1), pytest.param(200_000, 0.015, marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_a_single_server_queue_has_the_latencies_of_theory(requests: int, tolerance: float) -> None:
    """M/M/1, 50/s on 100/s: mean 20 ms, p50 13.86, p95 59.91, p99 92.10, one request in the system on average."""
    latencies, in_system = single_server_queue(50, requests)
    assert latencies.mean() == pytest.approx(20, rel=tolerance)
    assert quantiles(latencies, 50, 95, 99) == pytest.approx([13.86, 59.91, 92.10], rel=2 * tolerance)
    assert in_system == pytest.approx(1.0, rel=1.5 * tolerance)


def test_every_row_of_the_plan_is_a_record() -> None:
    """An open plan of 3,000 rows ends in 3,000 records with the planned due times, though the server is overloaded."""
    schedule = exact_schedule(1, kind="sustained", rate=300, requests=3000)
    records = driven(schedule, ttft_ms=10, tpot_ms=0, max_batch=1)
    assert schedule.due_ns is not None
    assert {record.request: record.due_ns for record in records} == dict(enumerate(schedule.due_ns.tolist()))
    assert max(record.sent_ns - record.due_ns for record in records if record.sent_ns and record.due_ns) < MS
