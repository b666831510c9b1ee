"""Base of every kind of load: shared keys, and the properties that the schedule and the estimates need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_serializer

from harness.records import Loop
from harness.scenario.base import AlsoAccepts, Count, Integer, Name, StrictModel
from harness.scenario.lengths import Length, ThinkTime
from harness.scenario.limits import LimitText, Slo
from harness.scenario.loads.rates import Pieces, RateShape, cv_problems
from harness.scenario.loads.retries import RetriesOrTimes
from harness.scenario.workload import Workload
from harness.units import PositiveSeconds, Range, Seconds

ONE_TURN = Workload()


def _checked_workers(value: Any) -> Any:
    # A union would report one sentence for each of its alternatives.
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256):
        return value
    raise ValueError(f"must be `auto` or a whole number from 1 to 256, found {value!r}")


COUNTS = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}
MaxConcurrency = Annotated[Count, AlsoAccepts(COUNTS)]
LENGTHS = ("prompt_tokens", "output_tokens")
MAX_CONCURRENCY = (
    "Most requests in flight at the same time. A request that is due while so many are waits for a place, and is sent "
    "then. Its latencies count from due all the same. A list gives one trial per value."
)
Workers = Annotated[Literal["auto"] | Annotated[Integer, Field(ge=1, le=256)], BeforeValidator(_checked_workers)]


class CommonLoad(StrictModel):
    """Open loop at `mean_rate`, or closed loop of users; a kind of load overrides what differs.

    Attributes:
        changes_by_plan: True if the rate is not constant.
        mixes_classes: True if requests come from the scenario's classes.
    """

    changes_by_plan: ClassVar[bool] = False
    mixes_classes: ClassVar[bool] = False

    name: Name | None = Field(default=None, description="Name of the trial. Default: derived from the kind.")
    warmup_s: Seconds = Field(
        default=0.0, alias="warmup", description="Load before the measurement; recorded, not counted.", examples=["10s"]
    )
    timeout_s: PositiveSeconds = Field(
        default=120.0, alias="timeout", description="A request that takes longer fails.", examples=["30s"]
    )
    retries: Annotated[RetriesOrTimes, AlsoAccepts({"type": "integer", "minimum": 0, "maximum": 100})] | None = Field(
        default=None,
        description="Send failed requests again: how often, or a mapping. Default: each is sent once.",
        examples=[2],
    )
    driver: Literal["inprocess", "locust"] = Field(
        default="inprocess",
        description="Load generator: the built-in one, or Locust with its users, statistics, web page and workers on "
        "other machines. Schedule, records and report are the same. Locust needs a server.",
    )
    workers: Workers = Field(
        default="auto",
        description="Processes that share one schedule and send the load, for engines behind a socket. `auto`: one for "
        "each 1,000 requests or 25,600 tokens due in the busiest second, twice as many if the warm-up was read late, "
        "and without a warm-up one for each 512 users. One core stays free.",
        examples=["auto", 4],
    )
    slo: Slo | None = Field(default=None, description="Keys that replace those of the scenario's `slo` for this load.")
    limits: tuple[LimitText, ...] = Field(
        default=(),
        description="Limits of this load. They are added to the scenario's; a limit on the same statistic is replaced.",
        examples=[["ttft_ms p95 <= 800"]],
    )

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        problems = [*super().check_keys(given), *(cv_problems(given) if "arrivals" in cls.model_fields else ())]
        if given.get("driver") == "locust" and given.get("workers", "auto") != "auto":
            problems.append("`workers` has no effect on Locust; use `--expect-workers` and `harness worker` instead")
        elif "max_concurrency" in given and given.get("workers", 1) not in ("auto", 1):
            problems.append("`max_concurrency` is kept by one process; leave `workers` out")
        return problems

    @property
    def user_count(self) -> int | None:
        """Users of a closed loop; None for a load at a rate."""
        return None

    @property
    def cap(self) -> int | None:
        """Most requests in flight at the same time; None without a cap."""
        cap: int | None = getattr(self, "max_concurrency", None)
        return cap

    @property
    def measured_s(self) -> float | None:
        """Duration of the measurement; None if a number or a file limits the load."""
        return None

    @property
    def measured_count(self) -> int | None:
        """Number of measured requests or conversations; None if time or a file limits the load."""
        return None

    @property
    def loop(self) -> Loop:
        """Loop: requests are sent at scheduled times (open) or after replies (closed)."""
        return Loop.OPEN if self.user_count is None else Loop.CLOSED

    @property
    def mean_rate(self) -> float:
        """Requests per second of an open loop, without its ramp."""
        return 0.0

    @property
    def shape(self) -> RateShape | None:
        """Shape of a rate that changes from the start of the measurement on; None for a constant rate."""
        return None

    @property
    def opening_rate(self) -> float:
        """Rate of the warm-up."""
        return self.shape.first[0] if isinstance(self.shape, Pieces) else self.mean_rate

    @property
    def closing_rate(self) -> float:
        """Rate of the load that goes on after the window."""
        return self.shape.last[-1] if isinstance(self.shape, Pieces) else self.mean_rate

    @property
    def distinction(self) -> str:
        """Part of a name that differs from other loads of the same kind; empty if nothing short does."""
        return ""

    @property
    def burst_spans(self) -> dict[str, float | None] | None:
        """Bursts in seconds: start after T0, length and period (None: a single spike); None if there are none."""
        return None

    def workload_of(self, workload: Workload) -> Workload:
        """Return the workload with the lengths that this load sets itself, as exact as before unless they say so."""
        given = self.own_lengths
        replies = given.get("output_tokens")
        if replies is not None and "exact" not in replies.model_fields_set:
            given["output_tokens"] = replies.model_copy(update={"exact": workload.output_tokens.exact})
        return workload.model_copy(update=given)

    @property
    def own_lengths(self) -> dict[str, Length]:
        """Lengths that replace the workload's, by their key there."""
        return {name: own for name in LENGTHS if (own := getattr(self, name, None)) is not None}

    @field_serializer(*LENGTHS, check_fields=False)
    def _as_given(self, length: Length | None) -> dict[str, Any] | None:
        # With its defaults in the output, a length would no longer be as exact as the workload's.
        return None if length is None else length.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def turns_of(self, workload: Workload) -> Length | None:
        """Return the distribution of turns of a conversation; None if there are no conversations."""
        return None if self.user_count is None else workload.turns

    def think_times(self, workload: Workload) -> tuple[ThinkTime | None, ThinkTime | None]:
        """Return the time before a request that waits for a reply, and the time between turns if it differs."""
        return None, None

    def expected_requests(self, workload: Workload = ONE_TURN) -> Range:
        """Return the number of requests that the load sends, warm-up included."""
        if self.user_count is not None:
            count = self.measured_count
            return Range(float(self.user_count), None) if count is None else Range.exactly(count)
        measured = (self.measured_count or 0) if self.measured_s is None else self._requests_within(self.measured_s)
        return Range.exactly(measured + self.opening_rate * self.warmup_s)

    def further_requests(self, workload: Workload = ONE_TURN) -> Range:
        """Return the number of requests after the measured ones: those of one timeout, or at most as many again."""
        count = self.measured_count
        if self.user_count is not None:
            return Range(0.0, None) if count is None else Range(0.0, float(count) if self.user_count > 1 else 0.0)
        again = self.closing_rate * self.timeout_s
        return Range(0.0, again if count is None else min(float(count), again))

    def recorded_tokens(self) -> float | None:
        """Return the tokens of all requests if a file states them."""
        return None

    def expected_time_s(self, workload: Workload = ONE_TURN) -> Range:
        """Return the time from the first request due to the last reply."""
        if self.measured_s is not None:
            return self._until_answered(self.warmup_s + self.measured_s)
        count = self.measured_count or 0
        if self.user_count is None:
            return self._until_answered(self.warmup_s + self._seconds_until(count))
        rounds, think_s = math.ceil(count / self.user_count), self.mean_think_s(workload)
        return Range(self.warmup_s + (rounds - 1) * think_s, self.warmup_s + rounds * (self.timeout_s + think_s))

    def _until_answered(self, sending_s: float) -> Range:
        return Range(sending_s, sending_s + self.timeout_s)

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

    def mean_think_s(self, workload: Workload) -> float:
        """Return the mean time between a user's requests, averaged over the turns of conversations."""
        own, between = self.think_times(workload)
        own_s = 0.0 if own is None else own.expected_s
        if between is None:
            return own_s
        first = 1 / self._mean_turns(workload)
        return first * own_s + (1 - first) * between.expected_s


class BaseLoad(CommonLoad):
    """Base of the loads that a duration or a number of requests limits."""

    exactly_one: ClassVar[tuple[tuple[str, ...], ...]] = (("duration", "requests"),)

    duration_s: PositiveSeconds | None = Field(
        default=None, alias="duration", description="Time to measure, after the warm-up.", examples=["60s"]
    )
    requests: Count | None = Field(
        default=None,
        description="Number of requests to measure, instead of a duration. The load goes on until they have ended.",
        examples=[100],
    )

    @property
    def measured_s(self) -> float | None:
        return self.duration_s

    @property
    def measured_count(self) -> int | None:
        return self.requests
