"""Chance that a plan holds: draws of the rate that a replica holds, against draws of the peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis.stats import Flags, Floats, Ints
from harness.capacity.rate import Capacity
from harness.capacity.replicas import ROUNDING
from harness.scenario.plan import Assumptions
from harness.seeding import generator

DRAWS = 20_000
_RATES, _PEAKS = 1, 2


@dataclass(frozen=True, slots=True)
class Draws:
    """Replicas that each draw needs at the peak, without headroom and spares; as real numbers, above them suffice.

    Attributes:
        alone: Peak / rate of a replica, which is taken as the lowest tested one where nothing is known of it.
        known: Whether the drawn rate is one that was tested, or between two that were.
        imbalance: Factor on `alone` where there are several replicas.
    """

    alone: Floats
    known: Flags
    imbalance: float

    @classmethod
    def of(cls, capacity: Capacity, peak_rps: float, assumed: Assumptions) -> Draws:
        """Return the draws of a plan. The same seed draws the same chances whatever the rates and the peak."""
        rates = capacity.draws(DRAWS, generator(assumed.seed, _RATES))
        errors = generator(assumed.seed, _PEAKS).standard_normal(DRAWS)
        peaks = peak_rps * (1 + assumed.growth) * np.exp(assumed.forecast_error * errors)
        lowest = capacity.known_chances[0][0]
        return cls(peaks / np.maximum(rates, lowest), rates > 0, assumed.imbalance)

    def chance(self, replicas: int) -> float:
        """Return the share of the draws in which some replicas hold the peak. The unknown ones do not count as such."""
        enough = self.alone * (self.imbalance if replicas > 1 else 1.0) <= replicas + ROUNDING
        return float((enough & self.known).mean())

    def least(self, chance: float) -> int:
        """Return the fewest replicas with a chance, if their rate is one that was tested."""
        return int(self._whole(np.array([self._quantile(chance)]))[0])

    def least_over(self, shares: Floats, chance: float) -> Ints:
        """Return the fewest replicas with a chance for demands that are shares of the peak, as `least`."""
        return self._whole(self._quantile(chance) * shares)

    def _quantile(self, chance: float) -> float:
        rank = max(0, int(np.ceil(chance * len(self.alone) - ROUNDING)) - 1)
        return float(np.partition(self.alone, rank)[rank])

    def _whole(self, alone: Floats) -> Ints:
        several = np.maximum(2.0, np.ceil(alone * self.imbalance - ROUNDING))
        found: Ints = np.where(alone <= 1 + ROUNDING, 1.0, several).astype(np.int64)
        return found
