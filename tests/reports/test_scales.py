"""Scales put values where they belong and mark round ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import scales

POSITIVE = st.floats(1e-3, 1e7)


@pytest.mark.parametrize(
    ("scale", "names"),
    [
        (scales.linear(0, 100, 5), ["0", "20", "40", "60", "80", "100"]),
        (scales.from_zero(0.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (scales.from_zero(23_000, 4), ["0", "10 000".replace(" ", "\u202f"), "20 000".replace(" ", "\u202f")]),
        (scales.logarithmic(8, 2500), ["10", "20", "50", "100", "200", "500", "1000", "2000"]),
        (
            scales.logarithmic(0.9, 2e7),
            ["1", "10", "100", "1000", "10\u202f000", "100\u202f000", "1\u202f000\u202f000", "1e+07"],
        ),
        (scales.logarithmic(41, 49), ["42", "44", "46", "48"]),
        (scales.of_shares(0.01, 600), ["p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9"]),
        (scales.of_shares(0.01, 30), ["p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95"]),
    ],
)
def test_marks_are_round(scale: scales.Scale, names: list[str]) -> None:
    """Few, at round values, written as people do."""
    assert [name for _, name in scale.marks] == names


@given(POSITIVE, POSITIVE)
def test_every_scale_runs_from_one_end_to_the_other(one: float, other: float) -> None:
    """The ends lie at 0 and 1, what is greater never lies before, what is beyond lies at the end."""
    low, high = sorted((one, other))
    for scale in (scales.linear(low, high), scales.logarithmic(low, high), scales.from_zero(high)):
        values = np.linspace(scale.low, scale.high, 7)
        along = scale.at(values)
        assert along[0] == pytest.approx(0)
        assert along[-1] == pytest.approx(1)
        assert (np.diff(along) >= 0).all()
        assert scale.at([scale.high * 2]) == 1
        assert 1 <= len(scale.marks) <= 9 or high / low < 1.001
        width = scale.high - scale.low
        assert all(-1e-6 <= (mark - scale.low) / width <= 1 + 1e-6 for mark, _ in scale.marks)


def test_a_normal_distribution_is_a_straight_line() -> None:
    """Equal steps in standard deviations are equal steps along a scale of quantiles."""
    shares = [0.15865525, 0.5, 0.84134475]
    below, middle, above = scales.of_shares(0.01, 1000).at(shares)
    assert above - middle == pytest.approx(middle - below)


def test_what_is_unknown_has_no_place() -> None:
    """NaN stays NaN, so that lines break there."""
    assert math.isnan(scales.linear(0, 1).at([math.nan])[0])


def test_steep_values_get_a_logarithmic_scale() -> None:
    """Only where they differ more than asked for, and never for zero."""
    assert scales.upright(1, 100, 30).low > 0
    assert scales.upright(10, 100, 30).low == 0
    assert scales.upright(0, 100, 30).low == 0
