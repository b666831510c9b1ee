"""Scales: where on an axis a value lies, and which values are marked there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.format import grouped

Floats = NDArray[np.float64]

SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999)
MOST_MARKS = 8
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from low to high. warp: makes the values even.   marks: values with their names."""

    low: float
    high: float
    warp: Callable[[Floats], Floats]
    marks: Sequence[tuple[float, str]]

    def at(self, values: ArrayLike) -> Floats:
        """How far along the axis values lie, 0 to 1; those beyond an end lie at it, NaN stays."""
        low, high = self.warp(np.array([self.low, self.high]))
        along: Floats = (self.warp(np.asarray(values, dtype=np.float64)) - low) / (high - low)
        return np.clip(along, 0.0, 1.0)


def linear(low: float, high: float, most: int = 6) -> Scale:
    """An even scale; empty ranges are made a little wider."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    return Scale(low, high, lambda values: values, [(mark, plain(mark)) for mark in _even(low, high, most)])


def from_zero(high: float, most: int = 6) -> Scale:
    """An even scale with some room above the greatest value."""
    return linear(0.0, high * 1.06 if high > 0 else 1.0, most)


def logarithmic(low: float, high: float, most: int = MOST_MARKS) -> Scale:
    """A logarithmic scale; low above zero."""
    if not high > low:
        low, high = low / 2, low * 2
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [
        [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1, 3), (1,))
    ]
    choices.append(choices[-1][:: 1 + len(choices[-1]) // most])
    marks = next(choice for choice in choices if len(choice) <= most)
    marks = marks if len(marks) > 2 else [mark for mark in _even(low, high, most - 2) if mark > 0] or marks
    return Scale(low, high, lambda values: np.log10(np.maximum(values, low)), [(mark, plain(mark)) for mark in marks])


def upright(least: float, greatest: float, steep: float) -> Scale:
    """From zero; logarithmic where the greatest is more than `steep` times the least."""
    if least > 0 and greatest > steep * least:
        return logarithmic(least / 1.2, greatest * 1.25, 5)
    return from_zero(greatest, 5)


def of_shares(lowest: float, most: int) -> Scale:
    """Quantiles up to what `most` observations can tell; a normal distribution is a straight line."""
    top = 1 - 0.5 / max(most, 20)
    marks = [(share, share_name(share)) for share in SHARES if lowest <= share <= top + 1e-9]
    return Scale(lowest, top, _deviations, marks)


def share_name(share: float) -> str:
    """0.999 as "p99.9"."""
    return f"p{share * 100:.10g}"


def plain(value: float) -> str:
    """A mark as people write it."""
    return f"{value:.0e}" if abs(value) >= 1e7 or 0 < abs(value) < 1e-4 else grouped(f"{value:.10g}")


def _deviations(shares: Floats) -> Floats:
    inside = np.clip(shares, 1e-9, 1 - 1e-9)
    found: Floats = np.array([_NORMAL.inv_cdf(float(share)) for share in inside.ravel()]).reshape(inside.shape)
    return found


def _even(low: float, high: float, most: int) -> list[float]:
    """Round numbers evenly apart, at most so many."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]
