"""Throughput over users: known laws are found again with intervals that hold the truth; all else is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.analysis.stats import Floats
from harness.fits.curve import Points, fit
from harness.fits.refusal import Refusal
from harness.fits.throughput import _CEILING, _USL, _USL_BY_PEAK, CEILING, USL, Throughput, throughput

USERS = np.array([1.0, 2, 4, 8, 16, 32, 64])


def usl(users: Floats, gamma: float = 40.0, alpha: float = 0.02, beta: float = 4e-4) -> Floats:
    """Throughput by the law; its peak is at 49.5 users."""
    return np.asarray(gamma * users / (1 + alpha * (users - 1) + beta * users * (users - 1)))


def level(users: Floats, gamma: float = 40.0, alpha: float = 0.005, peak: float = 20.0) -> Floats:
    """Throughput that grows nearly in proportion up to 20 users, and no further."""
    inside = np.minimum(users, peak)
    return np.asarray(gamma * inside / (1 + alpha * (inside - 1)))


def measured(truth: Floats, seed: int = 0, error: float = 0.02, users: Floats = USERS) -> Points:
    """Points around a truth, each with a standard error of 2 %."""
    noise = np.random.default_rng(seed).normal(1, error, len(truth))
    return Points(users, truth * noise, error * truth)


def found_in(points: Points) -> Throughput:
    """The law that fits."""
    found = throughput(points)
    assert isinstance(found, Throughput)
    return found


def test_the_law_of_exact_points_is_found() -> None:
    """Parameters, peak and hold-out error of points without noise."""
    found = found_in(measured(usl(USERS), error=1e-6))
    assert found.law == USL
    assert [one.value for one in found.parameters.values()] == pytest.approx([40.0, 0.02, 4e-4], rel=1e-3)
    assert found.peak.value == pytest.approx(math.sqrt(0.98 / 4e-4), rel=1e-3)
    assert found.hold_out < 1e-3
    assert found.is_near


def test_a_ceiling_is_found() -> None:
    """Nearly in proportion, then level: no law of coherency."""
    found = found_in(measured(level(USERS), error=0.01))
    assert found.law == CEILING
    assert found.peak.low < 20 < found.peak.high
    assert found.parameters["most"].low < level(np.array([20.0]))[0] < found.parameters["most"].high


@pytest.mark.parametrize(
    ("curve", "name", "truth", "points"),
    [
        (_USL, "gamma", 40.0, usl),
        (_USL, "alpha", 0.02, usl),
        (_USL, "beta", 4e-4, usl),
        (_USL_BY_PEAK, "peak", math.sqrt(0.98 / 4e-4), usl),
        (_CEILING, "gamma", 40.0, level),
        (_CEILING, "alpha", 0.005, level),
        (_CEILING, "peak", 20.0, level),
    ],
)
def test_intervals_hold_the_truth(curve: object, name: str, truth: float, points: object) -> None:
    """In at least 90 % of simulated sweeps; they are of 95 %."""
    sweeps = [measured(points(USERS), seed) for seed in range(60)]  # type: ignore[operator]
    held = [fit(curve, one).holds(name, truth) for one in sweeps]  # type: ignore[arg-type]
    assert sum(held) >= 54


@pytest.mark.parametrize(("truth", "law"), [(usl, USL), (level, CEILING)])
def test_the_right_law_is_chosen(truth: object, law: str) -> None:
    """In nearly all simulated sweeps, with points that are good to 0.5 %."""
    found = [throughput(measured(truth(USERS), seed, 0.005)) for seed in range(10)]  # type: ignore[operator]
    laws = [one.law for one in found if isinstance(one, Throughput)]
    assert laws.count(law) >= 9


def test_few_numbers_of_users_are_refused() -> None:
    """Three parameters need at least six points."""
    found = throughput(measured(usl(USERS[:5]), users=USERS[:5]))
    assert found == Refusal("5 numbers of users were measured well, and 6 are needed")


def test_throughput_that_grows_too_fast_is_refused() -> None:
    """Beta below 0 has no peak, and nothing grows faster than in proportion to the users."""
    late = throughput(measured(40 * USERS / (1 + 0.05 * (USERS - 1) - 5e-4 * USERS * (USERS - 1)), error=0.001))
    assert isinstance(late, Refusal)
    assert late.why.startswith("beta is -0.0005, below 0")
    assert late.why.endswith("measure more users")
    assert isinstance(throughput(measured(USERS**1.5, error=0.001)), Refusal)


def test_contention_is_not_below_zero() -> None:
    """Points that grow in proportion within chance have none, and their interval begins there."""
    found = found_in(measured(level(USERS, alpha=0.0), error=0.01, seed=2))
    assert found.parameters["alpha"].low == 0.0
    assert 0.0 <= found.parameters["alpha"].value < 0.02


def test_points_on_no_curve_are_refused() -> None:
    """Points held out are missed by too much."""
    found = throughput(measured(usl(USERS) * np.array([1, 1.5, 0.7, 1.4, 0.7, 1.3, 0.6]), error=0.01))
    assert isinstance(found, Refusal)
    assert "points held out" in found.why


def test_a_peak_far_beyond_what_was_measured_is_not_near() -> None:
    """Users up to 16 say little of a peak at 300, whose interval is open."""
    users = np.array([1.0, 2, 4, 6, 8, 12, 16])
    found = found_in(measured(usl(users, beta=1e-5), users=users, seed=3))
    assert not found.is_near
    assert found.peak.high == math.inf


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 100), st.floats(1e-3, 1e3))
def test_units_change_nothing(per_user: float, factor: float) -> None:
    """Throughput in other units has the same shape: alpha, beta, peak and hold-out error."""
    points = measured(usl(USERS, gamma=per_user), seed=1)
    scaled = Points(points.x, points.y * factor, points.errors * factor)
    first, second = fit(_USL, points), fit(_USL, scaled)
    assert second.parameters[1:] == pytest.approx(first.parameters[1:], rel=1e-3, abs=1e-7)
    assert second.parameters[0] == pytest.approx(first.parameters[0] * factor, rel=1e-3)
