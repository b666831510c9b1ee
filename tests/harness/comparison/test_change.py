"""Changes between two sides: ratios and differences, their intervals, and what they could have noticed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as some

from harness.analysis.stats import Measured
from harness.comparison import change
from harness.comparison.change import Change
from harness.scenario.margins import Scale

POSITIVE = some.floats(1e-3, 1e6)
PAIRS = some.lists(some.tuples(POSITIVE, POSITIVE), min_size=4, max_size=12)
TINY = 1e-9


def ends(found: Change) -> tuple[float, float, float]:
    """Low end, value, high end."""
    return found.interval()[0], found.value, found.interval()[1]


@given(PAIRS, some.sampled_from(Scale))
def test_swapped_sides_invert_the_change(pairs: list[tuple[float, float]], scale: Scale) -> None:
    """Value and both ends."""
    there = change.of_pairs(scale, pairs)
    back = change.of_pairs(scale, [(b, a) for a, b in pairs])
    low, value, high = ends(there.inverse())
    assert ends(back) == pytest.approx((low, value, high), rel=1e-6, abs=1e-6, nan_ok=True)


@given(PAIRS, some.floats(1e-3, 1e3))
def test_another_unit_changes_no_ratio(pairs: list[tuple[float, float]], unit: float) -> None:
    """Scaling both sides."""
    scaled = [(a * unit, b * unit) for a, b in pairs]
    assert ends(change.of_pairs(Scale.RATIO, scaled)) == pytest.approx(
        ends(change.of_pairs(Scale.RATIO, pairs)), rel=1e-6
    )


@given(PAIRS, some.sampled_from(Scale))
def test_the_value_lies_in_its_interval(pairs: list[tuple[float, float]], scale: Scale) -> None:
    """And the p-values at its ends are 5 %."""
    found = change.of_pairs(scale, pairs)
    assume(found.known)
    low, value, high = ends(found)
    rounding = TINY * (1 + abs(value))
    assert low <= value + rounding
    assert value <= high + rounding
    assume(found.below > 1e-6 and low > 1e-300 and high < 1e300)
    assert found.p_above(low) == pytest.approx(0.05, abs=1e-6)
    assert found.p_below(high) == pytest.approx(0.05, abs=1e-6)


def test_more_pairs_narrow_the_interval_on_average() -> None:
    """By the root of their number and Student's factor."""
    random = np.random.default_rng(4)

    def width(pairs: int) -> float:
        drawn = np.exp(random.normal(0, 0.05, (400, pairs, 2)))
        found = [change.of_pairs(Scale.RATIO, [*map(tuple, table)]) for table in drawn]
        return float(np.mean([math.log(one.interval()[1] / one.interval()[0]) for one in found]))

    widths = [width(pairs) for pairs in (4, 6, 8, 12, 20)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("pairs", "deviations"), [(3, 3.26), (4, 2.128), (5, 1.68), (8, 1.155), (10, 1.0), (20, 0.66)])
def test_the_change_that_is_noticed_with_a_chance_of_80_percent(pairs: int, deviations: float) -> None:
    """In standard deviations of a pair, as tables of the paired t-test have it."""
    assert change.noticed(pairs - 1) / math.sqrt(pairs) == pytest.approx(deviations, rel=0.01)


def test_the_chance_to_notice_is_what_it_says() -> None:
    """Of 4,000 simulated comparisons of 6 pairs, 80 % notice the least change that is noticed."""
    random = np.random.default_rng(5)
    step = change.noticed(5) * 0.02 / math.sqrt(6)
    drawn = random.normal(0, 0.02, (4000, 6)) + step
    seen = 0
    for at, error in zip(drawn.mean(axis=1), drawn.std(axis=1, ddof=1) / math.sqrt(6), strict=True):
        found = change.Change(Scale.RATIO, at, error, error, 5)
        seen += min(found.p_above(1.0), found.p_below(1.0)) < 0.025
    assert seen / 4000 == pytest.approx(0.8, abs=0.02)


@given(PAIRS)
def test_pairs_needed_are_enough_and_no_more(pairs: list[tuple[float, float]]) -> None:
    """One fewer would not notice the margin."""
    found = change.of_pairs(Scale.RATIO, pairs)
    deviation = found.below * math.sqrt(len(pairs))
    assume(deviation > 1e-9)
    for margin in (0.03, 0.1, deviation):
        needed = change.pairs_needed(deviation, margin)
        if needed is not None:
            assert change.noticed(needed - 1) * deviation / math.sqrt(needed) <= margin
            assert needed == 4 or change.noticed(needed - 2) * deviation / math.sqrt(needed - 1) > margin


@pytest.mark.parametrize("scale", Scale)
def test_few_pairs_have_a_value_and_no_interval(scale: Scale) -> None:
    """Nobody is told that three starts are certain."""
    found = change.of_pairs(scale, [(1.0, 1.1)] * 3)
    assert found.value == pytest.approx(1.1 if scale is Scale.RATIO else 0.1)
    assert not found.known
    assert (found.p_above(0.5), found.p_below(2.0)) == (1.0, 1.0)
    assert math.isnan(found.least_seen)


@pytest.mark.parametrize("pairs", [[(0.0, 1.0)] * 4, [(1.0, math.nan)] * 4, [(math.inf, 1.0)] * 4, []])
def test_zeros_and_unknown_numbers_have_no_ratio(pairs: list[tuple[float, float]]) -> None:
    """They are said to be unknown, and never a number."""
    found = change.of_pairs(Scale.RATIO, pairs)
    assert math.isnan(found.value)
    assert not found.known
    assert found.method


def test_equal_pairs_are_certain() -> None:
    """Without spread the interval is the value."""
    found = change.of_pairs(Scale.RATIO, [(2.0, 3.0)] * 5)
    assert ends(found) == pytest.approx((1.5, 1.5, 1.5))
    assert (found.p_above(1.4), found.p_above(1.6)) == (0.0, 1.0)


def test_starts_that_are_no_pairs_by_hand() -> None:
    """Welch's test of the logarithms, as scipy has it."""
    from scipy.stats import ttest_ind

    one, other = [1.0, 1.1, 0.9, 1.05, 1.0], [1.2, 1.3, 1.1, 1.25]
    found = change.unpaired(Scale.RATIO, one, other)
    expected = ttest_ind(np.log(other), np.log(one), equal_var=False, alternative="greater")
    assert found.p_above(1.0) == pytest.approx(float(expected.pvalue))
    assert found.value == pytest.approx(math.exp(np.mean(np.log(other)) - np.mean(np.log(one))))


def test_two_intervals_give_one() -> None:
    """Two symmetric intervals of 10 % give one of 14 % on the logarithm; of shares, one of the difference."""
    wide = Measured(100.0, 100 / 1.1, 110.0)
    found = change.of_intervals(Scale.RATIO, wide, wide)
    half = math.log(1.1) * math.sqrt(2) * 1.644854 / 1.959964
    assert ends(found) == pytest.approx((math.exp(-half), 1.0, math.exp(half)))
    found = change.of_intervals(Scale.DIFFERENCE, Measured(0.0, 0.0, 0.01), Measured(0.05, 0.03, 0.08))
    assert found.value == pytest.approx(0.05)
    assert found.interval()[0] == pytest.approx(0.05 - math.hypot(0.02, 0.01) * 1.644854 / 1.959964)


@pytest.mark.parametrize("open_end", [Measured(5.0), Measured(5.0, 4.0, math.inf), Measured(5.0, math.nan, 6.0)])
def test_an_open_end_leaves_the_value_without_interval(open_end: Measured) -> None:
    """The value is shown all the same."""
    found = change.of_intervals(Scale.RATIO, Measured(10.0, 9.0, 11.0), open_end)
    assert found.value == pytest.approx(0.5)
    assert not found.known


def test_resampled_requests_give_the_ends_of_their_quantiles() -> None:
    """5 % of the resamples lie beyond each."""
    relative = np.exp(np.random.default_rng(6).normal(0, 0.03, 100_000))
    found = change.of_requests(1.2, relative)
    low, high = np.quantile(relative, [0.05, 0.95])
    assert ends(found) == pytest.approx((1.2 * low, 1.2, 1.2 * high))


def test_ranks_check_the_mean() -> None:
    """Six pairs that all rise: the exact test says 1 in 32, whatever their sizes; one stray pair moves it little."""
    pairs = [(1.0, 1.02), (1.0, 1.03), (1.0, 1.01), (1.0, 1.025), (1.0, 1.015), (1.0, 9.0)]
    found = change.ranked(Scale.RATIO, pairs)
    assert found is not None
    assert found.p_value == pytest.approx(2 / 64)
    assert 1.01 < found.value < 1.1 < change.of_pairs(Scale.RATIO, pairs).value
    assert change.ranked(Scale.RATIO, pairs[:5]) is None
    equal = change.ranked(Scale.RATIO, [(1.0, 1.0)] * 6)
    assert equal is not None
    assert (equal.value, equal.p_value) == (1.0, 1.0)
