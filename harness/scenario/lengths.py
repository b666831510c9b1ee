"""Distributions in a scenario: lengths in tokens and think times in seconds."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import accumulate
from statistics import NormalDist
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.scenario.base import AlsoAccepts, Count, NotNegative, Positive, StrictModel
from harness.units import DURATION_PATTERN, PositiveSeconds, Seconds

_Z95 = NormalDist().inv_cdf(0.95)
_POINTS = 400


class BaseLength(StrictModel):
    """Base of all distributions of lengths."""

    min: Count = Field(default=1, description="Shortest length in tokens; shorter draws are raised.", examples=[16])
    max: Count | None = Field(default=None, description="Largest number of tokens; more are cut.", examples=[4000])
    exact: bool = Field(
        default=False,
        strict=True,
        description="Output: generate exactly the drawn number of tokens, if the engine can; else at most that many.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"`max` ({self.max}) is below `min` ({self.min})")
        return self

    def raw_quantile(self, share: float) -> float:
        """Return the quantile before rounding and before `min` and `max`."""
        raise NotImplementedError

    def quantile(self, share: float) -> int:
        """Return the quantile for a share (0 < share < 1) in tokens, clipped to `min` and `max`."""
        tokens = max(self.min, round(self.raw_quantile(share)))
        return tokens if self.max is None else min(self.max, tokens)

    @property
    def expected_tokens(self) -> float:
        """Mean length after clipping, by the midpoint rule over the quantiles."""
        return sum(self.quantile((i + 0.5) / _POINTS) for i in range(_POINTS)) / _POINTS


class FixedLength(BaseLength):
    """Constant number of tokens."""

    dist: Literal["fixed"] = "fixed"
    value: Count = Field(description="The number of tokens.", examples=[128])

    def raw_quantile(self, share: float) -> float:
        return self.value


class UniformLength(BaseLength):
    """Lengths from `min` to `max`, all equally likely."""

    dist: Literal["uniform"]
    min: Count = Field(description="The shortest length in tokens.", examples=[64])
    max: Count = Field(description="The longest length in tokens.", examples=[512])

    def raw_quantile(self, share: float) -> float:
        """Return the integer whose equal slice of [0, 1] contains the share."""
        return self.min + math.floor(share * (self.max - self.min + 1))


class NormalLength(BaseLength):
    """Normally distributed lengths, clipped to `min` and `max`."""

    dist: Literal["normal"]
    mean: Positive = Field(description="The mean in tokens.", examples=[200])
    sd: NotNegative = Field(description="The standard deviation in tokens.", examples=[50])

    def raw_quantile(self, share: float) -> float:
        return self.mean + self.sd * NormalDist().inv_cdf(share)


class LognormalLength(BaseLength):
    """Log-normal lengths: many short, a few long. Given by `median` and `p95`, or by `mean` and `sigma`."""

    dist: Literal["lognormal"]
    median: Positive | None = Field(default=None, description="The median in tokens.", examples=[600])
    p95: Positive | None = Field(default=None, description="The 95th percentile in tokens.", examples=[2000])
    mean: Positive | None = Field(default=None, description="The mean in tokens.", examples=[800])
    sigma: NotNegative | None = Field(
        default=None, description="The standard deviation of the natural logarithm of the length.", examples=[0.7]
    )

    @classmethod
    def check_keys(cls, given: Any) -> list[str]:
        complete = {"median", "p95", "mean", "sigma"} & given.keys() in ({"median", "p95"}, {"mean", "sigma"})
        return [*super().check_keys(given), *([] if complete else ["needs `median` and `p95`, or `mean` and `sigma`"])]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        _check_rising(self.median, self.p95)
        return self

    @property
    def log_mean(self) -> float:
        if self.median is not None:
            return math.log(self.median)
        assert self.mean is not None
        return math.log(self.mean) - self.log_sd**2 / 2

    @property
    def log_sd(self) -> float:
        if self.median is not None and self.p95 is not None:
            return math.log(self.p95 / self.median) / _Z95
        assert self.sigma is not None
        return self.sigma

    def raw_quantile(self, share: float) -> float:
        return math.exp(self.log_mean + self.log_sd * NormalDist().inv_cdf(share))


class EmpiricalLength(BaseLength):
    """Observed lengths: `values` with their frequencies `weights`."""

    dist: Literal["empirical"]
    values: tuple[Count, ...] = Field(min_length=1, description="Lengths in tokens.", examples=[[50, 200, 900]])
    weights: tuple[NotNegative, ...] | None = Field(
        default=None, description="Frequency of each value, in any unit. Default: all are equal.", examples=[[3, 5, 1]]
    )

    @model_validator(mode="after")
    def _matching(self) -> Self:
        if self.weights is not None and len(self.weights) != len(self.values):
            raise ValueError(f"has {len(self.values)} `values` but {len(self.weights)} `weights`; give one per value")
        if self.weights is not None and sum(self.weights) <= 0:
            raise ValueError("`weights` are all 0; raise at least one")
        return self

    def raw_quantile(self, share: float) -> float:
        """Return the inverse of the cumulative weights, in the order of the values."""
        pairs = sorted(zip(self.values, self.weights or (1.0,) * len(self.values), strict=True))
        cumulated = list(accumulate(weight for _, weight in pairs))
        return pairs[min(bisect_left(cumulated, share * cumulated[-1]), len(pairs) - 1)][0]


class FixedTime(StrictModel):
    """Constant time."""

    dist: Literal["fixed"] = "fixed"
    value_s: Seconds = Field(alias="value", description="The time.", examples=["2s"])

    @property
    def expected_s(self) -> float:
        return self.value_s


class ExponentialTime(StrictModel):
    """Exponentially distributed times."""

    dist: Literal["exponential"]
    mean_s: PositiveSeconds = Field(alias="mean", description="The mean.", examples=["5s"])

    @property
    def expected_s(self) -> float:
        return self.mean_s


class LognormalTime(StrictModel):
    """Log-normal times."""

    dist: Literal["lognormal"]
    median_s: PositiveSeconds = Field(alias="median", description="The median.", examples=["5s"])
    p95_s: PositiveSeconds = Field(alias="p95", description="The 95th percentile.", examples=["20s"])

    @model_validator(mode="after")
    def _rising(self) -> Self:
        _check_rising(self.median_s, self.p95_s)
        return self

    @property
    def log_mean(self) -> float:
        return math.log(self.median_s)

    @property
    def log_sd(self) -> float:
        return math.log(self.p95_s / self.median_s) / _Z95

    @property
    def expected_s(self) -> float:
        return math.exp(self.log_mean + self.log_sd**2 / 2)


def _check_rising(median: float | None, p95: float | None) -> None:
    if median is not None and p95 is not None and p95 < median:
        raise ValueError(f"`p95` ({p95:g}) is below `median` ({median:g})")


def _length_from_number(value: Any) -> Any:
    return {"dist": "fixed", "value": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _time_from_text(value: Any) -> Any:
    return {"dist": "fixed", "value": value} if isinstance(value, str | int | float) else value


def _no_exact(length: Any) -> Any:
    if length.exact:
        raise ValueError("`exact` is only for output tokens; leave it out")
    return length


_AnyLength = FixedLength | UniformLength | NormalLength | LognormalLength | EmpiricalLength
Length = Annotated[
    Annotated[_AnyLength, Field(discriminator="dist")],
    BeforeValidator(_length_from_number),
    AlsoAccepts({"type": "integer", "minimum": 1}),
]
Turns = Annotated[Length, AfterValidator(_no_exact)]
ThinkTime = Annotated[
    Annotated[FixedTime | ExponentialTime | LognormalTime, Field(discriminator="dist")],
    BeforeValidator(_time_from_text),
    AlsoAccepts({"type": "string", "pattern": DURATION_PATTERN}),
]
NO_THINK_TIME = FixedTime(value="0s")  # type: ignore[arg-type]
