"""Axes have few marks, at round values, and ends that hold what is drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.plots import scales

POSITIVE = st.floats(1e-3, 1e7)
THIN = "\u202f"


def axes() -> Axes:
    """Empty ones."""
    return Figure().add_axes((0.1, 0.1, 0.8, 0.8), autoscale_on=False)


def names(drawn: Axes) -> list[str]:
    """What is written along the abscissa."""
    return [label.get_text() for label in drawn.xaxis.get_ticklabels()]


@pytest.mark.parametrize(
    ("fix", "expected"),
    [
        (lambda axis: scales.linear(axis, 0, 100, 5), ["0", "20", "40", "60", "80", "100"]),
        (lambda axis: scales.from_zero(axis, 0.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (lambda axis: scales.from_zero(axis, 23_000, 4), ["0", f"10{THIN}000", f"20{THIN}000"]),
        (
            lambda axis: scales.logarithmic(axis, 8, 2500),
            ["10", "20", "50", "100", "200", "500", "1000", "2000"],
        ),
        (lambda axis: scales.logarithmic(axis, 41, 49), ["42", "44", "46", "48"]),
        (
            lambda axis: scales.of_shares(axis, 0.01, 600),
            ["p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9"],
        ),
        (
            lambda axis: scales.of_shares(axis, 0.01, 30),
            ["p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95"],
        ),
    ],
)
def test_marks_are_round(fix: Callable[[object], None], expected: list[str]) -> None:
    """Few, at round values, written as people do."""
    drawn = axes()
    fix(drawn.xaxis)
    assert names(drawn) == expected


@given(POSITIVE, st.floats(0, 5))
def test_values_of_an_even_axis_lie_inside(least: float, more: float) -> None:
    """It begins at 0 unless all lie far from there, never below, and has room at both ends then."""
    drawn, greatest = axes(), least * (1 + more)
    scales.around(drawn.xaxis, least, greatest)
    begin, end = drawn.get_xlim()
    assert begin == scales.beginning(least, greatest)
    assert 0 <= begin < least <= greatest < end
    assert (begin == 0) == (least < 0.5 * greatest)


@example(0.001, 0.0010000000000000002)
@given(POSITIVE, POSITIVE)
def test_marks_lie_between_the_ends(one: float, other: float) -> None:
    """On even and logarithmic axes, few of them, and at least one unless the ends are all but the same."""
    low, high = sorted((one, other))
    for marks in (scales.even(low, high, 6) if high > low else [], scales.decades(low, high, 8) if high > low else []):
        assert len(marks) <= 8
        assert marks or high / low < 1.001
        room = (high - low) * 1e-6 + high * 1e-12
        assert all(low - room <= mark <= high + room for mark in marks)
        assert marks == sorted(set(marks))


@given(POSITIVE, POSITIVE)
def test_every_axis_holds_its_range(one: float, other: float) -> None:
    """The ends are those asked for, in order, also where they are the same."""
    low, high = sorted((one, other))
    for fix in (scales.linear, scales.logarithmic):
        drawn = axes()
        fix(drawn.yaxis, low, high)
        least, greatest = drawn.get_ylim()
        assert least < greatest
        assert least <= low
        assert greatest >= high


def test_a_normal_distribution_is_a_straight_line() -> None:
    """Equal steps in standard deviations are equal steps along an axis of quantiles."""
    drawn = axes()
    scales.of_shares(drawn.yaxis, 0.01, 1000)
    places = drawn.transData.transform([(0, share) for share in (0.15865525, 0.5, 0.84134475)])[:, 1]
    assert places[2] - places[1] == pytest.approx(places[1] - places[0])
    assert np.all(np.isfinite(scales.deviations([0.0, 1.0])))


def test_steep_values_get_a_logarithmic_axis() -> None:
    """Only where they differ more than asked for, and never for zero."""
    for least, greatest, scale in ((1, 100, "log"), (10, 100, "linear"), (0, 100, "linear")):
        drawn = axes()
        scales.upright(drawn.yaxis, least, greatest, 30)
        assert drawn.get_yscale() == scale
