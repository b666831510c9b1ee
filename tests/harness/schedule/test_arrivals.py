"""Arrival processes: rates, distributions, limits."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.scenario.loads.rates import Bursts
from harness.schedule import arrivals
from harness.schedule.arrivals import Process
from harness.seeding import generator
from tests.dispersion import index_of_dispersion

SECOND_NS = 1_000_000_000


@pytest.fixture(scope="module", autouse=True)
def few_draws_at_once() -> Iterator[None]:
    """Of thousands of short plans each would draw 65,536 gaps; long ones are put together from several draws."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arrivals, "_DRAWS_AT_ONCE", 1024)
        yield


RATES = st.sampled_from([0.1, 0.3, 1.0, 1.5, 3.0, 7.0, 99.9, 100.0, 1000.0])


def test_constant_arrivals_never_drift() -> None:
    """Arrival i is i / rate to the nanosecond, a million arrivals later too."""
    due_ns = arrivals.constant(3, count=1_000_001)
    assert due_ns[-1] == 1_000_000 * SECOND_NS // 3
    assert set(np.diff(due_ns).tolist()) == {333_333_333, 333_333_334}


def test_constant_arrivals_of_a_whole_period_have_equal_gaps() -> None:
    """Known answer 5: a rate whose period is whole nanoseconds has a gap error of exactly 0."""
    assert set(np.diff(arrivals.constant(100, count=100_000)).tolist()) == {10_000_000}


@given(rate=RATES, start_ns=st.integers(0, 10**12), length_ns=st.integers(0, 100 * SECOND_NS))
def test_constant_arrivals_fill_the_interval(rate: float, start_ns: int, length_ns: int) -> None:
    """All arrivals lie in [start, end), and the next one would not."""
    due_ns = arrivals.constant(rate, start_ns=start_ns, end_ns=start_ns + length_ns)
    following = start_ns + len(due_ns) * SECOND_NS / Fraction(repr(rate))
    assert following >= start_ns + length_ns
    assert not len(due_ns) or (due_ns[0] == start_ns and due_ns[-1] < start_ns + length_ns)


def test_rates_with_many_digits_stay_exact() -> None:
    """If 64 bits would overflow, integers of any size are used."""
    due_ns = arrivals.constant(3.141592653589793, count=100_000)
    assert due_ns[-1] == int(99_999 * SECOND_NS / Fraction("3.141592653589793"))


def test_poisson_gaps_are_exponential_and_independent() -> None:
    """Known answer 5: 100,000 arrivals: Kolmogorov-Smirnov, dispersion of counts near 1, no correlation of neighbouring
    gaps.
    """
    due_ns = arrivals.steady(Process.POISSON, 100, generator(1), count=100_000)
    gaps_s = np.diff(due_ns) / SECOND_NS
    assert stats.kstest(gaps_s, "expon", args=(0, 0.01)).pvalue > 0.001
    assert index_of_dispersion(due_ns, 1.0) == pytest.approx(1.0, abs=0.15)
    assert index_of_dispersion(due_ns, 0.05) == pytest.approx(1.0, abs=0.03)
    seconds = arrivals.steady(Process.POISSON, 2, generator(1), count=200_000)  # 100,000 windows of one second
    assert index_of_dispersion(seconds, 1.0) == pytest.approx(1.0, abs=0.03)
    assert abs(np.corrcoef(gaps_s[:-1], gaps_s[1:])[0, 1]) < 0.01


def test_poisson_arrivals_do_not_sit_on_a_lattice() -> None:
    """Known answer 5: hardly any arrival falls within a microsecond of a whole second."""
    due_ns = arrivals.steady(Process.POISSON, 100, generator(2), count=100_000)
    distance_ns = np.minimum(due_ns % SECOND_NS, SECOND_NS - due_ns % SECOND_NS)
    assert np.mean(distance_ns < 1_000) < 1e-4


def test_poisson_is_not_renormalised() -> None:
    """The number of arrivals in a fixed time varies as a Poisson count does, from seed to seed."""
    counts = [len(arrivals.steady(Process.POISSON, 50, generator(seed), end_ns=2 * SECOND_NS)) for seed in range(400)]
    assert np.mean(counts) == pytest.approx(100, abs=2)
    assert np.var(counts) == pytest.approx(100, rel=0.3)


def test_gamma_gaps_have_their_cv_and_dispersion() -> None:
    """Known answer 5: a million arrivals with cv 2: gaps are Gamma(1/4), and over long windows counts vary four times
    as much.
    """
    due_ns = arrivals.steady(Process.GAMMA, 10, generator(1), cv=2.0, count=1_000_000)
    gaps_s = np.diff(due_ns) / SECOND_NS
    assert gaps_s.std() / gaps_s.mean() == pytest.approx(2.0, abs=0.03)
    assert gaps_s.mean() == pytest.approx(0.1, rel=0.01)
    assert index_of_dispersion(due_ns, 100.0) == pytest.approx(4.0, abs=0.6)
    assert stats.kstest(gaps_s[:20_000], "gamma", args=(0.25, 0, 0.4)).pvalue > 0.001


@pytest.mark.slow
@pytest.mark.parametrize("cv", [0.2, 1.0, 3.0])
def test_gamma_arrivals_have_their_rate_from_the_first_second(cv: float) -> None:
    """The mean count of a short time is rate times time for any cv: the process does not begin with an arrival."""
    counts = [len(arrivals.steady(Process.GAMMA, 10, generator(seed), cv=cv, end_ns=SECOND_NS)) for seed in range(3000)]
    assert np.mean(counts) == pytest.approx(10, abs=5 * np.std(counts) / np.sqrt(len(counts)))


@given(seed=st.integers(0, 2**31), rate=RATES, cv=st.sampled_from([0.05, 0.7, 2.0, 20.0]))
def test_gamma_arrivals_keep_their_limits(seed: int, rate: float, cv: float) -> None:
    """In order, inside the interval, exactly as many as requested, and a longer plan begins with the shorter."""
    short = arrivals.steady(Process.GAMMA, rate, generator(seed), cv=cv, start_ns=7, end_ns=7 + 5 * SECOND_NS)
    long = arrivals.steady(Process.GAMMA, rate, generator(seed), cv=cv, start_ns=7, end_ns=7 + 11 * SECOND_NS)
    assert np.all(np.diff(long) >= 0)
    assert not len(long) or (long[0] >= 7 and long[-1] <= 7 + 11 * SECOND_NS)
    assert long[: len(short)].tolist() == short.tolist()
    assert (
        arrivals.steady(Process.GAMMA, rate, generator(seed), cv=cv, start_ns=7, count=len(long)).tolist()
        == long.tolist()
    )


@given(seed=st.integers(0, 2**31), rate=RATES)
def test_a_longer_plan_begins_with_the_shorter(seed: int, rate: float) -> None:
    """Neither the duration nor the number of requests moves the arrivals that both plans have."""
    short = arrivals.steady(Process.POISSON, rate, generator(seed), end_ns=5 * SECOND_NS)
    long = arrivals.steady(Process.POISSON, rate, generator(seed), end_ns=11 * SECOND_NS)
    counted = arrivals.steady(Process.POISSON, rate, generator(seed), count=len(long))
    assert long[: len(short)].tolist() == short.tolist()
    assert counted.tolist() == long.tolist()


@pytest.mark.parametrize("process", list(Process))
def test_bursts_have_both_rates(process: Process) -> None:
    """Inside and outside of the bursts the counts are those of the two rates, and the burst stands in the middle."""
    shape = Bursts(rate=20, burst_rate=200, burst_s=5, every_s=20)
    due_ns = arrivals.changing(shape, process, generator(3), end_ns=2000 * SECOND_NS)
    at_s = due_ns % (20 * SECOND_NS) / SECOND_NS
    inside = (at_s >= 7.5) & (at_s < 12.5)
    assert inside.sum() / 500 == pytest.approx(200, rel=0.02)
    assert (~inside).sum() / 1500 == pytest.approx(20, rel=0.03)
    assert np.all(np.diff(due_ns) >= 0)


def test_bursts_over_silence_leave_it_silent() -> None:
    """With a base rate of 0 nothing arrives between the bursts."""
    shape = Bursts(rate=0, burst_rate=10, burst_s=1, every_s=10)
    due_ns = arrivals.changing(shape, Process.POISSON, generator(4), end_ns=1000 * SECOND_NS)
    at_s = due_ns % (10 * SECOND_NS) / SECOND_NS
    assert at_s.min() >= 4.5
    assert at_s.max() <= 5.5
    assert len(due_ns) == pytest.approx(1000, rel=0.15)


def test_bursts_keep_their_limits_before_the_anchor() -> None:
    """A warm-up that ends at the anchor sees the same pattern and nothing outside its time."""
    shape = Bursts(rate=5, burst_rate=50, burst_s=2, every_s=10)
    due_ns = arrivals.changing(shape, Process.POISSON, generator(5), end_ns=7 * SECOND_NS, anchor_ns=7 * SECOND_NS)
    assert due_ns.min() >= 0
    assert due_ns.max() < 7 * SECOND_NS
    assert len(due_ns) > 50  # the burst of the period before the anchor, 1 s to 3 s, is inside


def test_a_spike_has_the_requested_width() -> None:
    """All its requests come within the given time; with width 0, in the same instant."""
    spread = arrivals.spike(1000, 0.5, generator(6), start_ns=SECOND_NS)
    assert spread.dtype == np.int64
    assert spread.min() >= SECOND_NS
    assert spread.max() < 1.5 * SECOND_NS
    assert set(arrivals.spike(10, 0, generator(6), start_ns=7).tolist()) == {7}


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan")])
def test_impossible_rates_are_refused(rate: float) -> None:
    """A rate that is no positive number raises ValueError."""
    with pytest.raises(ValueError, match="positive number of requests/s"):
        arrivals.steady(Process.POISSON, rate, generator(0), count=1)


@pytest.mark.parametrize("cv", [0, -1, float("inf"), float("nan")])
def test_impossible_variations_are_refused(cv: float) -> None:
    """A coefficient of variation that is no positive number raises ValueError."""
    with pytest.raises(ValueError, match="coefficient of variation must be a positive number"):
        arrivals.steady(Process.GAMMA, 1, generator(0), cv=cv, count=1)


def test_exactly_one_limit_is_needed() -> None:
    """Neither both limits nor none are accepted."""
    with pytest.raises(ValueError, match="either end_ns or count"):
        arrivals.constant(1)
    with pytest.raises(ValueError, match="either end_ns or count"):
        arrivals.constant(1, end_ns=1, count=1)
