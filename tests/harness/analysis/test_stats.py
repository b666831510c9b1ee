"""Statistics: known answers, laws, and coverage of the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import stats
from harness.analysis.stats import Bound
from tests.estimates import effective_size, mean_estimate, quantile_estimate

finite = st.floats(-1e6, 1e6, allow_nan=False)
series = st.lists(finite, min_size=1, max_size=60).map(np.array)
levels = st.floats(0.01, 0.999)


@given(series, levels)
def test_quantile_is_the_inverse_of_the_distribution_function(values: np.ndarray, p: float) -> None:
    """The quantile is observed, and is the least value that a share p of the observations does not exceed."""
    found = stats.quantile(values, p)
    assert found in values
    assert (values <= found).mean() >= p - 1e-9
    below = values[values < found]
    assert len(below) / len(values) < p + 1e-9


@given(series, levels, levels)
def test_quantiles_are_ordered(values: np.ndarray, a: float, b: float) -> None:
    """A higher level never gives a lower quantile."""
    assert stats.quantile(values, min(a, b)) <= stats.quantile(values, max(a, b))


@given(st.lists(finite, min_size=4, max_size=200).map(np.array))
def test_effective_size_is_between_zero_and_n(values: np.ndarray) -> None:
    """No series is worth more than its length."""
    assert 0 < effective_size(values, [0.5, 0.95]) <= len(values)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=50).map(np.array), min_size=1, max_size=3))
def test_share_interval_contains_the_share(runs: list[np.ndarray]) -> None:
    """The interval of a share lies in [0, 1] around it."""
    found = stats.share_estimate(runs)
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300).map(np.array), levels)
def test_quantile_interval_contains_the_point(values: np.ndarray, p: float) -> None:
    """Where there is a point, its interval holds it; where there is none, the value is NaN."""
    found = quantile_estimate([values], p)
    if found.bound is Bound.POINT:
        assert found.low <= found.value <= found.high
    else:
        assert math.isnan(found.value)


@pytest.mark.parametrize(("p", "two_sided", "upper"), [(0.5, 6, 5), (0.9, 36, 29), (0.95, 72, 59), (0.99, 368, 299)])
def test_floors_are_the_published_ones(p: float, two_sided: int, upper: int) -> None:
    """The least effective sizes agree with the table of the method."""
    assert stats.floor_two_sided(p) in (two_sided, two_sided - 1, two_sided + 1)
    assert stats.floor_upper(p) == upper


@pytest.mark.parametrize(("n", "bound"), [(30, Bound.LOWER), (59, Bound.UPPER), (73, Bound.POINT)])
def test_a_quantile_of_too_few_is_only_a_bound(n: int, bound: Bound) -> None:
    """Below the floor of p95 there is no point: an upper bound from 59 on, a lower one before."""
    found = quantile_estimate([np.arange(float(n))], 0.95, n_eff=n)
    assert found.bound is bound


def test_a_rank_among_censored_values_is_a_lower_bound() -> None:
    """Rank 990 of 1000 lies among the 20 that were cut off at 30 s, so p99 is above 30 s."""
    values = np.concatenate([np.full(980, 100.0), np.full(20, np.inf)])
    bounds = np.where(np.isinf(values), 30_000.0, values)
    found = quantile_estimate([values], 0.99, bounds=[bounds])
    assert (found.bound, found.low) == (Bound.LOWER, 30_000.0)
    assert quantile_estimate([values], 0.5, bounds=[bounds]).value == 100.0


def test_a_mean_of_censored_values_is_not_given() -> None:
    """Above one censored value in a thousand the mean is only bounded from below."""
    values = np.concatenate([np.full(98, 1.0), np.full(2, np.inf)])
    bounds = np.where(np.isinf(values), 10.0, values)
    found = mean_estimate([bounds], censored=2)
    assert found.bound is Bound.LOWER
    assert found.low == pytest.approx(1.18)


def test_autocorrelation_time_of_a_known_process() -> None:
    """An AR(1) process with 0.8 has (1 + 0.8) / (1 - 0.8) = 9."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=100_000)
    process = np.empty_like(noise)
    process[0] = noise[0]
    for i in range(1, len(noise)):
        process[i] = 0.8 * process[i - 1] + noise[i]
    assert stats.autocorrelation_time(process) == pytest.approx(9, rel=0.1)


def test_clusters_of_equal_values_are_worth_their_number() -> None:
    """A hundred copies of each value carry what the values carry."""
    rng = np.random.default_rng(4)
    values = np.repeat(rng.normal(size=400), 100)
    sizes = np.full(400, 100)
    assert stats.sizes_by_level(values, [0.5], sizes)[0.5] == pytest.approx(400, rel=0.3)


def test_runs_that_differ_widen_the_interval() -> None:
    """Three repetitions on different levels make the interval as wide as they differ."""
    rng = np.random.default_rng(5)
    alike = [rng.normal(100, 1, 400) for _ in range(3)]
    apart = [rng.normal(mean, 1, 400) for mean in (90, 100, 110)]
    narrow, wide = (quantile_estimate(runs, 0.5) for runs in (alike, apart))
    assert wide.high - wide.low > 10 * (narrow.high - narrow.low)


def test_zero_of_many_has_the_rule_of_three() -> None:
    """No failure among n bounds the rate by 1 - 0.025^(1/n)."""
    found = stats.share_estimate([np.zeros(100, dtype=bool)])
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 100))


@pytest.mark.parametrize("p", [0.5, 0.95])
def test_coverage_on_independent_values(p: float) -> None:
    """Of 200 intervals from independent values, about 95 in 100 hold the truth."""
    rng = np.random.default_rng(6)
    truth = math.exp({0.5: 0.0, 0.95: 1.6448536}[p])
    found = [quantile_estimate([rng.lognormal(0, 1, 500)], p) for _ in range(200)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.90


def _sojourn_times(rng: np.random.Generator, n: int, utilisation: float) -> np.ndarray:
    """Lindley's recursion for M/M/1 with service rate 1, begun in the stationary state."""
    gaps, services = rng.exponential(1 / utilisation, n), rng.exponential(1, n)
    wait = rng.exponential(1 / (1 - utilisation)) if rng.random() < utilisation else 0.0
    times = np.empty(n)
    for i in range(n):
        times[i] = wait + services[i]
        wait = max(0.0, wait + services[i] - gaps[i])
    return times


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.5, 0.95])
def test_coverage_on_a_queue_where_independence_fails(p: float) -> None:
    """On M/M/1 at 0.85 the interval holds the truth nine times in ten; one for independent values seldom does."""
    rng = np.random.default_rng(7)
    truth = -math.log(1 - p) / (1 - 0.85)
    runs = [_sojourn_times(rng, 4000, 0.85) for _ in range(150)]
    ours = [quantile_estimate([run], p) for run in runs]
    naive = [quantile_estimate([run], p, n_eff=len(run)) for run in runs]
    assert np.mean([one.low <= truth <= one.high for one in ours]) >= 0.88
    assert np.mean([one.low <= truth <= one.high for one in naive]) <= 0.4


def test_the_interval_matches_exact_binomial_ranks() -> None:
    """For 100 independent values the interval of the median is x_(40) to x_(61), as tables have it."""
    found = quantile_estimate([np.arange(1.0, 101.0)], 0.5, n_eff=100)
    assert (found.low, found.value, found.high) == (40.0, 50.0, 61.0)


def test_a_trend_is_seen_and_noise_is_not() -> None:
    """A straight line has its slope; independent values are called drifting as seldom as they should."""
    found = stats.trend(np.arange(20.0) * 3)
    assert found.slope == 3.0
    assert found.p_value < 1e-6
    rng = np.random.default_rng(8)
    assert np.mean([stats.trend(rng.normal(size=20)).p_value < 0.01 for _ in range(400)]) <= 0.03


@given(st.lists(st.floats(-100, 100), min_size=4, max_size=120).map(np.array), st.integers(1, 20))
def test_lag_by_lag_agrees_with_all_lags_at_once(values: np.ndarray, window: int) -> None:
    """The short way and the long way give the same autocorrelation time."""
    smooth = np.convolve(values, np.ones(window), mode="same") if len(values) >= window else values
    centred = smooth - smooth.mean()
    if centred @ centred > 1e-6:
        assert stats.autocorrelation_time(smooth) == pytest.approx(
            stats._autocorrelation_time_by_fft(centred), rel=1e-6, abs=1e-6
        )


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300).map(np.array), levels, st.floats(0.01, 0.4))
def test_more_confidence_never_narrows_an_interval(values: np.ndarray, p: float, alpha: float) -> None:
    """Where both are numbers, the interval at half the alpha holds the other one."""
    found = []
    for one in (alpha / 2, alpha):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stats, "ALPHA", one)
            found.append(quantile_estimate([values], p))
    wide, narrow = found
    if wide.bound is Bound.POINT:
        assert wide.low <= narrow.low <= narrow.high <= wide.high


@given(st.lists(st.floats(0, 1e4), min_size=80, max_size=300).map(np.array), st.floats(1, 300))
def test_a_cap_leaves_the_number_and_takes_certainty(values: np.ndarray, cap: float) -> None:
    """A quantile held down by a queue is the same number or a bound, and is worth no more than the cap."""
    free, held = (quantile_estimate([values], 0.5, m_cap=one) for one in (None, cap))
    assert held.n_eff <= min(cap, free.n_eff)
    if held.bound is Bound.POINT:
        assert held.value == free.value


@given(st.lists(st.booleans(), min_size=1, max_size=200).map(np.array), st.floats(1, 300))
def test_a_cap_widens_a_share(flags: np.ndarray, cap: float) -> None:
    """The same share with an interval at least as wide."""
    free, held = (stats.share_estimate([flags], caps=caps) for caps in (None, [cap]))
    assert held.value == free.value
    assert held.low <= free.low + 1e-9
    assert held.high >= free.high - 1e-9


def test_runs_that_differ_widen_means_and_shares_too() -> None:
    """Three repetitions on different levels make every interval as wide as they differ."""
    rng = np.random.default_rng(9)
    apart = [rng.normal(mean, 1, 400) for mean in (90, 100, 110)]
    found = mean_estimate(apart)
    assert found.high - found.low > 20
    shares = [rng.random(400) < share for share in (0.2, 0.5, 0.8)]
    share = stats.share_estimate(shares)
    assert share.high - share.low > 0.5
    assert share.low >= 0
    assert share.high <= 1
