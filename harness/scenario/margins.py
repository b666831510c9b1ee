"""Margins: how much worse a number may become before it counts as a regression.

`ttft p95 +10%` as an option of the command, or the defaults for the numbers that gate by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.metrics import METRICS, QUALITY, SCALAR, Direction, Metric, find
from harness.scenario.base import near
from harness.scenario.limits import checked_statistic

_SHAPE = re.compile(
    r"\s*(?:(?P<class_name>[\w-]+)\.)?(?P<metric>[\w-]+)(?:\s+(?P<statistic>[\w.]+))?"
    r"\s*(?P<sign>[-+])\s*(?P<size>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>%|pp|)\s*"
)
_SHORT = {"kl": "kl_mean", "top1": "top1_agreement"}
OF_QUALITY = tuple(_SHORT.values())
"""Figures of quality that gate, each against the same reference on both sides."""
_EXAMPLE = "such as `ttft p95 +10%`, `output_tokens_per_s -5%` or `error_rate +0.5pp`"


class Scale(StrEnum):
    """How two numbers are compared: by their ratio, or by their difference."""

    RATIO = "ratio"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True)
class Margin:
    """Margin of a statistic.

    Attributes:
        metric: Registered name.
        statistic: "p95", "mean", ..., or "value" for a metric with a single value.
        size: Worsening that is still accepted: 0.1 for 10 % or for 10 percentage points; of a divergence in nats.
        class_name: Class of traffic; "all" for all requests.
        text: As written; "" for a default.
    """

    metric: str
    statistic: str
    size: float
    class_name: str = "all"
    text: str = ""

    @property
    def scale(self) -> Scale:
        return scale_of(METRICS[self.metric])

    @property
    def more_is_worse(self) -> bool:
        return METRICS[self.metric].direction is not Direction.HIGHER

    @property
    def of_quality(self) -> bool:
        """Whether it is about the distance from a reference, which every start of a side has in common."""
        return self.metric in OF_QUALITY

    def from_sent(self) -> Margin:
        """Return the margin of the same number from sent; of itself if it is the same from any start."""
        twin = f"{self.metric.removesuffix('_ms')}_service_ms"
        return replace(self, metric=twin) if twin in METRICS else self

    @property
    def guards(self) -> bool:
        """Whether a number counts only if it rises: too few requests fail for "no more than 0.1 points" to be sure."""
        return self.metric == "error_rate"

    @property
    def worse(self) -> float:
        """Change, a ratio or a difference, beyond which the number is worse."""
        if self.scale is Scale.DIFFERENCE:
            return self.size if self.more_is_worse else -self.size
        return 1 + self.size if self.more_is_worse else 1 - self.size

    @property
    def better(self) -> float:
        """Change beyond which it is better by as much."""
        if self.scale is Scale.DIFFERENCE:
            return -self.worse
        return 1 / self.worse


def scale_of(metric: Metric) -> Scale:
    """Return how a metric is compared: shares and divergences by their difference, all else by its ratio."""
    return Scale.DIFFERENCE if metric.unit in ("share", _NATS) else Scale.RATIO


_DEFAULTS = {
    ("ttft_ms", "p50"): 0.05,
    ("ttft_ms", "p95"): 0.08,
    ("tpot_ms", "p50"): 0.03,
    ("e2e_ms", "p50"): 0.05,
    ("e2e_ms", "mean"): 0.03,
    ("e2e_ms", "p95"): 0.08,
    ("output_tokens_per_s", SCALAR): 0.03,
    ("completed_rps", SCALAR): 0.03,
    ("attainment", SCALAR): 0.01,
    ("error_rate", SCALAR): 0.001,
    ("memory_peak_bytes", SCALAR): 0.01,
    ("gpu_memory_peak_bytes", SCALAR): 0.01,
}
# What a step may lose that is called near-lossless (docs/quality.md).
_DEFAULTS |= {("kl_mean", SCALAR): 0.001, ("top1_agreement", SCALAR): 0.015}
_TAIL, _OTHER, _SHARE = 0.1, 0.05, 0.01
_NATS = "nats"


def default_margin(metric: str, statistic: str) -> Margin:
    """Return the margin of a number that nobody stated."""
    share = scale_of(METRICS[metric]) is Scale.DIFFERENCE
    usual = _SHARE if share else _TAIL if statistic in ("p95", "p99", "max") else _OTHER
    return Margin(metric, statistic, _DEFAULTS.get((metric, statistic), usual))


def parse_margin(text: str) -> Margin:
    """Return a margin from its text. Raises ValueError, with the fix, if it is none."""
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no margin; write `metric statistic +size`, {_EXAMPLE}")
    metric = next((one for name in _names(match["metric"]) if (one := find(name))), None)
    if metric is None:
        raise ValueError(f"unknown metric `{match['metric']}`; {near(match['metric'], METRICS)}")
    if metric.direction is Direction.NONE or metric.per_time:
        raise ValueError(f"`{metric.name}` is neither better nor worse; choose a metric {_EXAMPLE}")
    if metric.name in QUALITY and metric.name not in OF_QUALITY:
        raise ValueError(f"`{metric.name}` does not gate; write `kl +0.01` (nats) or `top1 -0.5pp`")
    if (metric.unit == _NATS) == bool(match["unit"]):
        size = (
            f"`{match['metric']} +0.01`, in nats" if metric.unit == _NATS else f"`metric statistic +size`, {_EXAMPLE}"
        )
        raise ValueError(f"{text!r} is no margin; write {size}")
    margin = Margin(
        metric.name,
        _statistic(metric, match["statistic"]),
        float(match["size"]) / (100 if match["unit"] else 1),
        match["class_name"] or "all",
        " ".join(text.split()),
    )
    _check(margin, metric, match["sign"], match["unit"])
    return margin


def margin_of(number: str, size: str) -> Margin:
    """Return the margin of a number such as "ttft p95" with a size such as 10%. Raises ValueError as `parse_margin`."""
    metric = metric_of(number)
    sign = "-" if metric is not None and metric.direction is Direction.HIGHER else "+"
    return parse_margin(f"{number} {size if size.strip().startswith(('+', '-')) else sign + size}")


def margin_by_default(number: str) -> Margin:
    """Return a number such as "ttft p95" with its default margin. Raises ValueError as `parse_margin`."""
    metric = metric_of(number)
    unit = "%" if metric is None or scale_of(metric) is Scale.RATIO else "" if metric.unit == _NATS else "pp"
    named = margin_of(number, f"1{unit}")
    size = default_margin(named.metric, named.statistic).size
    return margin_of(number, f"{100 * size if unit else size:g}{unit}")


def statistics_of(margins: Iterable[Margin]) -> set[tuple[str, str]]:
    """Return the (metric, statistic) pairs that margins ask for."""
    return {(one.metric, one.statistic) for one in margins if one.statistic != SCALAR}


def metric_of(number: str) -> Metric | None:
    """Return the metric of a number such as "chat.ttft p95"; None if there is none of its name."""
    name = number.split()[0].rpartition(".")[2] if number.split() else ""
    return next((one for known in _names(name) if (one := find(known))), None)


def _names(name: str) -> tuple[str, ...]:
    return name, f"{name}_ms", _SHORT.get(name, name)


def _statistic(metric: Metric, statistic: str | None) -> str:
    if not metric.takes_statistics:
        if statistic is not None:
            raise ValueError(f"`{metric.name}` has a single value; leave out `{statistic}`")
        return SCALAR
    return checked_statistic(metric.name, statistic, "+10%")


def _check(margin: Margin, metric: Metric, sign: str, unit: str) -> None:
    """Raise ValueError for a sign or a unit that means nothing for the metric."""
    named = metric.name if margin.statistic == SCALAR else f"{metric.name} {margin.statistic}"
    size = f"{margin.size * (100 if unit else 1):g}"
    wanted = "+" if margin.more_is_worse else "-"
    if sign != wanted:
        word = "more" if margin.more_is_worse else "less"
        raise ValueError(f"`{metric.name}` is worse when it is {word}; write `{named} {wanted}{size}{unit}`")
    of_share = metric.unit == "share"
    if unit and of_share != (unit == "pp"):
        right = "pp" if of_share else "%"
        why = "changes by percentage points" if of_share else "changes by a share of itself"
        raise ValueError(f"`{metric.name}` {why}; write `{named} {wanted}{size}{right}`")
    if margin.scale is Scale.RATIO and not margin.more_is_worse and margin.size >= 1:
        raise ValueError(f"`{named}` cannot fall by {size} %; write less than 100 %")
