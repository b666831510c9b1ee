"""Effective sample size: what makes requests alike is counted, and nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis.effective import (
    INDEPENDENT,
    LEAST_ROUNDS,
    Dependence,
    ShareSize,
    Sizes,
    share_size,
    size_of_rounds,
    wider,
)
from harness.analysis.stats import Ordered

flags = st.lists(st.booleans(), min_size=4, max_size=200).map(lambda one: np.array(one, dtype=np.float64))
shares = st.floats(0, 1)
sizes = st.floats(1, 1e4)


def at(values: np.ndarray, p: float, dependence: Dependence = INDEPENDENT) -> float:
    """The effective sample size for a quantile."""
    return Sizes(values, Ordered.of(values), dependence).at(p).n_eff


@given(shares, sizes, sizes)
def test_the_joint_size_lies_between_the_states_and_the_own_size(explained: float, states: float, own: float) -> None:
    """Nothing explained leaves the own size where all met alike, all of it the states; the queue only takes away."""
    found = Dependence(states).joined(own, explained)
    assert min(states, own) * (1 - 1e-9) <= found <= own * (1 + 1e-9)
    assert Dependence(states).joined(own, 0.0) == pytest.approx(own)
    if own > states:
        assert Dependence(states).joined(own, 1.0) == pytest.approx(states)


@given(shares, shares, sizes, sizes)
def test_more_explained_is_worth_less(one: float, other: float, states: float, own: float) -> None:
    """The size falls as the requests in flight explain more."""
    less, more = sorted((one, other))
    dependence = Dependence(states)
    assert dependence.joined(own, more) <= dependence.joined(own, less) * (1 + 1e-9)


def test_the_share_explained_is_that_of_the_bins() -> None:
    """An indicator made of the requests in flight is explained wholly, one of its own not at all, a mixture by half."""
    rng = np.random.default_rng(1)
    met = rng.integers(0, 100, 20_000).astype(float)
    by_queue, alone = (met < 50).astype(float), (rng.random(20_000) < 0.5).astype(float)
    dependence = Dependence(10.0, met)
    assert dependence.explained(by_queue) == pytest.approx(1, abs=0.01)
    assert dependence.explained(alone) == pytest.approx(0, abs=0.002)
    mixed = np.where(rng.random(20_000) < math.sqrt(0.5), by_queue, alone)
    assert dependence.explained(mixed) == pytest.approx(0.5, abs=0.05)


def test_what_chance_explains_takes_nothing() -> None:
    """Of indicators that know nothing of the queue about one in twenty is held down."""
    rng = np.random.default_rng(7)
    dependence = Dependence(5.0, rng.normal(size=600))
    shares = [dependence.explained((rng.random(600) < 0.5).astype(float)) for _ in range(400)]
    assert np.mean([share > 0 for share in shares]) == pytest.approx(0.05, abs=0.03)


def test_a_queue_that_explains_little_takes_little() -> None:
    """Latencies of which the queue explains a twentieth are worth far more than its states."""
    rng = np.random.default_rng(2)
    met = np.repeat(rng.normal(size=20), 100)
    values = 0.23 * met + rng.normal(size=2000)
    assert at(values, 0.5, Dependence(20.0, met)) > 150
    assert at(met + 0.01 * rng.normal(size=2000), 0.5, Dependence(20.0, met)) < 30


def test_all_the_same_number_in_flight_explains_nothing() -> None:
    """A closed loop without thinking always has its users in flight."""
    values = np.random.default_rng(3).lognormal(size=500)
    assert at(values, 0.95, Dependence(3.0, np.full(500, 8.0))) == at(values, 0.95)


@given(st.integers(LEAST_ROUNDS, 40), st.integers(1, 30))
def test_rounds_alike_are_worth_all_their_requests(rounds: int, users: int) -> None:
    """A ramp in each round: no share varies between them, and only the few rounds take away."""
    below = np.tile((np.arange(users) < users / 2).astype(float), rounds)
    found = size_of_rounds(below, np.full(rounds, users))
    assert 0.6 * len(below) <= found <= len(below)


def test_a_ramp_in_each_round_has_no_memory_beyond_it() -> None:
    """By lags 64 users in a ramp remember half a round; by rounds their median is worth nearly every request."""
    ramp = np.tile(np.arange(64.0), 15) + np.random.default_rng(4).normal(size=960)
    by_lags, by_rounds = at(ramp, 0.5), at(ramp, 0.5, Dependence(rounds=np.repeat(np.arange(15), 64)))
    assert by_lags < 100
    assert by_rounds > 700


def test_rounds_that_hang_together_are_worth_as_many_as_they_are() -> None:
    """A machine that is slow for ten rounds at a time: 60 rounds are six states."""
    slow = np.repeat(np.repeat(np.arange(6) % 2, 10), 20).astype(float)
    assert size_of_rounds(slow, np.full(60, 20)) < 15


def test_few_rounds_are_no_batches() -> None:
    """Of fewer than eight the lags are taken."""
    values = np.random.default_rng(5).lognormal(size=7 * 50)
    assert at(values, 0.5, Dependence(rounds=np.repeat(np.arange(7), 50))) == at(values, 0.5)


@given(flags, sizes)
def test_a_share_is_worth_no_more_than_its_flags(one: np.ndarray, states: float) -> None:
    """Whatever makes them alike."""
    met = np.arange(len(one), dtype=np.float64)
    held, free = share_size(one, Dependence(states, met), 0.3), share_size(one)
    assert 0 < held.n_eff <= held.seen <= len(one)
    assert held.n_eff <= free.n_eff <= len(one)


def test_a_queue_that_never_came_up_hides_no_errors() -> None:
    """Of 1,000 requests in ten states none failed: that is 1,000 requests. That all met the SLO is worth far fewer.

    A queue makes it fewer than were good, and never more: how good it is at most is what was seen.
    """
    none, met = np.zeros(1000), np.arange(1000.0) % 7
    assert share_size(none, Dependence(10.0, met)) == ShareSize(1000, 1000)
    good = share_size(1 - none, Dependence(10.0, met, seen=14.0), 0.0)
    assert (good.n_eff < 60, good.seen) == (True, 1000)


def test_wider_levels_have_five_times_as_many_beyond() -> None:
    """p99, p95, p75; a median has none."""
    assert list(wider(0.99)) == pytest.approx([0.99, 0.95, 0.75])
    assert list(wider(0.5)) == [0.5]


def test_a_few_slow_requests_are_judged_by_more_of_them() -> None:
    """Ten beyond p99 seem scattered where fifty beyond p95 come together: the p99 is worth no more than the p95."""
    rng = np.random.default_rng(6)
    values = np.repeat(rng.lognormal(size=50), 20) * rng.lognormal(0, 0.3, 1000)
    assert at(values, 0.99) <= at(values, 0.95)


def test_a_queue_that_never_came_up_is_not_ruled_out_by_few_states() -> None:
    """Latencies without a trace of it are worth little after ten states of the requests in flight, all after many."""
    rng = np.random.default_rng(8)
    values, met = rng.lognormal(size=2000), rng.integers(0, 30, 2000).astype(float)
    few, more, many = (at(values, 0.95, Dependence(states, met)) for states in (10.0, 40.0, 1500.0))
    assert few < 60 < 500 < more < 1200 < many


def test_few_rounds_alike_are_seen_before_chance_is_ruled_out() -> None:
    """A lag of 0.4 may be chance in twelve rounds; the size is smaller all the same, and less so at a tail."""
    slow = np.repeat([0.1, 0.3, 0.6, 0.5, 0.8, 0.7, 0.4, 0.6, 0.2, 0.3, 0.4, 0.1], 40)
    below = (np.tile(np.arange(40) / 40, 12) < slow).astype(float)
    sizes = np.full(12, 40)
    apart = below.reshape(12, 40)[np.random.default_rng(1).permutation(12)].ravel()
    assert size_of_rounds(below, sizes) < 0.5 * size_of_rounds(apart, sizes)
    assert size_of_rounds(below, sizes) <= size_of_rounds(below, sizes, tail=True)


def test_few_rounds_take_less_from_a_tail_than_from_a_median() -> None:
    """Student's factor of eight rounds from a median's size, its root from a p95's; many rounds take nothing."""
    few, many = Dependence(rounds=np.repeat(np.arange(8), 10)), Dependence(rounds=np.repeat(np.arange(900), 10))
    factor = 1.959964 / 2.364624
    assert few.sure(80.0, 0.5) == pytest.approx(80 * factor**2)
    assert few.sure(80.0, 0.95) == pytest.approx(80 * factor)
    assert many.sure(9000.0, 0.5) == pytest.approx(9000, rel=0.01)
    assert Dependence().sure(80.0, 0.5) == 80.0
