"""Limits of a scenario, such as `chat.ttft_ms p95 <= 500ms`, and its `slo` for one request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from harness.metrics import METRICS, OF_CLASSES, PER, Metric, find
from harness.scenario.base import StrictModel, near
from harness.units import PositiveMilliseconds, format_duration, parse_bytes, parse_duration_s, parse_share

# Names of results by cache state, and prefix of those by backend, beside the scenario's classes.
CACHE_CLASSES, BACKEND_CLASS = ("cached", "uncached", "repeated", "original"), "backend:"
RESERVED_CLASSES = ("all", "default")  # groups of requests in results; no class may have these names
OPERATORS = ("<=", ">=", "<", ">")
_SHAPE = re.compile(
    r"\s*(?:(?P<class_name>backend:[^\s<>=]+|[\w-]+)\.)?(?P<metric>[\w-]+)(?:\s+(?P<statistic>[\w.]+))?"
    r"\s*(?P<op><=|>=|==|=<|=>|!=|<|>|=)\s*(?P<value>[^\s<>=*]+(?: ?[A-Za-z%/]+)?)"
    r"(?:\s*\*\s*(?P<base>[^<>=*]*[^\s<>=*])|\s+per\s+(?P<per>[^\s<>=*]+))?\s*"
)
_STATISTIC = re.compile(r"mean|max|min|p[1-9][0-9]?(\.[0-9]{1,3})?")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SCALES = {"W": {"m": 1e-3, "k": 1e3}, "J": {"k": 1e3, "M": 1e6}}


@dataclass(frozen=True, slots=True)
class Limit:
    """Bound on a statistic of a metric.

    Attributes:
        class_name: Class of traffic; None for all requests.
        statistic: "p95", "mean", "max" or "min"; "most per 300s" of a count per time; None for a metric with a single
            value.
        op: "<=", ">=", "<" or ">".
        value: Bound in the metric's unit; a factor if there is a `base`.
        text: Limit as written in the scenario.
        base: Variant whose value times the factor is the bound.
    """

    class_name: str | None
    metric: str
    statistic: str | None
    op: str
    value: float
    text: str
    base: str | None = None

    @property
    def subject(self) -> tuple[str | None, ...]:
        """Bounded quantity, the direction of the bound, and the variant that it refers to."""
        return self.class_name, self.metric, self.statistic, self.op[0], self.base


def parse_limit(text: str) -> Limit:
    """Return a limit from its text.

    Raises:
        ValueError: The text is no limit; the message contains the fix.
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        example = "`ttft_ms p95 <= 500` or `error_rate <= 0.01`"
        raise ValueError(f"{text!r} is not a limit; write `metric statistic op value`, such as {example}")
    name, op, bound = match["metric"], match["op"], f"{match['op']} {match['value']}"
    metric = find(name)
    if metric is None:
        raise ValueError(_unknown_metric(name, match["statistic"], bound))
    if op not in OPERATORS:
        raise ValueError(f"`{op}` cannot be used in a limit; write one of {', '.join(OPERATORS)}")
    if metric.per_time or match["per"]:
        statistic: str | None = _per_time(metric, name, match["statistic"], match["per"], bound)
    else:
        statistic = _statistic(metric, name, match["statistic"], bound)
    base = match["base"]
    value = _value(metric, name, match["value"]) if base is None else _factor(match["value"], base)
    return Limit(match["class_name"], name, statistic, op, value, " ".join(text.split()), base)


def _checked_limit(text: str) -> str:
    if why := _never_known(parse_limit(text)):
        raise ValueError(why)
    return text


def _never_known(limit: Limit) -> str | None:
    """Return why a well-formed limit cannot hold, or cannot be known, with the fix; None if it can."""
    metric = find(limit.metric)
    assert metric is not None
    if limit.class_name and metric.name not in OF_CLASSES:
        return f"`{limit.metric}` is not measured per class; leave `{limit.class_name}.` out"
    if limit.value < 0:
        return f"`{limit.metric}` is never negative; write a bound of at least 0"
    if metric.unit == "share" and limit.base is None and limit.value > 1:
        meant = "%" not in limit.text and limit.value <= 100
        percent = f"{limit.value:g}%" if meant else "5%" if limit.op[0] == "<" else "95%"
        return f"`{limit.metric}` is a share of at most 1; write `{limit.metric} {limit.op} {percent}`"
    return None


LimitText = Annotated[str, AfterValidator(_checked_limit)]


def is_split(class_name: str) -> bool:
    """Return True if a class is a split of the results and not a class of the scenario."""
    return class_name in CACHE_CLASSES or class_name.startswith(BACKEND_CLASS)


def override(base: Iterable[str], own: Sequence[str]) -> tuple[str, ...]:
    """Return the limits of `base` and `own`; a limit of `own` replaces those of `base` with the same subject."""
    replaced = {parse_limit(text).subject for text in own}
    return (*(text for text in base if parse_limit(text).subject not in replaced), *own)


def _unknown_metric(name: str, statistic: str | None, bound: str) -> str:
    swapped = next((one for one in (statistic, f"{statistic}_ms") if one and find(one)), None)
    if swapped and _STATISTIC.fullmatch(name):
        return f"the metric comes before the statistic; write `{swapped} {name} {bound}`"
    return f"unknown metric `{name}`; {near(name, METRICS)}"


def _statistic(metric: Metric, name: str, statistic: str | None, bound: str) -> str | None:
    if not metric.takes_statistics:
        if statistic is not None:
            raise ValueError(f"`{name}` has a single value; write `{name} {bound}` without `{statistic}`")
        return None
    return checked_statistic(name, statistic, bound)


def checked_statistic(name: str, statistic: str | None, bound: str) -> str:
    """Return the statistic of a distribution. Raises ValueError, with what to write before `bound`, if it is none."""
    if statistic is None:
        raise ValueError(f"`{name}` needs a statistic; write for example `{name} p95 {bound}`")
    if not _STATISTIC.fullmatch(statistic):
        raise ValueError(f"unknown statistic `{statistic}`; write p1 to p99.999, mean, max or min")
    return statistic


def _per_time(metric: Metric, name: str, statistic: str | None, per: str | None, bound: str) -> str:
    """Return the statistic of a count per time."""
    if not metric.per_time:
        known = ", ".join(f"`{one.name}`" for one in METRICS.values() if one.per_time)
        raise ValueError(f"`per` applies to counts only: {known}; write `{name}` without `per {per}`")
    if per is None or statistic is not None:
        bound = bound.removesuffix(" per")
        raise ValueError(f"`{name}` is counted per time; write `{name} {bound} per {per or '5m'}`")
    seconds = parse_duration_s(per)
    if seconds <= 0:
        raise ValueError(f"`per {per}` has no length; write for example `per 5m`")
    return f"{PER}{format_duration(seconds)}"


def _factor(text: str, base: str) -> float:
    """Return the factor of a limit against a variant."""
    if _NUMBER.fullmatch(text):
        return float(text)
    if text.endswith("%"):
        return parse_share(text)
    example = f"{base} * {text}" if _NUMBER.fullmatch(base) else f"1.1 * {base}"
    raise ValueError(f"`{text}` is no factor; write a number before the variant, such as `{example}`")


def _value(metric: Metric, name: str, text: str) -> float:
    """Return the bound in the metric's unit; a value with a unit is converted."""
    if _NUMBER.fullmatch(text):
        return float(text)
    if metric.unit in ("ms", "s"):
        return parse_duration_s(text) * (1000 if metric.unit == "ms" else 1)
    if metric.unit == "bytes":
        return float(parse_bytes(text))
    if metric.unit in ("share", "ratio"):
        if text.endswith("%"):
            return parse_share(text)
        raise ValueError(f"{text!r} is not a number; write `{name}` with a number without a unit")
    number = _in_unit(metric.unit, text)
    if number is None:
        what = "" if metric.unit == "count" else f" of {metric.unit}"
        raise ValueError(f"{text!r} is not a number{what}; write `{name}` with a number without a unit")
    return number


def _in_unit(unit: str, text: str) -> float | None:
    """Return the number before a unit: `300W`, `5kJ`, `100/s` or `100 tokens/s`; None if it is another unit."""
    number = _NUMBER.match(text)
    if number is None:
        return None
    written = text[number.end() :].strip()
    scales = {unit: 1.0, unit[unit.find("/") :]: 1.0} if "/" in unit else {unit: 1.0}
    scales |= {f"{prefix}{unit}": scale for prefix, scale in _SCALES.get(unit, {}).items()}
    return float(number[0]) * scales[written] if written in scales else None


class Slo(StrictModel):
    """Requirements that a good request meets. Goodput and SLO attainment follow from them."""

    mistaken_keys: ClassVar[Mapping[str, str]] = {"itl": "unknown key; write `tpot: {value}`"}

    ttft_ms: PositiveMilliseconds | None = Field(
        default=None, alias="ttft", description="Time to first token, as `ttft_ms`.", examples=["500ms"]
    )
    tpot_ms: PositiveMilliseconds | None = Field(
        default=None, alias="tpot", description="Time per output token after the first.", examples=["50ms"]
    )
    e2e_ms: PositiveMilliseconds | None = Field(
        default=None, alias="e2e", description="Time to the last token, as `e2e_ms`.", examples=["5s"]
    )
    stall_ms: PositiveMilliseconds | None = Field(
        default=None, alias="stall", description="Longest gap between two chunks of a reply.", examples=["1s"]
    )

    def overridden_by(self, other: Slo | None) -> Slo:
        """Return this SLO with the keys that `other` sets."""
        given = {} if other is None else {name: value for name, value in other if value is not None}
        return self.model_copy(update=given)
