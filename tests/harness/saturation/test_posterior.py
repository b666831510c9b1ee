"""The threshold model: a curve that is known is found again, and evidence moves it the right way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.saturation.posterior import Tried, estimate

SHARE = 0.95
RATES = st.floats(0.6, 1.0)
TRIED = st.builds(lambda rate, size, part: Tried(rate, size, size * part), RATES, st.floats(1, 500), st.floats(0, 1))


def curve(rate: float, threshold: float, slope: float = 22.0) -> float:
    """The share that misses by the model."""
    return 1 / (1 + math.exp(math.log(SHARE / (1 - SHARE)) - slope * (rate / threshold - 1)))


def test_without_evidence_the_threshold_may_be_anywhere() -> None:
    """The prior is uniform on its range."""
    found = estimate([], SHARE, 5.0, 15.0)
    assert found.value == pytest.approx(10.0)
    assert found.lower == pytest.approx(6.0, abs=0.1)
    assert found.upper == pytest.approx(14.0, abs=0.1)


@pytest.mark.parametrize("threshold", [0.7, 0.85, 0.95])
def test_a_known_threshold_is_found(threshold: float) -> None:
    """Thousands of independent requests around it leave 1 %."""
    rates = threshold * np.array([0.9, 0.95, 1.0, 1.05])
    tried = [Tried(float(rate), 4000, 4000 * curve(float(rate), threshold)) for rate in rates]
    found = estimate(tried, SHARE, 0.5, 1.03)
    assert found.value == pytest.approx(threshold, rel=0.01)
    assert found.lower < threshold < found.upper
    assert found.half_width < 0.02


@given(RATES, st.floats(1, 500))
def test_missed_requests_lower_the_threshold(rate: float, size: float) -> None:
    """One rate, with all of its requests missed and with all good."""
    worse, better = (estimate([Tried(rate, size, missed)], SHARE, 0.5, 1.03) for missed in (size, 0.0))
    for p in (0.1, 0.5, 0.9):
        assert worse.at(p) <= better.at(p) + 1e-9


@given(st.lists(TRIED, max_size=6))
def test_bounds_are_in_order_and_within_the_range(tried: list[Tried]) -> None:
    """Whatever was seen."""
    found = estimate(tried, SHARE, 0.5, 1.03)
    assert 0.49 <= found.lower <= found.value <= found.upper <= 1.04
    assert found.weights.sum() == pytest.approx(1.0)


def test_rates_far_below_the_threshold_say_little() -> None:
    """A thousand good requests at half of the load leave the threshold as wide as before, above them."""
    before, after = estimate([], SHARE, 0.5, 1.03), estimate([Tried(0.25, 1000, 0)], SHARE, 0.5, 1.03)
    assert after.value == pytest.approx(before.value, rel=0.05)


def test_a_range_that_begins_above_the_threshold_is_told() -> None:
    """Where every request missed, nothing bounds the threshold from below; half of them at 0.9 do."""
    assert estimate([Tried(0.6, 100, 100)], SHARE, 0.5, 1.03).at_floor
    assert not estimate([Tried(0.6, 100, 0), Tried(0.9, 100, 50)], SHARE, 0.5, 1.03).at_floor
