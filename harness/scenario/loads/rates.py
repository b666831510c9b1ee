"""Rate of a load: the process of single arrivals, and the changes of the rate.

A shape has the expected number of arrivals until a time, and its inverse. Times count from the anchor, at which the
measurement begins. Functions import numpy themselves, because help and lists do not need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from harness.scenario.base import AlsoAccepts, Count, NotNegative, Number, Positive, StrictModel
from harness.units import PositiveSeconds, Seconds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]


def _plain_arrivals(value: Any) -> Any:
    name = next(iter(value), None) if isinstance(value, Mapping) else str(value).partition("(")[0].strip()
    if name == "gamma" and value != name:
        raise ValueError("must be a single word; write `arrivals: gamma` and the key `cv: 2`")
    if name == "ramp":
        raise ValueError("`ramp` is a key of its own; write `ramp: {to: 8, over: 60s}` beside `rate`")
    return value


Arrivals = Annotated[Literal["constant", "poisson", "gamma"], BeforeValidator(_plain_arrivals)]
_NUMBERS = {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1}
Rate = Annotated[Positive, AlsoAccepts(_NUMBERS)]
Cv = Annotated[Number, Field(gt=0, le=20), AlsoAccepts(_NUMBERS)]
ARRIVALS = "`poisson`: independent, as from many users. `constant`: evenly spaced. `gamma`: unevenness set by `cv`."
CV = (
    "Coefficient of variation of the gaps, for `arrivals: gamma`: standard deviation / mean. 1 is `poisson`. Above 1, "
    "requests come in clumps; below 1, they are more even. A list gives one trial per value."
)


RATE_WORDS = dict.fromkeys(("qps", "rps", "request_rate"), "unknown key; write `rate: {value}`")


def cv_problems(given: Mapping[str, Any]) -> list[str]:
    """Return a problem if `cv` is given without gamma arrivals, or gamma arrivals without `cv`."""
    gamma = given.get("arrivals") == "gamma"
    if gamma and "cv" not in given:
        return ["`arrivals: gamma` needs `cv`, such as `cv: 2`"]
    return ["`cv` goes with `arrivals: gamma`; add it, or leave `cv` out"] if "cv" in given and not gamma else []


class Ramp(StrictModel):
    """Rate that changes evenly from the start of the measurement on, and then stays constant.

    With `to`, the ramp begins at `rate`. With `from`, it ends at `rate`. With neither, it goes from 0 to `rate`. The
    warm-up has the rate at which the ramp begins.
    """

    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("from", "to"),)

    from_rate: NotNegative | None = Field(default=None, alias="from", description="Rate at the start.", examples=[1])
    to_rate: Positive | None = Field(default=None, alias="to", description="Rate at the end.", examples=[8])
    over_s: PositiveSeconds = Field(alias="over", description="Duration of the ramp.", examples=["60s"])

    def ends(self, rate: float) -> tuple[float, float]:
        """Return the first and the last rate of the ramp for a load with `rate`."""
        if self.to_rate is not None:
            return rate, self.to_rate
        return self.from_rate or 0.0, rate

    def pieces(self, rate: float) -> Pieces:
        """Return the shape of the ramp for a load with `rate`."""
        first, last = self.ends(rate)
        return Pieces((self.over_s,), (first,), (last,))


class Spike(StrictModel):
    """Many requests at once."""

    requests: Count = Field(description="Number of requests.", examples=[50])
    within_s: Seconds = Field(alias="within", description="Spread over this time; `0s`: all at once.", examples=["1s"])
    at_s: Seconds = Field(
        default=0.0, alias="at", description="Start of the spike, from the start of the measurement.", examples=["10s"]
    )


class Step(StrictModel):
    """Rate of one step."""

    mistaken_keys: ClassVar[Mapping[str, str]] = RATE_WORDS

    rate: Positive = Field(description="Requests per second.", examples=[2])
    for_s: PositiveSeconds = Field(alias="for", description="Duration of the step.", examples=["30s"])


@dataclass(frozen=True, slots=True)
class Bursts:
    """Periodic rate: `burst_rate` for `burst_s` in the middle of every period of `every_s`, otherwise `rate`.

    Raises:
        ValueError: The burst is longer than its period, or a rate is not positive (`rate` may be 0).
    """

    rate: float
    burst_rate: float
    burst_s: float
    every_s: float

    def __post_init__(self) -> None:
        check_rate(self.burst_rate)
        if not 0 < self.burst_s < self.every_s or self.rate < 0:
            raise ValueError(f"burst longer than its period, or negative rate: {self}")

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
        if self.rate == 0:  # Flat pieces have no inverse: keep only the burst.
            time_s, corners = time_s[1:3], corners[1:3]
        periods = np.floor(mass / corners[-1])
        at_s: Float64 = periods * self.every_s + np.interp(mass - periods * corners[-1], corners, time_s)
        return at_s

    def _corners(self) -> tuple[Float64, Float64]:
        """Return time and expected number of arrivals at the corners of one period."""
        import numpy as np

        calm_s = (self.every_s - self.burst_s) / 2
        time_s = np.array([0.0, calm_s, calm_s + self.burst_s, self.every_s])
        calm, burst = calm_s * self.rate, self.burst_s * self.burst_rate
        return time_s, np.array([0.0, calm, calm + burst, calm + burst + calm])


@dataclass(frozen=True, slots=True)
class Pieces:
    """Piecewise linear rate: from `first[i]` to `last[i]` during `length_s[i]`.

    The rate is constant before the anchor and after the last piece.

    Raises:
        ValueError: A piece has no length, a rate is negative, or a rate after the first is 0.
    """

    length_s: tuple[float, ...]
    first: tuple[float, ...]
    last: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.length_s) == len(self.first) == len(self.last) > 0 or min(self.length_s) <= 0:
            raise ValueError(f"every piece needs a length of more than 0 and two rates: {self}")
        if self.first[0] < 0:
            raise ValueError(f"a rate must not be negative: {self}")
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
        """Return the inverse of `mass_until`: the stable root of first * t + slope / 2 * t^2 = mass in each piece."""
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
    """Raise ValueError unless `rate` is a positive, finite number of requests/s."""
    if not 0 < rate < float("inf"):
        raise ValueError(f"a rate must be a positive number of requests/s, found {rate}")


RateShape = Bursts | Pieces
