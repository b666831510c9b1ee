"""Costs of a step: time per token against the batch, and time to the first token against the length of the prompt.

decode   tpot(b) = t0 + t1 b
prefill  ttft(L) = p0 + p1 L + p2 L^2
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Floats
from harness.fits.curve import SURE, Interval, Points, aicc
from harness.fits.refusal import Refusal, unlike_the_points

FEWEST_LOADS, FEWEST_LENGTHS = 4, 6
SPAN = 2.0  # largest over least x
MUCH_BETTER = 2.0  # difference of AICc for the square


@dataclass(frozen=True, slots=True)
class Cost:
    """Polynomial of a cost: coefficients in ascending order, ms per power of x.

    Attributes:
        least, largest: Ends of x that were measured; the polynomial says nothing beyond them.
        hold_out: Mean error at a point that it was fitted without, as a share.
    """

    coefficients: tuple[Interval, ...]
    least: float
    largest: float
    hold_out: float


def decode(points: Points) -> Cost | Refusal:
    """Return the time per token (y, ms) as a line over the mean number of requests decoding at once (x)."""
    if refused := _too_few(points, FEWEST_LOADS, "loads"):
        return refused
    line = _Linear.of(_powers(points.x, 1), points)
    found = line.cost()
    if found.coefficients[1].high < 0:
        return Refusal("the time per token falls as the batch grows: something else changed between the loads")
    return unlike_the_points(found.hold_out) or found


def prefill(points: Points, squares: Floats) -> Cost | Refusal:
    """Return the time to the first token (y, ms) over the length of the prompt (x, tokens).

    Each point is the mean of requests of similar lengths, and `squares` their mean squared length. The square is left
    out unless AICc is lower by MUCH_BETTER with it, and if its coefficient is below 0.
    """
    if refused := _too_few(points, FEWEST_LENGTHS, "lengths of prompts"):
        return refused
    line = _Linear.of(_powers(points.x, 1), points)
    curved = _Linear.of(np.column_stack([_powers(points.x, 1), squares]), points)
    best = curved if curved.values[2] > 0 and curved.aicc < line.aicc - MUCH_BETTER else line
    found, straight = best.cost(), line.cost()
    if straight.coefficients[1].high < 0:  # beside a square, the coefficient may be negative: all together rise
        return Refusal("longer prompts have earlier first tokens: a cache or another limit decides")
    return unlike_the_points(found.hold_out) or found


def _powers(x: Floats, most: int) -> Floats:
    return np.stack([x**power for power in range(most + 1)], axis=1)


def _too_few(points: Points, fewest: int, noun: str) -> Refusal | None:
    different = len(np.unique(points.x))
    if different < fewest:
        return Refusal(f"{different} {noun} were measured well, and {fewest} are needed")
    if points.x.max() < SPAN * points.x.min():
        return Refusal(f"the largest of the {noun} is less than {SPAN:g} times the least; measure a wider range")
    return None


@dataclass(frozen=True)
class _Linear:
    """Weighted linear least squares."""

    features: Floats
    points: Points
    values: Floats
    residuals: Floats  # in standard errors
    inverse: Floats

    @classmethod
    def of(cls, features: Floats, points: Points) -> _Linear:
        weighted = features / points.errors[:, None]
        scales = np.linalg.norm(weighted, axis=0)  # lengths and their squares differ by orders of magnitude
        inverse = np.linalg.pinv((weighted / scales).T @ (weighted / scales)) / np.outer(scales, scales)
        values = inverse @ weighted.T @ (points.y / points.errors)
        return cls(features, points, values, (points.y - features @ values) / points.errors, inverse)

    @property
    def degrees(self) -> int:
        return len(self.points) - len(self.values)

    @property
    def aicc(self) -> float:
        return aicc(len(self.points), len(self.values), float(self.residuals @ self.residuals))

    def cost(self) -> Cost:
        from scipy.stats import t

        scale = max(1.0, float(self.residuals @ self.residuals) / self.degrees)
        half = float(t.ppf((1 + SURE) / 2, self.degrees)) * np.sqrt(scale * np.diag(self.inverse))
        known = [
            Interval(float(one), float(one - by), float(one + by)) for one, by in zip(self.values, half, strict=True)
        ]
        x = self.points.x
        return Cost(tuple(known), float(x.min()), float(x.max()), self._hold_out())

    def _hold_out(self) -> float:
        """Return the mean error at a point left out, by its leverage: e / (1 - h) needs no second fit."""
        weighted = self.features / self.points.errors[:, None]
        leverage = np.einsum("ij,jk,ik->i", weighted, self.inverse, weighted)
        left_out = self.residuals * self.points.errors / np.maximum(1 - leverage, 1e-9)
        return float(np.mean(np.abs(left_out) / self.points.y))
