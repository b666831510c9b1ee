"""The kinds of load: how requests are offered during one trial.

What all kinds of load share: times and limits, objectives of a request, and how arrivals scatter.

The load of people who come when they like and then talk for a while: conversations that begin at a rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.scenario.base import NOT_BUILT, AlsoAccepts, Integer, Number, StrictModel
from harness.scenario.lengths import NO_THINK_TIME, ThinkTime, Turns
from harness.scenario.limits import parse_limit
from harness.units import PositiveMilliseconds, PositiveSeconds, Seconds

DEFAULT_TIMEOUT_S = 120.0


def _checked_limit(text: str) -> str:
    parse_limit(text)
    return text


def _plain_arrivals(value: Any) -> Any:
    name = next(iter(value), None) if isinstance(value, Mapping) else str(value).partition("(")[0].strip()
    if name == "gamma" and value != name:
        raise ValueError("is one word; write `arrivals: gamma` and beside it `cv: 2`")
    if name == "ramp":
        raise ValueError("is about single arrivals; write `ramp: {to: 8, over: 60s}` beside `rate`")
    return value


def _checked_workers(value: Any) -> Any:
    """One sentence, where a union would tell one for each of its alternatives."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256):
        return value
    raise ValueError(f"must be `auto` or a whole number from 1 to 256, found {value!r}")


LimitText = Annotated[str, AfterValidator(_checked_limit)]
Arrivals = Annotated[Literal["constant", "poisson", "gamma"], BeforeValidator(_plain_arrivals)]
_NUMBERS = {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1}
_COUNTS = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
Rate = Annotated[Number, Field(gt=0), AlsoAccepts(_NUMBERS)]
Users = Annotated[Integer, Field(ge=1), AlsoAccepts(_COUNTS)]
Count = Annotated[Integer, Field(ge=1)]
Workers = Annotated[Literal["auto"] | Annotated[Integer, Field(ge=1, le=256)], BeforeValidator(_checked_workers)]
Cv = Annotated[Number, Field(gt=0, le=20), AlsoAccepts(_NUMBERS)]

RATE = "Requests per second, whatever the server does (open loop). A list makes one trial of each."
USERS = "Users who each wait for the reply before they send again (closed loop). A list makes one trial of each."
ARRIVALS = (
    "`poisson`: independent arrivals, as of many users who know nothing of each other; `constant`: evenly spaced; "
    "`gamma`: as uneven as `cv` says."
)
CV = (
    "With `arrivals: gamma`: standard deviation of the gaps over their mean. 1 is `poisson`, above it requests come in "
    "clumps, below it they are more even. A list makes one trial of each."
)
THINK = "What a user waits between a reply and the next request: a time, or a distribution of times."


def cv_problems(given: Mapping[str, Any]) -> list[str]:
    """A sentence where `cv` is given without gamma arrivals, or these without it."""
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


class CommonLoad(StrictModel):
    """What all kinds of load share."""

    name: str | None = Field(
        default=None, min_length=1, description="The trial's name; made up from the kind where absent."
    )
    warmup_s: Seconds = Field(
        default=0.0,
        alias="warmup",
        description="The same load before measuring; labelled, not measured.",
        examples=["10s"],
    )
    timeout_s: PositiveSeconds = Field(
        default=DEFAULT_TIMEOUT_S,
        alias="timeout",
        description="A request that takes longer has failed.",
        examples=["30s"],
    )
    driver: Literal["inprocess", "locust"] = Field(
        default="inprocess",
        description="Who sends the load: our own client, or Locust, whose users, statistics, page and workers on other "
        "machines are then used. The same plan, records and report; served engines only.",
    )
    workers: Workers = Field(
        default="auto",
        description="Processes that send the load, sharing one plan, to engines that are reached over the network. "
        "`auto`: one for each 512 users, 1,000 requests or 25,600 tokens due in the busiest second; a core stays free.",
        examples=["auto", 4],
    )
    slo: Slo | None = Field(default=None, description="Keys given here replace the scenario's for this load.")
    limits: tuple[LimitText, ...] = Field(
        default=(),
        description="Limits of this load; added to the scenario's, or in place of those on the same statistic.",
        examples=[["ttft_ms p95 <= 800"]],
    )

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """Locust's workers are not ours."""
        problems = super().check_keys(given)
        if given.get("driver") == "locust" and given.get("workers", "auto") != "auto":
            problems.append("`workers` are not Locust's; leave it out, and use `--expect-workers` and `harness worker`")
        return problems


class BaseLoad(CommonLoad):
    """What loads share that are limited by a duration or by a number of requests."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "requests"),)

    duration_s: PositiveSeconds | None = Field(
        default=None, alias="duration", description="How long to measure, after the warm-up.", examples=["60s"]
    )
    requests: Count | None = Field(
        default=None,
        description="How many requests to measure, instead of a duration; the load goes on until they have ended.",
        examples=[100],
    )


class Sessions(CommonLoad):
    """Conversations that begin at a rate, whatever the server does; within each, a turn follows the reply before it.

    Partly open: a slow server delays the later turns of the conversations it has, but not the arrival of new ones.
    """

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "sessions"),)

    kind: Literal["sessions"]
    rate: Rate = Field(
        description="Conversations that begin per second. A list makes one trial of each.", examples=[0.5]
    )
    duration_s: PositiveSeconds | None = Field(
        default=None, alias="duration", description="How long to measure, after the warm-up.", examples=["60s"]
    )
    sessions: Count | None = Field(
        default=None, description="How many conversations to measure, instead of a duration.", examples=[50]
    )
    turns: Turns | None = Field(
        default=None,
        description="Turns of a conversation: a number, or a distribution as of lengths. Absent: the workload's.",
        examples=[4],
    )
    think_time: ThinkTime | None = Field(
        default=None,
        description="What a user waits between a reply and the next turn: a time, or a distribution of times. Absent: "
        "that of the workload, or none.",
        examples=["5s"],
    )
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """`cv` belongs to gamma arrivals."""
        return [*super().check_keys(given), *cv_problems(given)]

    @classmethod
    def unknown_key(cls, key: str) -> str:
        """What other loads are limited by, and this one is not."""
        if key == "requests":
            return "is not known here; write `sessions`, the number of conversations, or `duration`"
        if key == "users":
            return "is not known here; `turns` in the workload make users of `kind: sustained` hold conversations"
        return super().unknown_key(key)

    @property
    def requests(self) -> None:
        """The number of requests follows from the turns."""
        return None


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
