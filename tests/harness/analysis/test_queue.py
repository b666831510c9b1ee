"""Queue guard: when requests in flight hold the latencies down, and that they do nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.queue import NO_GUARD, TAIL, QueueGuard, follows, guard, in_flight, states_in_flight, tail_follows
from harness.analysis.reading import read
from tests import many_queues
from tests.estimates import effective_size
from tests.fabricated import noisy, streamed, trial_of

NS = 1e9
moments = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)
states = st.floats(1, 1000)
levels = st.floats(0.01, 0.999)


def queue_trial(utilisation: float, n: int = 1500, seed: int = 41) -> list:
    """A trial on one server with a mean service of 0.1 s; the first token comes when it leaves."""
    made = many_queues.one_server(np.random.default_rng(seed), 1, n, utilisation)
    due_ms, latency_ms = made.due[0] * 100, made.latency[0] * 100
    return [
        streamed(i, float(due), ttft_ms=float(latency), tokens=2, gap_ms=0.01, lag_ms=0)
        for i, (due, latency) in enumerate(zip(due_ms, latency_ms, strict=True))
    ]


@given(moments, moments, moments)
def test_requests_in_flight_are_counted(due: list[float], lasted: list[float], at: list[float]) -> None:
    """Due before and not yet ended, whatever the order of the ends."""
    pairs = [(one, one + more) for one, more in zip(sorted(due), lasted, strict=False)]
    begun, ended = np.array([one for one, _ in pairs]), np.sort([end for _, end in pairs])
    found = in_flight(begun, ended, np.array(at))
    expected = [sum(one < moment for one, _ in pairs) - sum(end < moment for _, end in pairs) for moment in at]
    assert found.tolist() == expected


@given(states, st.booleans(), st.booleans(), levels, levels)
def test_a_guard_only_ever_takes_away(amount: float, queueing: bool, tail: bool, p: float, q: float) -> None:
    """It gives its number of states or no limit, and where it holds a quantile down it does so for those above."""
    one = QueueGuard(amount, queueing, tail)
    assert one.cap(p) in (amount, math.inf)
    assert one.cap(max(p, q)) <= one.cap(min(p, q))


@given(states, levels)
def test_without_a_queue_nothing_is_held_down(amount: float, p: float) -> None:
    """Few states do not matter to latencies that do not depend on them."""
    assert QueueGuard(amount).cap(p) == math.inf
    assert NO_GUARD.cap(p) == math.inf


def test_many_states_are_enough() -> None:
    """From 100 on (200 for tails) the latencies' own effective size is taken."""
    assert QueueGuard(99, queueing=True).cap(0.5) == 99
    assert QueueGuard(101, queueing=True).cap(0.5) == math.inf
    assert QueueGuard(101, queueing=True).cap(0.95) == 101
    assert QueueGuard(201, queueing=True).cap(0.99) == math.inf


def test_a_tail_that_follows_the_queue_is_held_down_alone() -> None:
    """Seldom queueing leaves the median as it is."""
    one = QueueGuard(50, tail_follows=True)
    assert (one.cap(0.5), one.cap(0.95), one.cap(TAIL)) == (math.inf, math.inf, 50)
    assert not one.applied


def test_states_of_a_known_process() -> None:
    """Requests in flight of M/G/infinity with services of exactly 1 s forget themselves in 1 s: tau is 1 s."""
    rng = np.random.default_rng(42)
    due = np.cumsum(rng.exponential(0.05, 40_000)) * NS
    found = states_in_flight(due, due + NS, (due[0], due[-1]), len(due))
    assert found == pytest.approx((due[-1] - due[0]) / NS, rel=0.15)


def test_whether_the_slowest_met_many() -> None:
    """Latencies made of the queue follow it, independent ones do not; ties do not matter."""
    rng = np.random.default_rng(43)
    met = rng.poisson(5, 2000).astype(float)
    for follow in (tail_follows, follows):
        assert follow(met + rng.normal(0, 1, 2000), met)
        assert not follow(rng.normal(size=2000) - met, met)
        assert not follow(rng.normal(size=2000), np.ones(2000))
    assert np.mean([tail_follows(rng.normal(size=2000), met) for _ in range(300)]) <= 0.03


def test_independent_latencies_are_not_guarded() -> None:
    """A steady engine far from its limit."""
    assert not read(trial_of(noisy(44))).guard.applied


def test_a_busy_queue_is_guarded() -> None:
    """At 0.95 a few minutes hold few independent states."""
    trial = trial_of(queue_trial(0.95), end_s=160.0)
    reading = read(trial)
    assert reading.guard.applied
    held = reading.distributions["ttft_ms"].effective_size(0.5)
    assert held <= reading.guard.states < effective_size(reading.observed["ttft_ms"].values, [0.5]) * 10


def test_a_busy_machine_is_no_queue() -> None:
    """Latencies that are alike for a while, whoever they met, are left at what they themselves are worth."""
    rng = np.random.default_rng(46)
    due = np.cumsum(rng.exponential(0.05, 2000)) * NS
    latency = np.repeat(rng.lognormal(0, 1, 40), 50)
    own = effective_size(latency, [0.5, 0.99])
    one = guard(due, np.sort(due + rng.lognormal(0, 1, 2000) * NS), due, latency, own)
    assert own < 1000
    assert not one.queueing


def test_loads_that_change_by_plan_are_not_guarded() -> None:
    """A spike is one state by plan, and not for want of time."""
    assert read(trial_of(queue_trial(0.95), kind="burst")).guard == NO_GUARD


def test_the_guard_does_not_depend_on_the_clock() -> None:
    """Begun an hour later, everything is the same."""
    made = many_queues.one_server(np.random.default_rng(45), 1, 1000, 0.7)
    due, ended, latency = made.due[0] * NS, np.sort(made.ended[0]) * NS, made.latency[0]
    own = effective_size(latency, [0.5, 0.99])
    one, later = (guard(due + by, ended + by, due + by, latency, own) for by in (0.0, 3600 * NS))
    assert one.states == pytest.approx(later.states, rel=1e-3)
    assert (one.queueing, one.tail_follows) == (later.queueing, later.tail_follows)
