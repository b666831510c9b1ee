"""How often a plan that claims 95 % holds: plans from fabricated measurements of a replica whose true rate is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.analysis.stats import share_estimate
from harness.capacity.plan import plan
from harness.capacity.requirements import Requirement
from tests.planned import candidate, point, terms

TRUE_RPS, TARGET, RUNS = 10.0, 0.95, 300
RATES = (6.0, 8.0, 9.0, 10.0, 11.0, 12.0)


def attained(rate_rps: float) -> float:
    """The true share of good requests at a rate: 95 % at TRUE_RPS, falling as steeply as that of a queue."""
    return 1 / (1 + math.exp(math.log((1 - TARGET) / TARGET) + 22 * (rate_rps / TRUE_RPS - 1)))


def measured(rng: np.random.Generator, rate_rps: float, requests: int) -> Requirement:
    """The share of a trial with that many independent requests."""
    flags = np.zeros(requests, dtype=np.bool_)
    flags[: rng.binomial(requests, attained(rate_rps))] = True
    found = share_estimate([flags], [float(requests)])
    numbers = (found.value, found.low, found.high, float(requests))
    return Requirement("attainment >= 95%", "attainment", "", ">=", TARGET, *numbers, unit="share")


@pytest.mark.parametrize("requests", [150, 1000])
def test_a_plan_at_95_percent_holds_so_often(requests: int) -> None:
    """Without headroom and imbalance, few and many requests: what is claimed is kept, by more runs than it asks for.

    The rate of one replica is tested at six rates. 200 requests/s need 20 of them in truth.
    """
    rng = np.random.default_rng(5)
    asked = terms(200.0, headroom="100%", imbalance=1, survive="nothing")
    enough, sizes, claimed = [], [], 0
    for _ in range(RUNS):
        points = [point(rate, requirements=(measured(rng, rate, requests),)) for rate in RATES]
        made = candidate(points)
        if made.capacity is None:
            continue
        found = plan(made, asked)
        if found.chance >= 0.95:
            claimed += 1
            enough.append(found.base * TRUE_RPS >= 200.0)
            sizes.append(found.base)
    assert claimed > 0.9 * RUNS
    assert np.mean(enough) >= 0.95
    assert np.median(sizes) <= 27
