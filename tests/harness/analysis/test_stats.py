"""Statistics: known answers, laws, and coverage of the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.analysis import stats
from harness.analysis.effective import Sizes
from harness.analysis.stats import Bound, Ordered
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
    assert 0 < min(effective_size(values, p) for p in (0.5, 0.95)) <= len(values)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=50).map(np.array), min_size=1, max_size=3))
def test_share_interval_contains_the_share(runs: list[np.ndarray]) -> None:
    """The interval of a share lies in [0, 1] around it."""
    found = stats.share_estimate(runs)
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300).map(np.array), levels, st.floats(1, 300))
def test_the_value_is_the_sample_s_whatever_is_known_of_it(values: np.ndarray, p: float, size: float) -> None:
    """However few it rests on; its interval holds it, and the ends are open that nobody knows."""
    found = quantile_estimate([values], p, n_eff=size)
    assert found.value == stats.quantile(values, p)
    assert found.low <= found.value <= found.high
    assert math.isfinite(found.high) == (found.bound is not Bound.LOWER)
    assert math.isfinite(found.low) or found.bound is not Bound.POINT


@pytest.mark.parametrize(("p", "two_sided"), [(0.5, 6), (0.9, 29), (0.95, 59), (0.99, 299), (0.1, 29)])
def test_floors_are_those_of_an_interval_with_two_ends(p: float, two_sided: int) -> None:
    """The least m with p^m + (1 - p)^m <= 0.05; one fewer leaves an end open."""
    assert stats.floor_two_sided(p) == two_sided
    kinds = [quantile_estimate([np.arange(float(m))], p, n_eff=m).bound for m in (two_sided - 1, two_sided)]
    assert kinds == [Bound.LOWER if p >= 0.5 else Bound.UPPER, Bound.POINT]


@given(st.floats(0.01, 0.99), st.integers(1, 2000))
def test_both_tails_together_are_alpha(p: float, m: int) -> None:
    """And an end that cannot be had with so few is given none."""
    below, above = stats.tails(p, m)
    assert below + above == pytest.approx(stats.ALPHA if min(p, 1 - p) ** m <= stats.ALPHA else 0, rel=1e-6)
    assert above == 0 or above >= p**m
    assert below == 0 or below >= (1 - p) ** m


@pytest.mark.parametrize("m", [1, 3, 5, 20])
def test_a_lower_end_is_never_above_the_value(m: int) -> None:
    """A p99 of 2,400 requests that are worth five is not said to be above the largest of them."""
    found = quantile_estimate([np.arange(2400.0)], 0.99, n_eff=m)
    assert found.low <= found.value < 2399


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
    found = Sizes(values, Ordered.of(values), cluster_sizes=np.full(400, 100)).at(0.5)
    assert found.n_eff == pytest.approx(400, rel=0.3)


def test_runs_that_differ_widen_the_interval() -> None:
    """Three repetitions on different levels make the interval as wide as they differ."""
    rng = np.random.default_rng(5)
    alike = [rng.normal(100, 1, 400) for _ in range(3)]
    apart = [rng.normal(mean, 1, 400) for mean in (90, 100, 110)]
    narrow, wide = (quantile_estimate(runs, 0.5) for runs in (alike, apart))
    assert wide.high - wide.low > 10 * (narrow.high - narrow.low)


def test_a_run_whose_own_value_nobody_knows_opens_the_interval() -> None:
    """A fifth of one timed out, of all together too few to hide the p90: nobody knows how far the runs differ."""
    rng = np.random.default_rng(7)
    runs = [rng.normal(100, 1, 400) for _ in range(3)]
    closed = quantile_estimate(runs, 0.9)
    runs[2][::5] = math.inf
    bounds = [np.where(np.isinf(run), 200.0, run) for run in runs]
    opened = quantile_estimate(runs, 0.9, bounds=bounds)
    assert math.isfinite(closed.high)
    assert (math.isfinite(opened.value), math.isfinite(opened.low), opened.high) == (True, True, math.inf)
    two = quantile_estimate(runs[1:], 0.5, bounds=bounds[1:])
    assert math.isfinite(two.high)


def test_zero_of_many_has_the_rule_of_three() -> None:
    """No failure among n bounds the rate by 1 - 0.025^(1/n), and failures alone bound it from below likewise."""
    none, all_of_them = (stats.share_estimate([np.full(100, flag)]) for flag in (False, True))
    assert (none.low, none.high) == (0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert (all_of_them.low, all_of_them.high) == (pytest.approx(0.025 ** (1 / 100)), 1)


@pytest.mark.parametrize("m", [5, 12, 59, 80])
def test_coverage_of_a_sample_that_is_worth_fewer(m: int) -> None:
    """Forty equal values each: with the number of different ones as size, 95 in 100 intervals of p99 hold the truth."""
    rng = np.random.default_rng(12)
    found = [quantile_estimate([np.repeat(rng.random(m), 40)], 0.99, n_eff=m) for _ in range(300)]
    assert np.mean([one.low <= 0.99 <= one.high for one in found]) >= 0.92


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
            stats._memory_by_fft(centred).time, rel=1e-6, abs=1e-6
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


@given(st.lists(st.booleans(), min_size=1, max_size=200).map(np.array), st.floats(0, 1))
def test_a_smaller_size_widens_a_share(flags: np.ndarray, part: float) -> None:
    """The same share with an interval at least as wide."""
    free, held = (stats.share_estimate([flags], [size]) for size in (len(flags), max(0.5, part * len(flags))))
    assert held.value == free.value
    assert held.low <= free.low + 1e-9
    assert held.high >= free.high - 1e-9


def test_the_bias_of_a_memory_is_taken_off() -> None:
    """A series as long as ten times its memory is worth fewer than ten; noise is worth itself."""
    assert stats.Memory(1000, 100.0, lags=200.0).size == pytest.approx(10 / 1.401)
    assert stats.Memory(1000, 1.0).size == 1000


@pytest.mark.parametrize("n", [100, 1000, 4000])
def test_a_series_that_never_comes_back_is_worth_one_value(n: int) -> None:
    """A random walk crosses its mean a few times in any window; before this is taken off it seems worth about four."""
    rng = np.random.default_rng(n)
    sizes = [stats.less_seeming(stats.memory_of(rng.normal(size=n).cumsum()).size, n) for _ in range(100)]
    assert np.median(sizes) == 1.0
    assert np.mean(np.array(sizes) < 5) > 0.8
    assert stats.less_seeming(float(n), n) == n


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
