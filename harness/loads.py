"""The kinds of load: how requests are offered during one trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.lengths import NO_THINK_TIME, ThinkTime
from harness.limits import parse_limit
from harness.quantities import PositiveMilliseconds, PositiveSeconds, Seconds
from harness.strict_model import NOT_BUILT, AlsoAccepts, Integer, NotBuilt, Number, StrictModel

DEFAULT_TIMEOUT_S = 120.0
LOADS_NOT_BUILT = ("steps", "sessions", "trace", "saturate")
LIST_VALUED = ("rate", "users", "burst_rate", "cv")
"""Keys of a load that may hold a list; each value is a trial of its own."""


def _checked_limit(text: str) -> str:
    parse_limit(text)
    return text


def _built_driver(value: Any) -> Any:
    if value == "locust":
        raise PydanticCustomError(NOT_BUILT, "`driver: locust` is not built yet; write `inprocess` or leave it out")
    return value


def _plain_arrivals(value: Any) -> Any:
    name = next(iter(value), None) if isinstance(value, Mapping) else str(value).partition("(")[0].strip()
    if name == "gamma" and value != name:
        raise ValueError("is one word; write `arrivals: gamma` and beside it `cv: 2`")
    if name == "ramp":
        raise PydanticCustomError(NOT_BUILT, "`arrivals: ramp` is not built yet")
    return value


LimitText = Annotated[str, AfterValidator(_checked_limit)]
Arrivals = Annotated[Literal["constant", "poisson", "gamma"], BeforeValidator(_plain_arrivals)]
_NUMBERS = {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1}
_COUNTS = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
Rate = Annotated[Number, Field(gt=0), AlsoAccepts(_NUMBERS)]
Users = Annotated[Integer, Field(ge=1), AlsoAccepts(_COUNTS)]
Count = Annotated[Integer, Field(ge=1)]
Cv = Annotated[Number, Field(gt=0, le=20), AlsoAccepts(_NUMBERS)]

_RATE = "Requests per second, whatever the server does (open loop). A list makes one trial of each."
_USERS = "Users who each wait for the reply before they send again (closed loop). A list makes one trial of each."
_ARRIVALS = (
    "`poisson`: independent arrivals, as of many users who know nothing of each other; `constant`: evenly spaced; "
    "`gamma`: as uneven as `cv` says."
)
_CV = (
    "With `arrivals: gamma`: standard deviation of the gaps over their mean. 1 is `poisson`, above it requests come in "
    "clumps, below it they are more even. A list makes one trial of each."
)
_THINK = "What a user waits between a reply and the next request: a time, or a distribution of times."


def _cv_problems(given: Mapping[str, Any]) -> list[str]:
    if "cv" in given and given.get("arrivals") != "gamma":
        return ["`cv` goes with `arrivals: gamma`; add it, or leave `cv` out"]
    if given.get("arrivals") == "gamma" and "cv" not in given:
        return ["`arrivals: gamma` needs `cv`, such as `cv: 2`"]
    return []


class Slo(StrictModel):
    """What one request must hold to be good; goodput, attainment and saturation follow from it."""

    ttft_ms: PositiveMilliseconds | None = Field(
        default=None,
        alias="ttft",
        description="Time to first token, from when the request was due.",
        examples=["500ms"],
    )
    tpot_ms: PositiveMilliseconds | None = Field(
        default=None, alias="tpot", description="Time per output token after the first.", examples=["50ms"]
    )
    e2e_ms: PositiveMilliseconds | None = Field(
        default=None, alias="e2e", description="Time to the last token, from when the request was due.", examples=["5s"]
    )
    stall_ms: PositiveMilliseconds | None = Field(
        default=None, alias="stall", description="The longest gap between two pieces of a reply.", examples=["1s"]
    )

    def overridden_by(self, other: Slo | None) -> Slo:
        """These limits, those that `other` gives replaced by its own."""
        given = {} if other is None else {name: value for name, value in other if value is not None}
        return self.model_copy(update=given)


class BaseLoad(StrictModel):
    """What all kinds of load share."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "requests"),)

    name: str | None = Field(
        default=None, min_length=1, description="The trial's name; made up from the kind where absent."
    )
    warmup_s: Seconds = Field(
        default=0.0,
        alias="warmup",
        description="The same load before measuring; labelled, not measured.",
        examples=["10s"],
    )
    duration_s: PositiveSeconds | None = Field(
        default=None, alias="duration", description="How long to measure, after the warm-up.", examples=["60s"]
    )
    requests: Count | None = Field(
        default=None, description="How many requests to measure, instead of a duration.", examples=[100]
    )
    timeout_s: PositiveSeconds = Field(
        default=DEFAULT_TIMEOUT_S,
        alias="timeout",
        description="A request that takes longer has failed.",
        examples=["30s"],
    )
    driver: Annotated[Literal["inprocess"], BeforeValidator(_built_driver)] = Field(
        default="inprocess", description="Who sends the load."
    )
    workers: NotBuilt = Field(default=None, description="Number of processes that send the load.")
    slo: Slo | None = Field(default=None, description="Keys given here replace the scenario's for this load.")
    limits: tuple[LimitText, ...] = Field(
        default=(),
        description="Limits of this load; added to the scenario's, or in place of those on the same statistic.",
        examples=[["ttft_ms p95 <= 800"]],
    )


class SingleUser(BaseLoad):
    """One user who sends, waits for the whole reply, thinks, and sends again: the speed without any competition."""

    kind: Literal["single_user"]
    think_time: ThinkTime = Field(default=NO_THINK_TIME, description=_THINK, examples=["2s"])

    @property
    def users(self) -> int:
        """One."""
        return 1


class OpenOrClosed(BaseLoad):
    """What `sustained` and `mixed` share: a rate, or a number of users."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "requests"), ("rate", "users"))

    rate: Rate | None = Field(default=None, description=_RATE, examples=[2])
    users: Users | None = Field(default=None, description=_USERS, examples=[8])
    arrivals: Arrivals = Field(default="poisson", description=_ARRIVALS)
    cv: Cv | None = Field(default=None, description=_CV, examples=[2])
    ramp: NotBuilt = Field(default=None, description="A rate that rises.")
    think_time: ThinkTime = Field(default=NO_THINK_TIME, description=_THINK, examples=["2s"])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """Arrivals belong to a rate, think time to users."""
        problems = [*super().check_keys(given), *_cv_problems(given)]
        if "users" in given and "rate" not in given and "arrivals" in given:
            problems.append("`arrivals` goes with `rate`; `users` send when their reply is there")
        if "rate" in given and "users" not in given and "think_time" in given:
            problems.append("`think_time` goes with `users`; a `rate` does not wait for replies")
        return problems

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
    arrivals: Arrivals = Field(default="poisson", description=_ARRIVALS)
    cv: Cv | None = Field(default=None, description=_CV, examples=[2])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """Bursts need all their keys; a spike has its own."""
        problems = [*super().check_keys(given), *_cv_problems(given)]
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
        if self.spike is not None and self.duration_s is not None and self.spike.at_s >= self.duration_s:
            raise ValueError("`spike.at` must be before the end of `duration`")
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


def _built_kind(value: Any) -> Any:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind in LOADS_NOT_BUILT:
        raise PydanticCustomError(NOT_BUILT, "`kind: {name}` is not built yet", {"name": kind})
    return value


Load = SingleUser | Sustained | Burst | Mixed
LoadItem = Annotated[Annotated[Load, Field(discriminator="kind")], BeforeValidator(_built_kind)]
