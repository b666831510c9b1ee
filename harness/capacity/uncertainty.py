"""Chance that a plan holds: draws of the rate that a replica holds, against draws of the peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Floats, Ints
from harness.capacity.assumptions import Assumptions
from harness.capacity.rate import Capacity
from harness.capacity.replicas import ROUNDING
from harness.seeding import generator

DRAWS = 20_000
_RATES, _PEAKS = 1, 2
_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Draws:
    """Replicas that each draw needs at the peak, without headroom and spares; as real numbers, above them suffice.

    Attributes:
        alone: Peak / rate of a replica.
        imbalance: Factor on it where there are several replicas.
    """

    alone: Floats
    imbalance: float

    @classmethod
    def of(cls, capacity: Capacity, peak_rps: float, assumed: Assumptions) -> Draws:
        """Return the draws of a plan. The same seed draws the same chances whatever the rates and the peak."""
        rates = capacity.draws(DRAWS, generator(assumed.seed, _RATES))
        errors = generator(assumed.seed, _PEAKS).standard_normal(DRAWS)
        peaks = peak_rps * (1 + assumed.growth) * np.exp(assumed.forecast_error * errors)
        with np.errstate(divide="ignore"):
            return cls(peaks / rates, assumed.imbalance)

    def chance(self, replicas: int) -> float:
        """Return the share of the draws in which some replicas hold the peak."""
        return float((self.alone * (self.imbalance if replicas > 1 else 1.0) <= replicas + ROUNDING).mean())

    def least(self, chance: float) -> int | None:
        """Return the fewest replicas with a chance; None if no number of them is known to have it."""
        wanted = self._quantile(chance)
        return int(self._whole(np.array([wanted]))[0]) if wanted < _MOST else None

    def least_over(self, shares: Floats, chance: float) -> Ints | None:
        """Return the fewest replicas with a chance for demands that are shares of the peak; None as `least`."""
        wanted = self._quantile(chance)
        return self._whole(wanted * shares) if wanted < _MOST else None

    def _quantile(self, chance: float) -> float:
        rank = max(0, int(np.ceil(chance * len(self.alone) - ROUNDING)) - 1)
        return float(np.partition(self.alone, rank)[rank])

    def _whole(self, alone: Floats) -> Ints:
        several = np.maximum(2.0, np.ceil(alone * self.imbalance - ROUNDING))
        found: Ints = np.where(alone <= 1 + ROUNDING, 1.0, several).astype(np.int64)
        return found
