"""The knee lies between the last load that is like the lightest and the first that is not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.knee import Knee, knee

NAN = math.nan


@pytest.mark.parametrize(
    ("loads", "p95", "share", "expected"),
    [
        ([1, 2, 4, 8], [96, 91, 95, 746], [], Knee(4, 8, "p95 grows 7.8 times")),
        ([1, 2, 4, 8], [96, 91, 95, 191], [1, 1, 1, 0.8], Knee(4, 8, "goodput falls to 80\u202f%")),
        ([1, 2, 4, 8], [96, 91, 95, 191], [1, 1, 1, 0.91], None),
        ([1, 2, 4], [10, 20, 20.1], [], Knee(2, 4, "p95 grows 2 times")),
        ([1, 2], [10, 10], [0.5, 0.4], None),
        ([1, 2, 4], [10, NAN, 50], [1, NAN, 1], Knee(2, 4, "p95 grows 5 times")),
        ([1, 2], [50, 6150], [], Knee(1, 2, "p95 grows 120 times")),
        ([1, 2], [10, 10], [1, 0.896], Knee(1, 2, "goodput falls to 89.6\u202f%")),
        ([1], [10], [1], None),
        ([], [], [], None),
    ],
)
def test_the_knee_is_where_latency_or_goodput_breaks(
    loads: list[float], p95: list[float], share: list[float], expected: Knee | None
) -> None:
    """Known answers: p95 beyond twice the lightest, or a fall below nine tenths; what is unknown decides nothing."""
    assert knee(loads, p95, share) == expected


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_it_does_not_depend_on_units(p95: list[float], scale: float) -> None:
    """Milliseconds or seconds: the same loads; those before it are all like the lightest."""
    loads = [float(number) for number in range(len(p95))]
    found, scaled = knee(loads, p95), knee(loads, [scale * one for one in p95])
    near = any(abs(one / p95[0] - 2) < 1e-9 for one in p95)
    assert near or (found and (found.below, found.above)) == (scaled and (scaled.below, scaled.above))
    if found:
        assert max(p95[: int(found.above)]) <= 2 * p95[0] < p95[int(found.above)]
