"""Noise of a series: its spread, its memory, and nights that stand alone."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.stats import Floats
from harness.history.detector.bursts import bursts
from harness.history.detector.noise import (
    NoiseClass,
    alike_from,
    correlation,
    noise_of,
    running_median,
    spikes,
    step_sigma,
    without_spikes,
)


def autoregressive(rho: float, n: int, seed: int) -> Floats:
    """Nights that remember the one before, with a standard deviation of one."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=n)
    for night in range(1, n):
        values[night] = rho * values[night - 1] + values[night] * np.sqrt(1 - rho**2)
    return values


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_the_autocorrelation_of_short_series_is_right_on_average(rho: float) -> None:
    """Of a hundred nights with two steps: without the correction it is a tenth too low."""
    found = []
    for seed in range(300):
        values = autoregressive(rho, 100, seed)
        values[40:] += 5
        found.append(noise_of(values, (40,), 100).correlation)
    assert np.mean(found) == pytest.approx(rho, abs=0.05)


def test_the_spread_is_that_after_the_last_change() -> None:
    """Until there are ten nights since, that of all, unless the last ones are clearly noisier."""
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(0, 1, 80), rng.normal(9, 3, 20)])
    assert noise_of(values, (80,), 100).sigma == pytest.approx(3, rel=0.4)
    assert noise_of(values[:83], (80,), 100).sigma == pytest.approx(1, rel=0.3)
    assert noise_of(values[:88], (80,), 100).sigma == pytest.approx(3, rel=0.5)


def test_steps_do_not_widen_the_spread_of_neighbours() -> None:
    """The Hampel filter uses it before any step is known."""
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, 200) + np.repeat(np.arange(4) * 20, 50)
    assert step_sigma(values) == pytest.approx(1, rel=0.2)


def test_a_single_slow_night_is_replaced_and_a_step_is_not() -> None:
    """The first nights of a step stay as they are once there are three of them."""
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, 60)
    values[20] += 8
    values[50:] += 8
    assert [*np.flatnonzero(spikes(values))] == [20]
    assert abs(without_spikes(values)[20]) < 3
    assert without_spikes(values)[50:] == pytest.approx(values[50:])


def test_two_nights_at_the_end_are_not_decided_yet() -> None:
    """They count as the level before; the third one makes them a change."""
    values = np.append(np.random.default_rng(4).normal(0, 1, 40), [9.0, 10.0])
    assert np.abs(without_spikes(values)[-2:]).max() < 3
    assert without_spikes(np.append(values, 9.0))[-3:] == pytest.approx([9, 10, 9])


def test_several_odd_nights_in_a_week_do_not_stand_alone() -> None:
    """They are noise, and hiding them would make a false change certain."""
    values = np.random.default_rng(5).normal(0, 1, 60)
    values[[30, 32, 34]] += (9, -9, 9)
    assert not spikes(values).any()


def test_the_running_median_keeps_the_ends() -> None:
    """There it is of fewer nights."""
    assert running_median(np.array([5.0, 1, 1, 1, 9])) == pytest.approx([1, 1, 1, 1, 1])
    assert running_median(np.array([3.0])) == pytest.approx([3])


def test_the_class_of_a_noise() -> None:
    """By spread and dependence; too few nights have none."""
    rng = np.random.default_rng(6)
    for spread, word in ((0.004, NoiseClass.STEADY), (0.02, NoiseClass.USUAL), (0.06, NoiseClass.LOUD)):
        assert noise_of(rng.normal(0, spread, 100), (), 100).word is word
    assert noise_of(rng.normal(0, 0.2, 100), (), 100).word is NoiseClass.NOISY
    assert noise_of(0.02 * autoregressive(0.8, 100, 1), (), 100).word is NoiseClass.NOISY
    assert noise_of(rng.normal(0, 0.02, 5), (), 100).word is NoiseClass.UNKNOWN


def test_a_correlation_of_equal_nights_is_unknown() -> None:
    """As is that of a handful."""
    assert np.isnan(correlation([np.zeros(50)]))
    assert np.isnan(correlation([np.array([1.0, 2, 3])]))


def test_a_noisy_week_is_seen_and_a_step_or_slow_nights_are_not() -> None:
    """A burst lies on both sides, and its neighbours differ."""
    rng = np.random.default_rng(7)
    values = rng.normal(0, 1, 70)
    values[60:67] *= 5
    ((first, last),) = bursts(values)
    assert 59 <= first <= 62
    assert 64 <= last <= 67
    step = rng.normal(0, 1, 70)
    step[60:] += 6
    slow = rng.normal(0, 1, 70)
    slow[[61, 65]] += 8
    assert bursts(step) == bursts(slow) == []


def test_nights_that_became_noisier_are_told_from_those_before() -> None:
    """The place is found to a few nights. Steady series are alike from the first, those with one odd night as well."""
    rng = np.random.default_rng(3)
    steady = rng.normal(size=100)
    assert alike_from(steady) == 0
    assert alike_from(np.concatenate([steady[:99], [8.0]])) == 0
    wider = np.concatenate([steady[:70], 3 * steady[70:]])
    assert alike_from(wider) == pytest.approx(70, abs=5)
    assert alike_from(steady[:10]) == alike_from(np.zeros(40)) == 0
