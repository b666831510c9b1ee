"""Change points: the fast statistic against a slow obvious one, known steps, and what a test may not find."""

from __future__ import annotations

import math
import os
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from benchmarks import otava
from harness.analysis.stats import Floats
from harness.history.detector.changes import candidate, change_points, pair_sums, placed, student_p
from harness.history.detector.noise import without_spikes

NUMBERS = some.lists(some.floats(-100, 100), min_size=2, max_size=14).map(np.array)


def energy(left: Floats, right: Floats) -> float:
    """Matteson and James' statistic, as their formula (5) has it: means of distances over all pairs."""
    n, m = len(left), len(right)
    across = np.mean([abs(x - y) for x in left for y in right])
    within = [
        np.mean([abs(x - y) for x, y in combinations(side, 2)]) if len(side) > 1 else 0.0 for side in (left, right)
    ]
    return float(n * m / (n + m) * (2 * across - sum(within)))


@given(NUMBERS)
def test_the_table_has_the_distances_of_all_pairs(values: Floats) -> None:
    """Of every stretch."""
    sums = pair_sums(values)
    for a in range(len(values)):
        for b in range(a, len(values) + 1):
            assert sums[a, b] == pytest.approx(sum(abs(x - y) for x, y in combinations(values[a:b], 2)), abs=1e-6)


@given(NUMBERS, some.integers(1, 3))
def test_the_candidate_is_the_largest_statistic_of_all_divisions(values: Floats, least: int) -> None:
    """Parts have at least so many values, and the right one may end before the stretch does."""
    found, cut, until = candidate(pair_sums(values), 0, len(values), least)
    all_of_them = [
        energy(values[:t], values[t:k])
        for t in range(least, len(values) - least + 1)
        for k in range(t + least, len(values) + 1)
    ]
    assert found == pytest.approx(max(all_of_them, default=-math.inf), abs=1e-6)
    if cut > 0:
        assert energy(values[:cut], values[cut:until]) == pytest.approx(found, abs=1e-6)


@given(some.lists(some.floats(-10, 10), min_size=4, max_size=20), some.integers(2, 18))
def test_the_p_value_is_students(values: list[float], cut: int) -> None:
    """The pooled variance has n + m - 2 degrees of freedom: not those of a population."""
    left, right = np.round(np.array(values[:cut]), 3), np.round(np.array(values[cut:]), 3)
    if min(len(left), len(right)) < 2 or min(left.std(), right.std()) < 1e-3:
        return
    assert student_p(left, right) == pytest.approx(stats.ttest_ind(left, right).pvalue, rel=1e-6, abs=1e-12)


def test_a_step_is_found_at_its_night() -> None:
    """Up and down again, with noise a third of it."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, 120)
    values[50:80] += 4
    assert [one.index for one in change_points(values)] == [50, 80]


def test_two_opposite_shifts_do_not_hide_each_other() -> None:
    """A test against the whole rest of the series misses both: the last nights bring its mean back."""
    rng = np.random.default_rng(2)
    values = rng.normal(0, 0.01, 53)
    values[30:40] += 0.08
    values[40:50] += 0.14
    values[50:] += 0.07
    assert [one.index for one in change_points(values)] == [30, 40, 50]


def test_equal_nights_have_no_change_and_an_exact_step_is_certain() -> None:
    """Memory is often the same to the byte."""
    assert change_points(np.full(40, 7.0)) == []
    (found,) = change_points(np.array([7.0] * 20 + [8.0] * 5))
    assert (found.index, found.p) == (20, 0.0)


def test_one_or_two_nights_are_no_change() -> None:
    """Of three nights the spread is known a little. A part that holds two of them and one before is none either."""
    rng = np.random.default_rng(3)
    values = rng.normal(0, 0.1, 40)
    values[-2:] += 5
    assert change_points(without_spikes(values)) == []
    assert [one.index for one in change_points(without_spikes(np.append(values, 5.0)))] == [38]


@given(some.integers(0, 40))
def test_too_few_nights_have_no_change(n: int) -> None:
    """Down to none at all; pure noise of a fixed seed has none either."""
    assert change_points(np.random.default_rng(11).normal(size=n)) == []


def test_the_place_of_a_step_covers_its_night() -> None:
    """In 95 % of the series, of steps of two standard deviations, and it is narrow for large ones."""
    rng = np.random.default_rng(4)
    inside, width = 0, []
    for _ in range(300):
        values = rng.normal(size=60)
        values[40:] += 2
        first, last = placed(values, 40)
        inside += placed(values, first)[0] <= 40 <= last
        values[40:] += 8
        width.append(np.subtract(*placed(values, 40)[::-1]))
    assert inside >= 0.93 * 300
    assert np.mean(width) < 0.1


def test_otava_agrees_where_policies_are_switched_off() -> None:
    """On 200 random series, once its spread is that of a sample and it recomputes the neighbours of a removed point."""
    python = os.environ.get(otava.PYTHON)
    if python is None:
        pytest.skip(
            f"needs apache-otava in an environment of its own: make otava installs it ({otava.PYTHON} is not set)"
        )
    series = otava.random_series()
    theirs = otava.otava_says(python, series, 1e-3)["repaired"]
    ours = [[one.index for one in change_points(np.array(x), 1e-3, otava.WINDOW, 1, whole=True)] for x in series]
    assert ours == theirs
