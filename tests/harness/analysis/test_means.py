"""Means by batches: when they have an interval, and how often it is true."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.estimates import mean_estimate
from tests.queues import exponential_services_ns, one_server, poisson_arrivals_ns


@pytest.mark.parametrize(("batches", "known"), [(1, False), (2, False), (3, False), (4, True)])
def test_few_batches_are_no_interval(batches: int, known: bool) -> None:
    """Values that stay alike for long are few batches, of which four are the least; the mean stands without one."""
    found = mean_estimate([np.arange(float(batches))])
    assert found.value == pytest.approx((batches - 1) / 2)
    assert math.isnan(found.low) != known
    assert math.isnan(found.high) != known


@pytest.mark.parametrize(("runs", "half"), [(3, 4.3027 * 100 / math.sqrt(3)), (2, None)])
def test_runs_that_differ_widen_the_interval(runs: int, half: float | None) -> None:
    """Three runs with means 100 apart: Student's interval of the three means; two runs cannot show a spread."""
    noise = np.random.default_rng(1).normal(0, 1, 400)
    found = mean_estimate([noise - noise.mean() + 100.0 * run for run in range(runs)])
    assert found.value == pytest.approx(50 * (runs - 1))
    if half is None:
        assert found.high - found.low < 50
    else:
        assert (found.high - found.value, found.value - found.low) == pytest.approx((half, half), rel=1e-4)


def _times_s(load: float, requests: int, seed: int) -> np.ndarray:
    """Times in a queue of one server whose service takes 1 s on average, long after it began."""
    begun = 2_000
    arrived = poisson_arrivals_ns(load, begun + requests, 2 * seed + 1)
    served = one_server(arrived, exponential_services_ns(1.0, begun + requests, 2 * seed + 2))
    return (served.done_ns - served.arrived_ns)[begun:] / 1e9


@pytest.mark.parametrize(
    ("load", "requests", "least"), [(0.3, 1000, 0.90), (0.5, 1000, 0.86), (0.7, 1000, 0.77), (0.7, 4000, 0.87)]
)
def test_coverage_on_a_queue(load: float, requests: int, least: float) -> None:
    """How often the interval holds the true mean, 1 / (1 - load) s: what docs/method.md states, less chance."""
    held = []
    for seed in range(200):
        found = mean_estimate([_times_s(load, requests, seed)])
        if not math.isnan(found.low):
            held.append(found.low <= 1 / (1 - load) <= found.high)
    assert len(held) > 180
    assert np.mean(held) >= least
