"""The ratio of two trials that sent the same requests."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.paired import OfRequests, resampled_ratios
from harness.analysis.stats import Floats, Measured, quantile, ratio


def of(values: Floats) -> OfRequests:
    """A value of each request."""
    return OfRequests(np.arange(len(values)), values)


def held(one: Floats, other: Floats, p: float = 0.95) -> tuple[float, float, float]:
    """The ratio of a quantile with its interval."""
    values = [Measured(quantile(side, p)) for side in (one, other)]
    found = ratio(*values, resampled=resampled_ratios([(of(one), of(other))], f"p{100 * p:g}"))
    return found.value, found.low, found.high


def test_a_variant_that_is_slower_by_a_factor_has_no_uncertainty() -> None:
    """What both share cancels, however much it varies."""
    base = np.random.default_rng(1).lognormal(0, 1, 300)
    assert held(1.2 * base, base) == pytest.approx((1.2, 1.2, 1.2))


@pytest.mark.parametrize(("p", "runs"), [(0.5, 60), (0.95, 60)])
@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_the_interval_holds_the_true_ratio(p: float, runs: int, memory: float) -> None:
    """In nine of ten runs at least, also where neighbouring requests are alike."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(runs):
        noise = rng.normal(size=(2, 600))
        for i in range(1, 600):
            noise[:, i] = memory * noise[:, i - 1] + np.sqrt(1 - memory**2) * noise[:, i]
        one, other = np.exp(0.3 * noise)
        _, low, high = held(1.2 * one, other, p)
        hits += low <= 1.2 <= high
    assert hits >= 0.85 * runs


def test_requests_of_one_trial_alone_are_left_out() -> None:
    """A faster variant of a closed loop sends more of them."""
    base = np.random.default_rng(2).lognormal(0, 0.5, 200)
    more = OfRequests(np.arange(50, 400), np.concatenate([1.2 * base[50:], np.full(200, 9.0)]))
    relative = resampled_ratios([(more, of(base))], "p50")
    assert relative == pytest.approx(1.0)


def test_gaps_are_drawn_with_their_requests() -> None:
    """Each request brings all of its gaps, or none."""
    gaps = np.random.default_rng(3).lognormal(0, 0.5, 900)
    requests = np.repeat(np.arange(300), 3)
    relative = resampled_ratios([(OfRequests(requests, 1.2 * gaps), OfRequests(requests, gaps))], "p95")
    assert relative == pytest.approx(1.0)


@pytest.mark.parametrize(("statistic", "n"), [("p99", 50), ("p50", 8), ("max", 500)])
def test_too_few_requests_give_no_interval(statistic: str, n: int) -> None:
    """Nor has an extreme one."""
    base = np.random.default_rng(4).lognormal(0, 0.5, n)
    assert len(resampled_ratios([(of(base), of(base))], statistic)) == 0
