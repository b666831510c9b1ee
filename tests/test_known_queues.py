"""Known answers of queueing theory: queues in whole arrays, stored and analysed as any trial is; and one queue twice,
from arrays and through the driver.

The seeds are fixed: what is checked is that the way from arrivals to the summary bends nothing. How often intervals
hold the truth, over many seeds, is known answer 15.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from harness.analysis.distributions import Pool
from harness.analysis.latencies import distributions
from harness.analysis.rates import shares
from harness.analysis.reading import read
from harness.analysis.stats import share_estimate
from harness.analysis.summary import summarise
from harness.records import Record
from harness.schedule.requests import Schedule
from tests.driven import driven_on, measured, simulated
from tests.fabricated import value
from tests.plans import exact_schedule
from tests.queues import (
    Int64,
    QueueTrial,
    Served,
    exponential_services_ns,
    one_server,
    poisson_arrivals_ns,
    several_servers,
)

pytestmark = pytest.mark.slow

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("rate", "n", "tolerance", "expected"),
    [
        (50, 200_000, (0.015, 0.03, 0.02), (20.0, 13.86, 59.91, 92.10, 1.0)),
        pytest.param(80, 1_000_000, (0.025,) * 3, (50.0, 34.66, 149.8, 230.3, 4.0), marks=pytest.mark.slow),
    ],
)
def test_one_exponential_server(
    rate: float, n: int, tolerance: tuple[float, float, float], expected: tuple[float, ...]
) -> None:
    """Known answer 1: M/M/1 at 50/s and 80/s of 100/s: mean, p50, p95, p99 and the number in the system are theory's,
    within the tolerance and within our own intervals.
    """
    served = one_server(poisson_arrivals_ns(rate, n, 1), exponential_services_ns(0.01, n, 1001))
    summary = summarise([QueueTrial(served)])
    *latencies, in_system = expected
    for statistic, truth in zip(("mean", "p50", "p95", "p99"), latencies, strict=True):
        found = value(summary, "e2e_ms", statistic)
        assert found["value"] == pytest.approx(truth, rel=tolerance[0 if statistic == "mean" else 1]), statistic
        assert found["low"] <= truth <= found["high"], statistic
    assert value(summary, "mean_concurrency")["value"] == pytest.approx(in_system, rel=tolerance[2])
    assert value(summary, "completed_rps")["value"] == pytest.approx(rate, rel=0.01)


def test_eight_exponential_servers() -> None:
    """Known answer 2: M/M/8 at .9: 70.15 % wait, .877 s on average, 31.5 % longer than a second (Erlang 1917)."""
    n = 1_000_000
    served = several_servers(poisson_arrivals_ns(7.2, n, 1), exponential_services_ns(1.0, n, 1001), 8)
    reading = read(QueueTrial(served))
    found = distributions(reading.columns.measured, reading.observed)["ttft_ms"]
    assert Pool([found]).estimate("mean").value == pytest.approx(877, rel=0.03)
    for limit_ms, beyond in ((0.0, 0.7015), (1000.0, 0.315)):
        within = share_estimate([shares(reading.columns.measured, {"ttft_ms": limit_ms})["attainment"]])
        assert 1 - within.value == pytest.approx(beyond, rel=0.03)
        assert within.low <= 1 - beyond <= within.high


def test_one_server_of_constant_speed() -> None:
    """Known answer 2: M/D/1 at .8 waits 2.00 services on average (Pollaczek 1930, Khinchin 1932)."""
    n = 400_000
    served = one_server(poisson_arrivals_ns(80, n, 1), np.full(n, SECOND // 100))
    assert value(summarise([QueueTrial(served)]), "ttft_ms", "mean")["value"] == pytest.approx(20.0, rel=0.03)


def test_arrays_are_the_definition() -> None:
    """A running maximum and a heap of servers give what serving one after the other gives."""
    arrived, services = poisson_arrivals_ns(90, 3000, 3), exponential_services_ns(0.01, 3000, 4)
    free, slow = 0, []
    for at, work in zip(arrived.tolist(), services.tolist(), strict=True):
        free = max(free, at) + work
        slow.append(free)
    assert one_server(arrived, services).done_ns.tolist() == slow
    assert several_servers(arrived, services, 1).done_ns.tolist() == slow


def through_the_driver(schedule: Schedule, **options: object) -> list[Record]:
    """The measured records of a queue that our simulated engine is, by our driver, in the order of the requests."""
    records, _ = driven_on(simulated(**{"ttft_ms": 10, "tpot_ms": 0, **options}), schedule)
    return measured(records)


def drawn_services_ns(n: int, seed: int) -> Int64:
    """The service times that the simulated engine draws for 10 ms."""
    draw = random.Random(seed)
    return np.array([round(10_000_000 * draw.expovariate(1.0)) for _ in range(n)], dtype=np.int64)


@pytest.mark.parametrize(
    ("servers", "rate", "service"), [(1, 50, "exponential"), (1, 80, "fixed"), (8, 720, "exponential")]
)
def test_the_driver_is_the_same_queue(servers: int, rate: float, service: str) -> None:
    """Known answers 1 and 2: of the plan's own Poisson arrivals our driver and engine make, request by request and to
    the microsecond, the queue that the arrays compute.
    """
    n = 3000
    schedule = exact_schedule(1, kind="sustained", rate=rate, requests=n)
    records = through_the_driver(schedule, max_batch=servers, service=service, seed=7)
    assert schedule.due_ns is not None
    due_ns = schedule.due_ns[:n]
    services = drawn_services_ns(n, 7) if service == "exponential" else np.full(n, 10_000_000)
    served: Served = several_servers(due_ns, services, servers)
    done = np.array([record.last_token_ns for record in records])
    assert np.abs(done - served.done_ns).max() <= 1000
    assert [record.due_ns for record in records] == due_ns.tolist()
