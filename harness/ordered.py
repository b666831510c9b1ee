"""Ordered: observations in ascending order, one by one or counted, which is all that a quantile needs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Ordered:
    """Values in ascending order.

    upto: how many observations each value and those before it stand for; None: one each.
    """

    values: Floats
    upto: Ints | None = None

    @classmethod
    def of(cls, values: Floats) -> Ordered:
        """Put single values in order."""
        return cls(np.sort(values))

    @classmethod
    def counted(cls, values: Floats, counts: Ints) -> Ordered:
        """Put values in order that occur several times each."""
        order = np.argsort(values, kind="stable")
        return cls(values[order], np.cumsum(counts[order]))

    @property
    def n(self) -> int:
        """The number of observations."""
        return len(self.values) if self.upto is None else int(self.upto[-1]) if len(self.upto) else 0

    def at(self, rank: int) -> float:
        """The observation of a rank, from 1 to n."""
        return float(self.values[rank - 1 if self.upto is None else int(np.searchsorted(self.upto, rank))])

    def counts(self) -> Ints:
        """How many observations each value stands for."""
        ones: Ints = np.ones(len(self.values), dtype=np.int64)
        return ones if self.upto is None else np.diff(self.upto, prepend=0)


def merged(parts: Sequence[Ordered]) -> Ordered:
    """The observations of all parts in one order."""
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([*(part.values for part in parts), np.empty(0)])
    if all(part.upto is None for part in parts):
        return Ordered.of(values)
    return Ordered.counted(values, np.concatenate([part.counts() for part in parts]))
