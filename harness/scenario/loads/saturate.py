"""Load that searches for the largest rate that keeps the SLO and the limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from harness.scenario.base import Number, Positive
from harness.scenario.loads.base import ONE_TURN, CommonLoad
from harness.scenario.loads.rates import ARRIVALS, CV, Arrivals, Cv
from harness.scenario.workload import Workload
from harness.units import NOTHING, PositiveSeconds, Range

SEARCHED = "is what this load searches for; write `first_rate`, or `largest_rate`, or leave it out"


class Saturate(CommonLoad):
    """A search for the largest rate that keeps the `slo` and the limits on its latencies and errors.

    The measurement is the last part: the lower bound of that rate, with arrivals of its own. Requests come from the
    scenario's `classes`, by their weights, if it has some; each must meet the `slo` of its class.
    """

    mixes_classes: ClassVar[bool] = True
    mistaken_keys: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("rate", "qps", "rps", "request_rate"), SEARCHED),
        "users": "unknown key; for the knee by users write `kind: sustained` and `users: [1, 2, 4, 8, 16]`",
        "duration": "unknown key; write `within: {value}`, the time for the whole search",
        "requests": "unknown key; write `within`, the time for the whole search",
    }

    kind: Literal["saturate"]
    within_s: PositiveSeconds = Field(
        default=900.0, alias="within", description="Longest time for search and measurement.", examples=["15m"]
    )
    measure_s: PositiveSeconds = Field(
        default=60.0, alias="measure", description="Time to measure at the lower bound of the rate.", examples=["60s"]
    )
    attainment: Annotated[Number, Field(gt=0.5, lt=1)] = Field(
        default=0.95, description="Share of the requests that must meet the `slo`.", examples=[0.95]
    )
    width: Annotated[Number, Field(ge=0.01, le=0.5)] = Field(
        default=0.066,
        description="The search ends when the rate is known so well: half the 90 % interval, as a share of the rate.",
        examples=[0.066],
    )
    first_rate: Positive = Field(default=1.0, description="First rate, which is doubled from there on.", examples=[1])
    largest_rate: Positive | None = Field(default=None, description="No higher rate is tried.", examples=[100])
    arrivals: Arrivals = Field(default="poisson", description=ARRIVALS)
    cv: Cv | None = Field(default=None, description=CV, examples=[2])

    @classmethod
    def check_keys(cls, given: Mapping[str, Any]) -> list[str]:
        problems = super().check_keys(given)
        if given.get("driver") == "locust":
            problems.append("`driver: locust` cannot change the rate while it runs; leave `driver` out")
        if given.get("workers", 1) not in ("auto", 1):
            problems.append("a search is sent by one process; leave `workers` out")
        if "warmup" in given:
            problems.append("a search warms up by itself; leave `warmup` out")
        return problems

    def irrelevant_keys(self) -> frozenset[str]:
        return frozenset({"warmup"})

    @property
    def gaps_variation(self) -> float:
        """Squared coefficient of variation of the gaps between arrivals."""
        return {"constant": 0.0, "poisson": 1.0}.get(self.arrivals, (self.cv or 1.0) ** 2)

    def expected_requests(self, workload: Workload = ONE_TURN) -> Range:
        """Return the range up to `largest_rate` all the time; without it there is no upper end."""
        low = self.first_rate * min(self.measure_s, self.within_s)
        return Range(low, None if self.largest_rate is None else max(low, self.largest_rate * self.within_s))

    def further_requests(self, workload: Workload = ONE_TURN) -> Range:
        return NOTHING if self.largest_rate is None else Range(0.0, self.largest_rate * self.timeout_s)

    def expected_time_s(self, workload: Workload = ONE_TURN) -> Range:
        return Range(self.within_s, self.within_s + self.timeout_s)
