"""Rates that change: their integral, its inverse, and arrivals that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.scenario.loads.rates import Bursts, Pieces, Ramp, RateShape
from harness.schedule import arrivals
from harness.schedule.arrivals import Process
from harness.seeding import generator
from tests.plans import load_of

SECOND_NS = 1_000_000_000
RATES = st.floats(0.01, 500)
PIECES = st.lists(st.tuples(st.floats(0.1, 100), RATES, RATES), min_size=1, max_size=5).map(
    lambda rows: Pieces(*(tuple(column) for column in zip(*rows, strict=True)))
)
RISE = Pieces((100.0,), (0.0,), (40.0,))
STAIRS = Pieces((30.0, 30.0, 40.0), (5.0, 20.0, 10.0), (5.0, 20.0, 10.0))


def until(shape: RateShape, due_ns: np.ndarray) -> np.ndarray:
    """Expected arrivals until each due time."""
    return np.array([shape.mass_until(at_ns / SECOND_NS) for at_ns in due_ns])


@given(shape=PIECES, at_s=st.floats(-50, 500))
def test_the_inverse_undoes_the_integral(shape: Pieces, at_s: float) -> None:
    """Before, inside and after the pieces."""
    mass = shape.mass_until(at_s)
    assert shape.time_at(np.array([mass]))[0] == pytest.approx(at_s, rel=1e-6, abs=1e-6)


def test_the_integral_of_a_rise_is_its_triangle() -> None:
    """From 0 to 40/s in 100 s: 500 requests in the first half, 2000 in all, then 40 every second."""
    assert [RISE.mass_until(at_s) for at_s in (-5, 0, 50, 100, 101)] == [0, 0, 500, 2000, 2040]
    assert RISE.time_at(np.array([0.0, 500, 2000, 2040])).tolist() == pytest.approx([0, 50, 100, 101])


@pytest.mark.parametrize("shape", [RISE, STAIRS], ids=["ramp", "steps"])
@pytest.mark.parametrize(("process", "cv"), [(Process.CONSTANT, 1.0), (Process.POISSON, 1.0), (Process.GAMMA, 2.0)])
def test_arrivals_follow_the_integrated_rate(shape: Pieces, process: Process, cv: float) -> None:
    """Kolmogorov-Smirnov of the gaps counted in expected arrivals: those of the process at rate 1."""
    gaps = [
        np.diff(until(shape, arrivals.changing(shape, process, generator(seed), cv=cv, end_ns=100 * SECOND_NS)))
        for seed in range(1 if process is Process.CONSTANT else 6)
    ]
    expected = {Process.POISSON: ("expon", ()), Process.GAMMA: ("gamma", (0.25, 0, 4))}
    if process is Process.CONSTANT:
        assert gaps[0] == pytest.approx(np.ones(len(gaps[0])), abs=1e-6)
    else:
        assert stats.kstest(np.concatenate(gaps), *expected[process]).pvalue > 0.001


@pytest.mark.parametrize("shape", [RISE, STAIRS], ids=["ramp", "steps"])
def test_poisson_arrivals_are_spread_as_the_rate(shape: Pieces) -> None:
    """The share of the integral at the due times is uniform, and the numbers are those of the rate."""
    found = [arrivals.changing(shape, Process.POISSON, generator(seed), end_ns=100 * SECOND_NS) for seed in range(20)]
    total = shape.mass_until(100)
    assert np.mean([len(due_ns) for due_ns in found]) == pytest.approx(total, abs=5 * np.sqrt(total / 20))
    assert stats.kstest(until(shape, np.concatenate(found)) / total, "uniform").pvalue > 0.001


def test_constant_arrivals_of_steps_are_evenly_spaced() -> None:
    """Within each step the gap is 1 / rate, to the nanosecond."""
    due_ns = arrivals.changing(STAIRS, Process.CONSTANT, generator(1), end_ns=100 * SECOND_NS)
    assert len(due_ns) == 150 + 600 + 400
    for first, last, gap_ns in ((0, 150, SECOND_NS // 5), (151, 750, SECOND_NS // 20), (751, 1150, SECOND_NS // 10)):
        assert np.abs(np.diff(due_ns[first:last]) - gap_ns).max() <= 1


@given(shape=PIECES, process=st.sampled_from(list(Process)), seed=st.integers(0, 2**31), length_s=st.integers(0, 9))
def test_arrivals_keep_their_limits(shape: Pieces, process: Process, seed: int, length_s: int) -> None:
    """In order and inside the interval, and the same by number as by time."""
    end_ns = (3 + length_s) * SECOND_NS
    limits: Any = {"cv": 1.5, "start_ns": 3 * SECOND_NS, "anchor_ns": 3 * SECOND_NS}
    due_ns = arrivals.changing(shape, process, generator(seed), end_ns=end_ns, **limits)
    assert np.all(np.diff(due_ns) >= 0)
    assert not len(due_ns) or (due_ns[0] >= 3 * SECOND_NS and due_ns[-1] < end_ns)
    counted = arrivals.changing(shape, process, generator(seed), count=len(due_ns), **limits)
    assert counted.tolist() == due_ns.tolist()


@given(
    rate=st.floats(0.1, 100),
    ends=st.one_of(
        st.just({}), st.floats(0, 50).map(lambda one: {"from": one}), st.floats(0.1, 50).map(lambda one: {"to": one})
    ),
    over_s=st.integers(1, 100),
    seconds=st.floats(0.1, 300),
)
def test_a_ramp_of_a_scenario_is_its_shape(rate: float, ends: dict[str, float], over_s: int, seconds: float) -> None:
    """A load says beforehand how many requests its plan will hold, and how long that many take."""
    keys = {"kind": "sustained", "rate": rate, "ramp": {**ends, "over": f"{over_s}s"}, "timeout": "1s"}
    ramp = Ramp.model_validate(keys["ramp"])
    first, last = ramp.ends(rate)
    within_s = min(seconds, over_s)
    requests = within_s * (first + (last - first) * within_s / over_s / 2) + (seconds - within_s) * last
    assert ramp.pieces(rate).mass_until(seconds) == pytest.approx(requests)
    lasting = load_of(**keys, duration=f"{over_s + seconds}s")
    assert lasting.expected_requests().low == pytest.approx(over_s * (first + last) / 2 + seconds * last)
    counted = load_of(**keys, requests=max(1, round(requests)))
    until_s = counted.expected_time_s().low
    assert ramp.pieces(rate).mass_until(until_s) == pytest.approx(max(1, round(requests)))


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        (Pieces, ((1.0,), (1.0,), (0.0,))),
        (Pieces, ((1.0, 2.0), (1.0, 0.0), (1.0, 1.0))),
        (Pieces, ((0.0,), (1.0,), (1.0,))),
        (Pieces, ((), (), ())),
        (Pieces, ((1.0,), (-1.0,), (1.0,))),
        (Bursts, (1.0, 0.0, 1.0, 2.0)),
        (Bursts, (1.0, 2.0, 2.0, 2.0)),
    ],
)
def test_impossible_shapes_are_refused(shape: type, numbers: tuple[object, ...]) -> None:
    """Rates of nothing, pieces without length and bursts without calm raise ValueError."""
    with pytest.raises(ValueError, match=r"rate|length|period"):
        shape(*numbers)
