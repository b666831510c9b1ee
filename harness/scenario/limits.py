"""Limits as a scenario writes them: `ttft_ms p95 <= 500`, `chat.tpot_ms p50 <= 50ms`; and the `slo` of one request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from harness.metrics import METRICS, Metric, find
from harness.scenario.base import StrictModel, near
from harness.units import PositiveMilliseconds, parse_bytes, parse_duration_s, parse_share

CACHE_CLASSES = ("cached", "uncached", "repeated", "original")
"""Names under which results are given beside those of the scenario's classes (`harness.analysis.reading`)."""
BACKEND_CLASS = "backend:"
"""How the names of such results begin that are of one backend (`harness.analysis.reading`)."""
OPERATORS = ("<=", ">=", "<", ">")
_EXAMPLE = "`ttft_ms p95 <= 500` or `error_rate <= 0.01`"
_SHAPE = re.compile(
    r"\s*(?:(?P<class_name>backend:[^\s<>=]+|[\w-]+)\.)?(?P<metric>[\w-]+)(?:\s+(?P<statistic>[\w.]+))?"
    r"\s*(?P<op><=|>=|==|=<|=>|!=|<|>|=)\s*(?P<value>[^\s<>=]+(?: ?[A-Za-z%]+)?)\s*"
)
_QUANTILE = re.compile(r"p(?P<percent>[1-9][0-9]?(\.[0-9]{1,3})?)")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on one statistic of one metric, of one class of the traffic or (None) of all.

    statistic: "p95", "mean", "max" or "min"; None for a metric that is one number.   value: in the metric's unit.
    op: "<=", ">=", "<" or ">".   text: as it was written.
    """

    class_name: str | None
    metric: str
    statistic: str | None
    op: str
    value: float
    text: str

    @property
    def subject(self) -> tuple[str | None, str, str | None, str]:
        """What is bounded, and from which side."""
        return self.class_name, self.metric, self.statistic, self.op[0]


def parse_limit(text: str) -> Limit:
    """A limit from its text; raises ValueError with one sentence that says what to write instead."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a limit; write `metric statistic op value`, such as {_EXAMPLE}")
    name, op = match["metric"], match["op"]
    metric = find(name)
    if metric is None:
        raise ValueError(f"there is no metric `{name}`; {near(name, METRICS)}")
    if op not in OPERATORS:
        raise ValueError(f"`{op}` cannot be used in a limit; write one of {', '.join(OPERATORS)}")
    statistic = _statistic(metric, name, match["statistic"], f"{op} {match['value']}")
    return Limit(match["class_name"], name, statistic, op, _value(metric, name, match["value"]), " ".join(text.split()))


def _checked_limit(text: str) -> str:
    parse_limit(text)
    return text


LimitText = Annotated[str, AfterValidator(_checked_limit)]
RESERVED_CLASSES = ("all", "default")
"""Names of groups of requests in results, which no class may have, beside those of splits."""


def is_split(class_name: str) -> bool:
    """Whether a class is none of the scenario's, but one that results are split into."""
    return class_name in CACHE_CLASSES or class_name.startswith(BACKEND_CLASS)


def override(base: Iterable[str], own: Iterable[str]) -> tuple[str, ...]:
    """The limits `base` with those of `own` added; one of `own` replaces those of `base` with the same subject."""
    mine = tuple(own)
    replaced = {parse_limit(text).subject for text in mine}
    return (*(text for text in base if parse_limit(text).subject not in replaced), *mine)


def _statistic(metric: Metric, name: str, statistic: str | None, bound: str) -> str | None:
    if not metric.takes_statistics:
        if statistic is not None:
            raise ValueError(f"`{name}` is one number; write `{name} {bound}` without `{statistic}`")
        return None
    if statistic is None:
        raise ValueError(f"`{name}` differs from request to request; say which, such as `{name} p95 {bound}`")
    if statistic not in ("mean", "max", "min") and not _QUANTILE.fullmatch(statistic):
        raise ValueError(f"there is no statistic `{statistic}`; write p1 to p99.9, mean, max or min")
    return statistic


def _value(metric: Metric, name: str, text: str) -> float:
    """Return the number in the metric's unit; a value with a unit is converted."""
    if _NUMBER.fullmatch(text):
        return float(text)
    if metric.unit in ("ms", "s"):
        return parse_duration_s(text) * (1000 if metric.unit == "ms" else 1)
    if metric.unit == "bytes":
        return float(parse_bytes(text))
    if text.endswith("%"):
        return parse_share(text)
    raise ValueError(f"{text!r} is not a number; `{name}` needs a bare one")


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
