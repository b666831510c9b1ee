"""The rate of a load: how single arrivals scatter around it, and how it changes.

A shape has two functions: the expected number of arrivals until a time, and its inverse. `harness.schedule.arrivals`
bends arrivals of rate 1 by the inverse. Times count from the anchor, where the measurement begins. Numpy is imported
inside functions, because lists and help do without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from harness.scenario.base import AlsoAccepts, Integer, Number, StrictModel
from harness.units import PositiveSeconds, Seconds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]


def _plain_arrivals(value: Any) -> Any:
    name = next(iter(value), None) if isinstance(value, Mapping) else str(value).partition("(")[0].strip()
    if name == "gamma" and value != name:
        raise ValueError("is one word; write `arrivals: gamma` and beside it `cv: 2`")
    if name == "ramp":
        raise ValueError("is about single arrivals; write `ramp: {to: 8, over: 60s}` beside `rate`")
    return value


Arrivals = Annotated[Literal["constant", "poisson", "gamma"], BeforeValidator(_plain_arrivals)]
_NUMBERS = {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1}
Rate = Annotated[Number, Field(gt=0), AlsoAccepts(_NUMBERS)]
Cv = Annotated[Number, Field(gt=0, le=20), AlsoAccepts(_NUMBERS)]
Count = Annotated[Integer, Field(ge=1)]
ARRIVALS = (
    "`poisson`: independent arrivals, as of many users who know nothing of each other; `constant`: evenly spaced; "
    "`gamma`: as uneven as `cv` says."
)
CV = (
    "With `arrivals: gamma`: standard deviation of the gaps over their mean. 1 is `poisson`, above it requests come in "
    "clumps, below it they are more even. A list makes one trial of each."
)


def cv_problems(given: Mapping[str, Any]) -> list[str]:
    """A sentence where `cv` is given without gamma arrivals, or these without it."""
    if "cv" in given and given.get("arrivals") != "gamma":
        return ["`cv` goes with `arrivals: gamma`; add it, or leave `cv` out"]
    if given.get("arrivals") == "gamma" and "cv" not in given:
        return ["`arrivals: gamma` needs `cv`, such as `cv: 2`"]
    return []


class Ramp(StrictModel):
    """A rate that changes evenly from the start of the measurement on, and then stays.

    `rate` is one end: with `to` it is where the ramp begins, with `from` where it ends, with neither it is reached
    from 0. A warm-up has the rate with which the ramp begins.
    """

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("from", "to"),)

    from_rate: Annotated[Number, Field(ge=0)] | None = Field(
        default=None, alias="from", description="Requests per second at its beginning.", examples=[1]
    )
    to_rate: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, alias="to", description="Requests per second at its end.", examples=[8]
    )
    over_s: PositiveSeconds = Field(alias="over", description="How long it takes.", examples=["60s"])

    def ends(self, rate: float) -> tuple[float, float]:
        """The first and the last rate, where the load has `rate`."""
        if self.to_rate is not None:
            return rate, self.to_rate
        return self.from_rate or 0.0, rate

    def pieces(self, rate: float) -> Pieces:
        """Return how the rate changes, where the load has `rate`."""
        first, last = self.ends(rate)
        return Pieces((self.over_s,), (first,), (last,))


class Spike(StrictModel):
    """Many requests at once."""

    requests: Count = Field(description="How many.", examples=[50])
    within_s: Seconds = Field(alias="within", description="Spread over this time; `0s`: all together.", examples=["1s"])
    at_s: Seconds = Field(default=0.0, alias="at", description="When, after measuring has begun.", examples=["10s"])


class Step(StrictModel):
    """One of the rates."""

    rate: Annotated[Number, Field(gt=0)] = Field(description="Requests per second.", examples=[2])
    for_s: PositiveSeconds = Field(alias="for", description="How long.", examples=["30s"])


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
        """Return the expected number of arrivals from the anchor until `at_s`; negative before it."""
        import numpy as np

        time_s, mass = self._corners()
        periods, rest_s = divmod(at_s, self.every_s)
        return float(periods * mass[-1] + np.interp(rest_s, time_s, mass))

    def time_at(self, mass: Float64) -> Float64:
        """Return the inverse of `mass_until`, in seconds from the anchor."""
        import numpy as np

        time_s, corners = self._corners()
        if self.rate == 0:  # flat pieces have no inverse: keep the burst alone
            time_s, corners = time_s[1:3], corners[1:3]
        periods = np.floor(mass / corners[-1])
        at_s: Float64 = periods * self.every_s + np.interp(mass - periods * corners[-1], corners, time_s)
        return at_s

    def _corners(self) -> tuple[Float64, Float64]:
        """Time and expected number of arrivals at the corners of one period."""
        import numpy as np

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
        """Return the expected number of arrivals from the anchor until `at_s`; negative before it."""
        if at_s < 0:
            return at_s * self.first[0]
        mass = 0.0
        for length_s, first, last in zip(self.length_s, self.first, self.last, strict=True):
            within_s = min(at_s, length_s)
            mass += within_s * (first + (last - first) * within_s / length_s / 2)
            at_s -= within_s
        return mass + at_s * self.last[-1]

    def time_at(self, mass: Float64) -> Float64:
        """Return the inverse: in each piece the root of first * t + slope / 2 * t^2 = mass, in its stable form."""
        import numpy as np

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


RateShape = Bursts | Pieces
