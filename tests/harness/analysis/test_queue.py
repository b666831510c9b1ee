"""The queue of a trial: its states, what each request met, the rounds of a closed loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.effective import INDEPENDENT
from harness.analysis.queue import NO_GUARD, QueueGuard, guard, in_flight, states_in_flight
from harness.analysis.reading import read
from tests import many_queues
from tests.estimates import effective_size
from tests.fabricated import changed, noisy, streamed, trial_of

NS = 1e9
moments = st.lists(st.floats(0, 1e6), min_size=1, max_size=60)


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


def test_without_a_queue_nothing_depends() -> None:
    """Neither requests whose latencies do not queue nor an unknown number of states hold anything down."""
    due = np.arange(10.0)
    assert NO_GUARD.dependence(due) is INDEPENDENT
    assert QueueGuard(5.0, due, due + 1).dependence(due, queues=False) is INDEPENDENT
    assert QueueGuard(5.0, due, due + 1).dependence(due).met.tolist() == [0] + [1] * 9


def test_rounds_are_told_by_due_times() -> None:
    """Every request belongs to the round in which it was due, those of a class, too; a queue is then not asked."""
    due = np.arange(100.0) * NS
    found = guard(due, due + NS, due, users=10)
    assert found.as_fact()["rounds"] == 10
    own = found.dependence(due[5::7])
    assert own.met is None
    assert own.rounds.tolist() == [1 + int(at // NS) // 10 for at in due[5::7]]


def test_few_rounds_are_a_queue() -> None:
    """With fewer than eight the requests in flight are asked."""
    due = np.arange(79.0) * NS
    assert guard(due, due + NS, due, users=10).as_fact()["rounds"] is None
    assert guard(due, due + NS, due, users=10).dependence(due).met is not None


def test_states_of_a_known_process() -> None:
    """Requests in flight of M/G/infinity with services of exactly 1 s forget themselves in 1 s: tau is 1 s."""
    rng = np.random.default_rng(42)
    due = np.cumsum(rng.exponential(0.05, 40_000)) * NS
    _, found = states_in_flight(due, due + NS, (due[0], due[-1]), len(due))
    assert found == pytest.approx((due[-1] - due[0]) / NS, rel=0.15)


def test_independent_latencies_are_not_held_down() -> None:
    """A steady engine far from its limit, however few states its requests in flight went through."""
    reading = read(trial_of(noisy(44)))
    size = reading.distributions["ttft_ms"].size(0.5)
    assert size.explained < 0.02
    assert size.n_eff > 0.5 * size.n


def test_a_busy_queue_holds_down_what_queues() -> None:
    """At 0.95 a few minutes hold few independent states; gaps between chunks do not care."""
    reading = read(trial_of(queue_trial(0.95), end_s=160.0))
    first, gaps = (reading.distributions[name].size(0.5) for name in ("ttft_ms", "icl_ms"))
    assert reading.guard.states < 40
    assert first.explained > 0.5
    assert first.n_eff < 3 * reading.guard.states
    assert gaps.explained == 0
    assert reading.explained == first.explained


def test_a_class_depends_on_the_requests_of_all() -> None:
    """What each of its requests met are those of the other classes, too."""
    records = [changed(record, class_name=f"class {i % 2}") for i, record in enumerate(queue_trial(0.95))]
    reading = read(trial_of(records, end_s=160.0))
    every, own = reading.distributions["ttft_ms"], reading.observations(reading.groups["class 0"].measured)["ttft_ms"]
    assert own.size(0.5).explained == pytest.approx(every.size(0.5).explained, abs=0.1)
    assert own.dependence.met.tolist() == every.dependence.met[::2].tolist()


def test_a_busy_machine_is_no_queue() -> None:
    """Latencies that are alike for a while, whoever they met, are left at what they themselves are worth."""
    rng = np.random.default_rng(46)
    due = np.cumsum(rng.exponential(0.05, 2000)) * NS
    latency = np.repeat(rng.lognormal(0, 1, 40), 50)
    found = guard(due, np.sort(due + rng.lognormal(0, 1, 2000) * NS), due)
    own, held = (effective_size(latency, 0.5, one) for one in (INDEPENDENT, found.dependence(due)))
    assert own < 1000
    assert held > 0.5 * own


def test_loads_that_change_by_plan_are_not_guarded() -> None:
    """A spike is one state by plan, and not for want of time."""
    assert read(trial_of(queue_trial(0.95), kind="burst")).guard is NO_GUARD


def test_the_guard_does_not_depend_on_the_clock() -> None:
    """Begun an hour later, everything is the same."""
    made = many_queues.one_server(np.random.default_rng(45), 1, 1000, 0.7)
    due, ended, latency = made.due[0] * NS, np.sort(made.ended[0]) * NS, made.latency[0]
    one, later = (
        effective_size(latency, 0.95, guard(due + by, ended + by, due + by).dependence(due + by))
        for by in (0.0, 3600 * NS)
    )
    assert one == pytest.approx(later, rel=1e-3)
