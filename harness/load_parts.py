"""What all kinds of load share: times and limits, objectives of a request, and how arrivals scatter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from harness.limits import parse_limit
from harness.quantities import PositiveMilliseconds, PositiveSeconds, Seconds
from harness.strict_model import AlsoAccepts, Integer, Number, StrictModel

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
