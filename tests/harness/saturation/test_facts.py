"""Facts of a server: how steeply late first tokens come as the rate rises."""

from __future__ import annotations

import math

import numpy as np
import pytest

from harness.saturation.facts import ServerFacts


@pytest.mark.parametrize("most_rps", [16.0, 2000.0, 20_000.0])
def test_the_steepness_is_finite_for_servers_of_any_size(most_rps: float) -> None:
    """The waits of a large server are so rare at low rates that their share underflows."""
    found = ServerFacts(2.0, 0.64, most_rps, 0.02, 0.05).steepness(most_rps * np.linspace(0.0075, 1.1, 60), 1.0, 1.0)
    assert np.isfinite(found).all()
    assert (found > 0).all()


def test_the_steepness_is_that_of_the_formulas() -> None:
    """At 14 of 16/s with 32 servers: the tail of Kingman, and the log slope of Halfin and Whitt's share that waits."""
    found = ServerFacts(2.0, 0.64, 16.0, 0.02, 0.05).steepness(np.array([14.0]), 1.0, 1.0)
    tail = 2 * 14 * 0.95 / 1.64

    def waiting(rate: float) -> float:
        beta = (1 - rate / 16) * math.sqrt(32)
        below = math.erfc(-beta / math.sqrt(2)) / 2
        return 1 / (1 + beta * below * math.sqrt(2 * math.pi) * math.exp(beta**2 / 2))

    slope = 14 * (math.log(waiting(14.001)) - math.log(waiting(13.999))) / 0.002
    assert found[0] == pytest.approx(tail + slope, rel=1e-3)
