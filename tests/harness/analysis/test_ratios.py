"""Ratios of two measured numbers: known answers, and intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.stats import Measured, ratio


def test_one_repetition_uses_both_intervals() -> None:
    """On the log scale the distances add in quadrature; the method says what is not in it."""
    found = ratio(Measured(20.0, 18.0, 22.0), Measured(10.0, 9.5, 10.5))
    below = math.hypot(math.log(20 / 18), math.log(10.5 / 10))
    above = math.hypot(math.log(22 / 20), math.log(10 / 9.5))
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high) == (pytest.approx(2 * math.exp(-below)), pytest.approx(2 * math.exp(above)))
    assert "another start" in found.method


def test_three_repetitions_are_paired() -> None:
    """What changes both numbers alike from one repetition to the next is not in the interval of their ratio."""
    pairs = [(20.0, 10.0), (40.0, 20.0), (10.0, 5.0)]
    found = ratio(Measured(20.0), Measured(10.0), pairs)
    assert (found.value, found.low, found.high) == (pytest.approx(2.0),) * 3
    assert found.method == "from 3 repetitions, paired"


@pytest.mark.parametrize("none", [(0.0, 10.0), (20.0, 0.0), (math.nan, 10.0)])
def test_a_repetition_without_a_ratio_is_not_left_out(none: tuple[float, float]) -> None:
    """Without a failure, or with a bound only: the others alone would say something else than all together."""
    pairs = [(20.0, 10.0), (40.0, 10.0), (30.0, 10.0), none]
    found = ratio(Measured(22.5, 20.0, 25.0), Measured(10.0, 9.5, 10.5), pairs)
    assert found.value == pytest.approx(2.25)
    assert found.method.startswith("from the intervals of both")
    assert ratio(Measured(22.5), Measured(10.0), pairs[:3]).method == "from 3 repetitions, paired"


def test_without_intervals_there_is_none() -> None:
    """The ratio is a number, and the method says why it stands alone."""
    found = ratio(Measured(20.0), Measured(10.0, 9.0, 11.0), [(20.0, 10.0)])
    assert found.value == 2.0
    assert math.isnan(found.low)
    assert found.method.startswith("no interval")


def test_an_unknown_number_has_no_ratio() -> None:
    """Neither a value nor ends."""
    assert math.isnan(ratio(Measured(math.nan), Measured(10.0)).value)


def test_the_interval_covers_the_truth() -> None:
    """Of 2,000 pairs of means of 50 values, about 95 in 100 intervals hold the true ratio."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(2000):
        one, other = rng.normal(20, 4, 50), rng.normal(10, 3, 50)
        found = ratio(*(_mean(values) for values in (one, other)))
        hits += found.low <= 2.0 <= found.high
    assert 0.93 <= hits / 2000 <= 0.97


def _mean(values: np.ndarray) -> Measured:
    half = 1.96 * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Measured(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half)
