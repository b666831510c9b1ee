"""The kinds of load: how requests are offered during one trial."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.lengths import NO_THINK_TIME, ThinkTime
from harness.load_parts import (
    ARRIVALS,
    CV,
    RATE,
    THINK,
    USERS,
    Arrivals,
    BaseLoad,
    CommonLoad,
    Count,
    Cv,
    LimitText,
    Rate,
    Slo,
    Users,
    cv_problems,
)
from harness.quantities import PositiveSeconds, Seconds
from harness.session_load import Sessions
from harness.strict_model import NOT_BUILT, Number, StrictModel

LOADS_NOT_BUILT = ("saturate",)
LIST_VALUED = ("rate", "users", "burst_rate", "cv")
"""Keys of a load that may hold a list; each value is a trial of its own."""


class SingleUser(BaseLoad):
    """One user who sends, waits for the whole reply, thinks, and sends again: the speed without any competition."""

    kind: Literal["single_user"]
    think_time: ThinkTime = Field(default=NO_THINK_TIME, description=THINK, examples=["2s"])

    @property
    def users(self) -> int:
        """One."""
        return 1


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

    def requests_within(self, rate: float, seconds: float) -> float:
        """Expected number of requests in the first `seconds`."""
        (first, last), within_s = self.ends(rate), min(seconds, self.over_s)
        return within_s * (first + (last - first) * within_s / self.over_s / 2) + (seconds - within_s) * last

    def seconds_until(self, rate: float, requests: float) -> float:
        """The time at which that many requests are expected."""
        first, last = self.ends(rate)
        whole = self.over_s * (first + last) / 2
        if requests >= whole:
            return self.over_s + (requests - whole) / last
        return 2 * requests / (first + math.sqrt(first**2 + 2 * (last - first) / self.over_s * requests))


class OpenOrClosed(BaseLoad):
    """What `sustained` and `mixed` share: a rate, or a number of users."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "requests"), ("rate", "users"))

    rate: Rate | None = Field(default=None, description=RATE, examples=[2])
    users: Users | None = Field(default=None, description=USERS, examples=[8])
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])
    ramp: Ramp | None = Field(default=None, description="With `rate`: begin or end with another rate.")
    think_time: ThinkTime = Field(default=NO_THINK_TIME, description=THINK, examples=["2s"])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """Arrivals belong to a rate, think time to users."""
        problems = [*super().check_keys(given), *cv_problems(given)]
        if "users" in given and "rate" not in given and "arrivals" in given:
            problems.append("`arrivals` goes with `rate`; `users` send when their reply is there")
        if "users" in given and "rate" not in given and "ramp" in given:
            problems.append("`ramp` goes with `rate`; a number of `users` stays as it is")
        if "rate" in given and "users" not in given and "think_time" in given:
            problems.append("`think_time` goes with `users`; a `rate` does not wait for replies")
        return problems

    @model_validator(mode="after")
    def _ramp_fits(self) -> Self:
        if self.ramp is None or self.rate is None:
            return self
        if self.duration_s is not None and self.ramp.over_s > self.duration_s:
            raise ValueError("`ramp.over` is longer than `duration`, so its end would not be reached; shorten it")
        if self.warmup_s > 0 and self.ramp.ends(self.rate)[0] == 0:
            raise ValueError("a `warmup` before a ramp from 0 sends nothing; write `ramp.from`, or leave `warmup` out")
        return self

    def irrelevant_keys(self) -> frozenset[str]:
        """The key that belongs to the other loop."""
        return frozenset({"arrivals"} if self.rate is None else {"think_time"})


class Sustained(OpenOrClosed):
    """The same load all the time."""

    kind: Literal["sustained"]


class Mixed(OpenOrClosed):
    """The same load all the time, over the `classes` of the scenario by their weights."""

    kind: Literal["mixed"]


class Spike(StrictModel):
    """Many requests at once."""

    requests: Count = Field(description="How many.", examples=[50])
    within_s: Seconds = Field(alias="within", description="Spread over this time; `0s`: all together.", examples=["1s"])
    at_s: Seconds = Field(default=0.0, alias="at", description="When, after measuring has begun.", examples=["10s"])


class Burst(BaseLoad):
    """A base rate with bursts (`burst_rate`, `burst_for`, `every`), or with one `spike`.

    A spike without a base rate is the whole trial: it takes neither `duration` nor `requests`.
    """

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("burst_rate", "spike"),)
    at_most_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "requests"),)

    kind: Literal["burst"]
    rate: Rate | None = Field(
        default=None, description="Requests per second between the bursts (open loop).", examples=[1]
    )
    burst_rate: Rate | None = Field(default=None, description="Requests per second during a burst.", examples=[8])
    burst_for_s: PositiveSeconds | None = Field(
        default=None, alias="burst_for", description="How long each burst lasts.", examples=["5s"]
    )
    every_s: PositiveSeconds | None = Field(
        default=None,
        alias="every",
        description="From the start of one burst to the start of the next.",
        examples=["20s"],
    )
    spike: Spike | None = Field(default=None, description="Instead of bursts: many requests at once.")
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """Bursts need all their keys; a spike has its own."""
        problems = [*super().check_keys(given), *cv_problems(given)]
        bounded = "duration" in given or "requests" in given
        if "spike" in given:
            extra = [f"`{key}`" for key in ("burst_for", "every") if key in given]
            problems += [f"{' and '.join(extra)} cannot be given with `spike`"] if extra else []
            if "rate" in given and "duration" not in given:
                problems.append("a `spike` over a `rate` needs `duration`")
            if "rate" not in given and (bounded or "warmup" in given):
                problems.append(
                    "a `spike` without a `rate` is the whole trial; add `rate`, or leave duration and warmup out"
                )
        elif "burst_rate" in given:
            missing = [f"`{key}`" for key in ("rate", "burst_for", "every") if key not in given]
            problems += [f"bursts also need {' and '.join(missing)}"] if missing else []
            problems += [] if bounded else ["needs `duration` or `requests`"]
        return problems

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.burst_for_s is not None and self.every_s is not None and self.burst_for_s >= self.every_s:
            raise ValueError("`burst_for` must be shorter than `every`")
        spike, duration_s = self.spike, self.duration_s
        if spike is None or duration_s is None:
            return self
        if spike.at_s >= duration_s or spike.at_s + spike.within_s > duration_s:
            raise ValueError(
                f"the spike ends {spike.at_s + spike.within_s:g} s after measuring has begun, `duration` no later: a "
                "part of it would not be measured; lengthen `duration`, or shorten `spike.at` or `spike.within`"
            )
        return self

    def irrelevant_keys(self) -> frozenset[str]:
        """A lone spike has no warm-up."""
        return frozenset({"warmup"} if self.rate is None else ())

    @property
    def mean_rate(self) -> float:
        """Requests per second over whole periods of base rate and burst; the base rate where there is a spike."""
        base = self.rate or 0.0
        if self.burst_rate is None or self.burst_for_s is None or self.every_s is None:
            return base
        share = self.burst_for_s / self.every_s
        return base * (1 - share) + self.burst_rate * share


class Step(StrictModel):
    """One of the rates."""

    rate: Annotated[Number, Field(gt=0)] = Field(description="Requests per second.", examples=[2])
    for_s: PositiveSeconds = Field(alias="for", description="How long.", examples=["30s"])


class Steps(CommonLoad):
    """One rate after another; the measurement lasts as long as all `steps` together.

    A warm-up has the rate of the first step; after the last one load goes on at its rate until the measured requests
    have ended.
    """

    kind: Literal["steps"]
    steps: tuple[Step, ...] = Field(
        min_length=1, description="The rates and how long each lasts.", examples=["[{rate: 2, for: 30s}]"]
    )
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """`cv` belongs to gamma arrivals."""
        return [*super().check_keys(given), *cv_problems(given)]

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """What else limits a load is given by the steps."""
        if key in ("duration", "requests"):
            return "is given by the steps; leave it out"
        return super().unknown_key(key)

    @property
    def duration_s(self) -> float:
        """How long is measured."""
        return math.fsum(step.for_s for step in self.steps)

    @property
    def requests(self) -> None:
        """The number of requests is left to the arrivals."""
        return None

    @property
    def mean_rate(self) -> float:
        """Requests per second over all steps."""
        return math.fsum(step.rate * step.for_s for step in self.steps) / self.duration_s


class Trace(CommonLoad):
    """Recorded traffic: the times and lengths are those of a file, all of which is played.

    A warm-up is the first part of the trace. `prompt_tokens` and `output_tokens` of the workload do not count.
    """

    kind: Literal["trace"]
    file: Path = Field(
        description="CSV or JSON Lines with `TIMESTAMP, ContextTokens, GeneratedTokens` (clock times, as the public "
        "Azure trace), `timestamp, input_length, output_length` (milliseconds, as the public Mooncake trace), or "
        "`due_s, prompt_tokens, output_tokens` (seconds from the start).",
        examples=["trace.csv"],
    )
    time_scale: Annotated[Number, Field(gt=0)] = Field(
        default=1.0, description="How many times as long every gap is: 2 halves the rate, 0.5 doubles it.", examples=[2]
    )
    sample: Annotated[Number, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Share of the requests that is sent, each chosen by itself, so that bursts remain bursts.",
        examples=[0.1],
    )
    exact: bool = Field(
        default=True,
        strict=True,
        description="Generate exactly the recorded number of tokens, where the engine can; else at most those.",
    )

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """What else limits a load is given by the file."""
        if key in ("duration", "requests", "rate"):
            return "is given by the trace; leave it out, or use `time_scale` and `sample`"
        return super().unknown_key(key)

    @property
    def duration_s(self) -> None:
        """The trace ends by itself."""
        return None

    @property
    def requests(self) -> None:
        """The trace ends by itself."""
        return None


def _built_kind(value: Any) -> Any:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind in LOADS_NOT_BUILT:
        raise PydanticCustomError(NOT_BUILT, "`kind: {name}` is not built yet", {"name": kind})
    return value


Load = SingleUser | Sustained | Burst | Mixed | Steps | Trace | Sessions
LoadItem = Annotated[Annotated[Load, Field(discriminator="kind")], BeforeValidator(_built_kind)]

__all__ = [
    "LIST_VALUED",
    "LOADS_NOT_BUILT",
    "Burst",
    "LimitText",
    "Load",
    "LoadItem",
    "Mixed",
    "Ramp",
    "Sessions",
    "SingleUser",
    "Slo",
    "Spike",
    "Step",
    "Steps",
    "Sustained",
    "Trace",
]
