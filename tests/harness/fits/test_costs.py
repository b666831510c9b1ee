"""Costs of tokens and prompts: known coefficients are found again, and what is no such cost is refused."""

from __future__ import annotations

import numpy as np
import pytest

from harness.fits.costs import Cost, decode, prefill
from harness.fits.curve import Points
from harness.fits.refusal import Refusal

BATCH = np.array([1.0, 2, 4, 8, 16])
LENGTHS = np.array([50.0, 100, 200, 400, 800, 1600, 3200, 6400])


def of_batch(seed: int = 0, t0: float = 10.0, t1: float = 0.5, error: float = 0.01) -> Points:
    """Times per token in ms."""
    truth = t0 + t1 * BATCH
    return Points(BATCH, truth * np.random.default_rng(seed).normal(1, error, len(truth)), error * truth)


def of_lengths(seed: int = 0, p2: float = 2e-6, error: float = 0.02) -> Points:
    """Times to the first token in ms."""
    truth = 20 + 0.05 * LENGTHS + p2 * LENGTHS**2
    return Points(LENGTHS, truth * np.random.default_rng(seed).normal(1, error, len(truth)), error * truth)


def cost(found: Cost | Refusal) -> Cost:
    """A fit that was not refused."""
    assert isinstance(found, Cost)
    return found


def held(fits: list[Cost], truth: tuple[float, ...]) -> list[int]:
    """How many intervals of each coefficient hold the truth."""
    return [
        sum(one.coefficients[power].low <= value <= one.coefficients[power].high for one in fits)
        for power, value in enumerate(truth)
    ]


def test_the_time_of_a_token_is_a_line_over_the_batch() -> None:
    """Both intervals hold the truth in at least 90 % of simulated sweeps."""
    fits = [cost(decode(of_batch(seed))) for seed in range(100)]
    assert min(held(fits, (10.0, 0.5))) >= 90
    assert fits[0].hold_out < 0.05


def test_long_prompts_cost_their_square() -> None:
    """Where it shows, with intervals that hold the truth; its AICc is lower."""
    fits = [cost(prefill(of_lengths(seed), LENGTHS**2)) for seed in range(100)]
    curved = [one for one in fits if len(one.coefficients) == 3]
    assert len(curved) >= 95
    assert min(held(curved, (20.0, 0.05, 2e-6))) >= 0.9 * len(curved)


def test_a_line_stays_a_line() -> None:
    """Without a square in truth, few fits have one."""
    fits = [cost(prefill(of_lengths(seed, p2=0.0), LENGTHS**2)) for seed in range(50)]
    assert sum(len(one.coefficients) == 2 for one in fits) >= 45


def test_a_cost_knows_what_was_measured() -> None:
    """It says nothing beyond."""
    found = cost(decode(of_batch(error=1e-9)))
    assert (found.least, found.largest) == (1.0, 16.0)
    assert [one.value for one in found.coefficients] == pytest.approx([10.0, 0.5])


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (Points(BATCH[:3], BATCH[:3], BATCH[:3]), "3 loads were measured well, and 4 are needed"),
        (Points(1 + BATCH / 100, BATCH, BATCH), "less than 2 times the least"),
        (Points(BATCH, np.array([20.0, 18, 14, 9, 5]), np.full(5, 0.1)), "falls as the batch grows"),
        (Points(BATCH, np.array([10.0, 30, 9, 40, 20]), np.full(5, 0.1)), "points held out"),
    ],
)
def test_what_is_no_line_is_refused(points: Points, why: str) -> None:
    """With the reason."""
    found = decode(points)
    assert isinstance(found, Refusal)
    assert why in found.why


def test_prompts_that_a_cache_shortens_are_refused() -> None:
    """Longer prompts do not have earlier first tokens."""
    times = np.linspace(200, 100, 8)
    found = prefill(Points(LENGTHS, times, np.full(8, 0.5)), LENGTHS**2)
    assert found == Refusal("longer prompts have earlier first tokens: a cache or another limit decides")


def test_a_square_beside_a_negative_slope_is_a_cost() -> None:
    """Prompts that fill the processor better rise slowly at first: longer ones have later first tokens all the same."""
    truth = 100 - 0.02 * LENGTHS + 2e-5 * LENGTHS**2
    times = truth * np.random.default_rng(0).normal(1, 0.005, len(truth))
    found = cost(prefill(Points(LENGTHS, times, 0.005 * truth), LENGTHS**2))
    assert len(found.coefficients) == 3
    assert found.coefficients[1].high < 0 < found.coefficients[2].low
