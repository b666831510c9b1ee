"""Rates that change with time, and the integral by which arrivals of rate 1 are bent to follow them; pure functions.

Where `mass_until(t)` is the expected number of arrivals until t and u an arrival of a process of rate 1, `time_at(u)`,
its inverse, is an arrival of the process with the changing rate (time rescaling; no arrival is thrown away).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


class RateShape(Protocol):
    """A rate as a function of the time in seconds from the anchor, the instant at which the shape begins."""

    def mass_until(self, at_s: float) -> float:
        """Expected number of arrivals from the anchor until `at_s`; negative before the anchor."""
        ...

    def time_at(self, mass: Float64) -> Float64:
        """The inverse of `mass_until`, in seconds from the anchor."""
        ...


@dataclass(frozen=True, slots=True)
class Bursts:
    """A rate that switches: `burst_rate` for `burst_s` in the middle of every period of `every_s`, otherwise `rate`.

    The burst stands in the middle so that each period shows the service before, during and after it.
    Raises ValueError for bursts outside of their period and for rates that are not positive (`rate` may be 0).
    """

    rate: float
    burst_rate: float
    burst_s: float
    every_s: float

    def __post_init__(self) -> None:
        check_rate(self.burst_rate)
        if not 0 < self.burst_s < self.every_s or self.rate < 0:
            raise ValueError(f"a burst lies inside its period and rates are not negative: {self}")

    def mass_until(self, at_s: float) -> float:
        """See `RateShape`."""
        time_s, mass = self._corners()
        periods, rest_s = divmod(at_s, self.every_s)
        return float(periods * mass[-1] + np.interp(rest_s, time_s, mass))

    def time_at(self, mass: Float64) -> Float64:
        """See `RateShape`."""
        time_s, corners = self._corners()
        if self.rate == 0:  # flat pieces have no inverse: keep the burst alone
            time_s, corners = time_s[1:3], corners[1:3]
        periods = np.floor(mass / corners[-1])
        at_s: Float64 = periods * self.every_s + np.interp(mass - periods * corners[-1], corners, time_s)
        return at_s

    def _corners(self) -> tuple[Float64, Float64]:
        """Time and expected number of arrivals at the corners of one period."""
        calm_s = (self.every_s - self.burst_s) / 2
        time_s = np.array([0.0, calm_s, calm_s + self.burst_s, self.every_s])
        calm = calm_s * self.rate
        burst = self.burst_s * self.burst_rate
        return time_s, np.array([0.0, calm, calm + burst, calm + burst + calm])


@dataclass(frozen=True, slots=True)
class Pieces:
    """A rate that goes in a straight line from `first[i]` to `last[i]` during `length_s[i]`, piece after piece.

    Before the anchor it is the first of all, after the last piece it stays.
    Raises ValueError for rates below 0, pieces without length, and rates of 0 but at the very beginning.
    """

    length_s: tuple[float, ...]
    first: tuple[float, ...]
    last: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.length_s) == len(self.first) == len(self.last) > 0 or min(self.length_s) <= 0:
            raise ValueError(f"every piece has a length of more than 0 and two rates: {self}")
        if self.first[0] < 0:
            raise ValueError(f"a rate is not negative: {self}")
        for rate in (*self.first[1:], *self.last):
            check_rate(rate)

    def mass_until(self, at_s: float) -> float:
        """See `RateShape`."""
        if at_s < 0:
            return at_s * self.first[0]
        mass = 0.0
        for length_s, first, last in zip(self.length_s, self.first, self.last, strict=True):
            within_s = min(at_s, length_s)
            mass += within_s * (first + (last - first) * within_s / length_s / 2)
            at_s -= within_s
        return mass + at_s * self.last[-1]

    def time_at(self, mass: Float64) -> Float64:
        """See `RateShape`: in each piece the root of first * t + slope / 2 * t^2 = mass, in its stable form."""
        length_s, first, last = (np.array(column) for column in (self.length_s, self.first, self.last))
        begin_s = np.array([*accumulate(self.length_s, initial=0.0)])
        begin_mass = np.array([*accumulate(length_s * (first + last) / 2, initial=0.0)])
        rate = np.append(first, last[-1])
        slope = np.append((last - first) / length_s, 0.0)
        piece = np.maximum(np.searchsorted(begin_mass, mass, side="right") - 1, 0)
        rest = mass - begin_mass[piece]
        bend = np.where(mass < 0, 0.0, slope[piece])
        divisor = rate[piece] + np.sqrt(np.maximum(rate[piece] ** 2 + 2 * bend * rest, 0.0))
        within_s = np.divide(2 * rest, divisor, out=np.zeros_like(rest), where=divisor > 0)
        at_s: Float64 = begin_s[piece] + within_s
        return at_s


def check_rate(rate: float) -> None:
    """Raises ValueError unless `rate` is a positive, finite number of requests/s."""
    if not 0 < rate < float("inf"):
        raise ValueError(f"a rate is a positive number of requests/s, not {rate}")
