"""Axes have few marks, at round values, ends that hold what is drawn, and say what is unusual about them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.plots import scales
from reports.plots.scales import Scale

POSITIVE = st.floats(1e-3, 1e7)
THIN = "\u202f"


def axes(scale: Scale, side: str = "x") -> Axes:
    """Empty ones with this scale on one side."""
    drawn = Figure().add_axes((0.1, 0.1, 0.8, 0.8), autoscale_on=False)
    scale.put_on(drawn.xaxis if side == "x" else drawn.yaxis)
    return drawn


def names(scale: Scale) -> list[str]:
    """What is written along the abscissa, between its ends."""
    drawn = axes(scale)
    low, high = drawn.get_xlim()
    ticks = zip(drawn.get_xticks(), drawn.xaxis.get_ticklabels(), strict=True)
    return [label.get_text() for at, label in ticks if low * (1 - 1e-9) <= at <= high * (1 + 1e-9)]


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (scales.between(0, 100), ["0", "20", "40", "60", "80", "100"]),
        (scales.from_zero([]), ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (scales.from_zero([23_000], 4), ["0", f"10{THIN}000", f"20{THIN}000"]),
        (scales.logarithmic([8, 2000]), ["10", "20", "50", "100", "200", "500", "1000", "2000"]),
        (scales.logarithmic([8, 200_000]), ["10", "100", "1000", f"10{THIN}000", f"100{THIN}000"]),
        (scales.logarithmic([38, 51]), ["40", "50"]),
        (scales.shares(0.01, 600), ["p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95", "p99", "p99.9"]),
        (scales.shares(0.01, 30), ["p1", "p5", "p10", "p25", "p50", "p75", "p90", "p95"]),
    ],
)
def test_marks_are_round(scale: Scale, expected: list[str]) -> None:
    """Few, at round values, written as people do."""
    assert names(scale) == expected


@given(POSITIVE, st.floats(0, 5))
def test_an_axis_that_begins_elsewhere_says_where(least: float, more: float) -> None:
    """It begins at 0 unless all values lie far from there, and has room at both ends then."""
    greatest = least * (1 + more)
    scale = scales.near([least, greatest])
    begin, end = axes(scale).get_xlim()
    assert 0 <= begin < least <= greatest < end
    assert scale.remark == ("" if begin == 0 else f"axis begins at {scales.plain(float(f'{begin:.3g}'))}")
    assert begin == pytest.approx(float(f"{begin:.3g}"), rel=1e-2)
    assert begin == 0 or least > 0.5 * greatest


@example(0.001, 0.0010000000000000002)
@given(POSITIVE, POSITIVE)
def test_every_axis_holds_its_values(one: float, other: float) -> None:
    """Whatever they are, also where they are the same; its marks are few."""
    for make in (scales.from_zero, scales.near, scales.logarithmic, scales.upright):
        scale = make([one, other, float("nan"), float("inf")])
        drawn = axes(scale, "y")
        least, greatest = drawn.get_ylim()
        assert least <= min(one, other)
        assert max(one, other) <= greatest
        assert least < greatest
        assert sum(least <= mark <= greatest for mark in drawn.get_yticks()) <= 12


def test_a_normal_distribution_is_a_straight_line() -> None:
    """Equal steps in standard deviations are equal steps along an axis of quantiles."""
    drawn = axes(scales.shares(0.01, 1000), "y")
    places = drawn.transData.transform([(0, share) for share in (0.15865525, 0.5, 0.84134475)])[:, 1]
    assert places[2] - places[1] == pytest.approx(places[1] - places[0])
    assert np.all(np.isfinite(scales.deviations([0.0, 1.0])))


def test_steep_values_get_a_logarithmic_axis_and_it_says_so() -> None:
    """Only where they differ more than asked for, and never for zero."""
    for values, remark in (([1, 100], "logarithmic"), ([10, 100], ""), ([0, 100], "")):
        assert scales.upright(values, steep=30).remark == remark


def test_marks_can_have_names() -> None:
    """The loads of a sweep, each where it is."""
    assert names(Scale(1, 40, "log", marks={1.0: "1", 8.0: "8", 32.0: "32"})) == ["1", "8", "32"]
