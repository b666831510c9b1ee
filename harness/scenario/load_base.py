"""The base of every kind of load: shared keys, and what the plan and the estimates ask of a load."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from harness.records import Loop
from harness.scenario.base import Integer, StrictModel
from harness.scenario.lengths import Length, ThinkTime
from harness.scenario.limits import LimitText, Slo
from harness.scenario.rates import Count, Pieces, RateShape, cv_problems
from harness.scenario.workload import Workload
from harness.units import NOTHING, PositiveSeconds, Range, Seconds

DEFAULT_TIMEOUT_S = 120.0
ONE_TURN = Workload()


def _checked_workers(value: Any) -> Any:
    """One sentence, where a union would tell one for each of its alternatives."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256):
        return value
    raise ValueError(f"must be `auto` or a whole number from 1 to 256, found {value!r}")


Workers = Annotated[Literal["auto"] | Annotated[Integer, Field(ge=1, le=256)], BeforeValidator(_checked_workers)]


class CommonLoad(StrictModel):
    """All that kinds of load share: fields, and what the plan and the estimates ask of a load.

    A kind overrides those of the properties and methods that differ. The defaults are those of an open loop at
    `mean_rate`, and of a closed loop where there are users.
    changes_by_plan: the rate is not the same throughout.   mixes_classes: requests come from the scenario's classes.
    """

    changes_by_plan: ClassVar[bool] = False
    mixes_classes: ClassVar[bool] = False

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
        """`cv` belongs to gamma arrivals, and Locust's workers are not ours."""
        problems = [*super().check_keys(given), *(cv_problems(given) if "arrivals" in cls.model_fields else ())]
        if given.get("driver") == "locust" and given.get("workers", "auto") != "auto":
            problems.append("`workers` are not Locust's; leave it out, and use `--expect-workers` and `harness worker`")
        return problems

    @property
    def user_count(self) -> int | None:
        """Users who each wait for the reply before they send again (closed loop); None for a load at a rate."""
        return None

    @property
    def measured_s(self) -> float | None:
        """How long is measured; None where a number or a file limits the load."""
        return None

    @property
    def measured_count(self) -> int | None:
        """How many requests, or conversations, are measured; None where time or a file limits the load."""
        return None

    @property
    def loop(self) -> Loop:
        """Whether requests are sent at planned times or after replies."""
        return Loop.OPEN if self.user_count is None else Loop.CLOSED

    @property
    def mean_rate(self) -> float:
        """Requests per second of an open loop, a ramp left out."""
        return 0.0

    @property
    def shape(self) -> RateShape | None:
        """How the rate changes from the start of the measurement on; None where it does not."""
        return None

    @property
    def opening_rate(self) -> float:
        """The rate of the warm-up."""
        return self.shape.first[0] if isinstance(self.shape, Pieces) else self.mean_rate

    @property
    def closing_rate(self) -> float:
        """The rate of the load that goes on behind the window."""
        return self.shape.last[-1] if isinstance(self.shape, Pieces) else self.mean_rate

    @property
    def distinction(self) -> str:
        """What tells the load by name from others of its kind; empty where nothing short does."""
        return ""

    @property
    def burst_spans(self) -> dict[str, float | None] | None:
        """When bursts are, in s: the first one's start after T0, each one's length, from one to the next (None: a
        single spike); None where there are none.
        """
        return None

    def turns_of(self, workload: Workload) -> Length | None:
        """Return how many turns conversations have; None where there are none."""
        return None if self.user_count is None else workload.turns

    def think_times(self, workload: Workload) -> tuple[ThinkTime | None, ThinkTime | None]:
        """Return the time before a request that waits for a reply, and between turns where that is another."""
        return None, None

    def expected_requests(self, workload: Workload = ONE_TURN) -> Range:
        """Return how many requests the load sends, those of its warm-up included."""
        if self.user_count is not None:
            count = self.measured_count
            return Range(float(self.user_count), None) if count is None else Range.exactly(count)
        measured = (self.measured_count or 0) if self.measured_s is None else self._requests_within(self.measured_s)
        return Range.exactly(measured + self.opening_rate * self.warmup_s)

    def further_requests(self, workload: Workload = ONE_TURN) -> Range:
        """Return how many requests may follow those, so that the last measured ones meet as much load as the first:
        as many again where a number limits the load, those of a time-out where time does.
        """
        count = self.measured_count
        if self.user_count == 1 and count is not None:
            return NOTHING
        if self.user_count is not None:
            return Range(0.0, None if count is None else float(count))
        again = self.closing_rate * self.timeout_s
        return Range(0.0, again if count is None else min(float(count), again))

    def recorded_tokens(self) -> float | None:
        """Return the tokens of all requests, where a file says them."""
        return None

    def expected_time_s(self, workload: Workload = ONE_TURN) -> Range:
        """Return how long the load takes, from the first request due to the last answered."""
        if self.measured_s is not None:
            return self._until_answered(self.warmup_s + self.measured_s)
        count = self.measured_count or 0
        if self.user_count is None:
            return self._until_answered(self.warmup_s + self._seconds_until(count))
        rounds, think_s = math.ceil(count / self.user_count), self._mean_think_s(workload)
        return Range((rounds - 1) * think_s, rounds * (self.timeout_s + think_s))

    def _until_answered(self, offered_s: float) -> Range:
        return Range(offered_s, offered_s + self.timeout_s)

    def _requests_within(self, seconds: float) -> float:
        return self.shape.mass_until(seconds) if isinstance(self.shape, Pieces) else self.mean_rate * seconds

    def _seconds_until(self, requests: float) -> float:
        if not isinstance(self.shape, Pieces):
            return requests / self.mean_rate
        import numpy as np

        return float(self.shape.time_at(np.array([requests]))[0])

    def _mean_turns(self, workload: Workload) -> float:
        turns = self.turns_of(workload)
        return 1.0 if turns is None else turns.expected_tokens

    def _mean_think_s(self, workload: Workload) -> float:
        """Return the mean time between a user's requests; within conversations that of their turns."""
        own, between = self.think_times(workload)
        own_s = 0.0 if own is None else own.expected_s
        if between is None:
            return own_s
        first = 1 / self._mean_turns(workload)
        return first * own_s + (1 - first) * between.expected_s


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

    @property
    def measured_s(self) -> float | None:
        """The `duration`."""
        return self.duration_s

    @property
    def measured_count(self) -> int | None:
        """The `requests`."""
        return self.requests
