"""Tolerance: by how much a shown number may be off before a doubt is raised about it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness.analysis.stats import Floats, quantile
from harness.metrics import METRICS, find
from harness.scenario.limits import Limit, parse_limit
from harness.verdict import thresholds
from harness.verdict.reason import Effect

SHOWN = ("p50", "p95", "p99")
"""Quantiles of latencies that a report shows."""
_GOOD = ("attainment", "goodput_rps")
WITH = {
    "ttft_ms": ("ttft_ms", "ttfo_ms", *_GOOD),
    "e2e_ms": ("e2e_ms", "e2e_close_ms", "norm_latency_ms", *_GOOD),
    "tpot_ms": ("tpot_ms", "tpot_adj_ms", "output_tokens_per_s_per_user", *_GOOD),
}
"""Metrics that are off where one is."""
_PER_TOKEN = frozenset({"tpot_ms", "tpot_adj_ms", "itl_ms", "icl_ms"})  # a floor of 1 ms would hide all of it
WORDS = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "E2E", "output_tokens_per_s": "output tokens/s"}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a number may be off, and the limits that it must not cross."""

    share: float = thresholds.TOLERANCE.value
    limits: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, share: float | None, limits: Iterable[str]) -> Tolerance:
        """Take the scenario's `tolerance` and limits; limits of a class, and against a variant, are left out."""
        absolute = (one for one in map(parse_limit, limits) if one.class_name is None and one.base is None)
        known = [replace(one, metric=metric.name) for one in absolute if (metric := find(one.metric)) is not None]
        return cls(thresholds.TOLERANCE.value if share is None else share, tuple(known))

    @property
    def of_rates(self) -> float:
        return thresholds.RATE_FACTOR.value * self.share

    def allowed(self, metric: str, statistic: str, value: float) -> float:
        """Return how far the number may be off, in its unit; latencies at least FLOOR_MS."""
        known = METRICS[metric]
        if not known.takes_statistics:
            return self.of_rates * abs(value)
        tail = statistic == "max" or (statistic.startswith("p") and _level(statistic) >= thresholds.TAIL.value)
        share = self.share * (thresholds.TAIL_FACTOR.value if tail else 1.0)
        floor = thresholds.FLOOR_MS.value if known.unit == "ms" and metric not in _PER_TOKEN else 0.0
        return max(share * abs(value), floor)

    def times(self, effect: Effect) -> float:
        """Return an effect as a multiple of what is allowed; at least 1 if a limit would fall differently."""
        allowed = self.allowed(effect.metric, effect.statistic, min(abs(effect.value), abs(effect.low)))
        times = effect.off / allowed if allowed > 0 else math.inf if effect.off > 0 else 0.0
        return max(times, 1.0) if self._crosses(effect) else times

    def _crosses(self, effect: Effect) -> bool:
        bounds = [one.value for one in self.limits if (one.metric, one.statistic) == (effect.metric, effect.statistic)]
        return any(effect.low < bound < effect.high for bound in bounds)

    def effects_on(self, metric: str, shown: Floats, others: Floats) -> list[Effect]:
        """Return quantiles of the shown values, with the same of the others as the other end.

        They are those that a report shows, and those of limits. Quantiles that are censored are left out.
        """
        if not len(shown) or not len(others):
            return []
        own = (one.statistic for one in self.limits if one.metric == metric and one.statistic)
        limited = {name: _level(name) for name in own if name.startswith("p")}
        found = []
        for statistic, p in (shown_statistics(len(shown)) | limited).items():
            value, other = quantile(shown, p), quantile(others, p)
            if math.isfinite(value) and math.isfinite(other):
                found.append(Effect(metric, statistic, value, min(value, other), max(value, other)))
        return found

    def largest(self, effects: Iterable[Effect]) -> tuple[tuple[Effect, ...], float]:
        """Return the effects that are not tolerated, the largest first, and the largest as a multiple."""
        sized = sorted(((self.times(one), one) for one in effects), key=lambda one: -one[0])
        kept = [(times, one) for times, one in sized if times > 1 or (times == 1 and self._crosses(one))]
        return tuple(one for _, one in kept), kept[0][0] if kept else 0.0


def _level(statistic: str) -> float:
    return float(statistic[1:]) / 100


def shown_statistics(n: int) -> dict[str, float]:
    """Return the quantiles that are judged of so many observations; p99 only where there are enough."""
    enough = n >= thresholds.LEAST_FOR_P99.value
    return {name: p for name in SHOWN if (p := _level(name)) < thresholds.TAIL.value or enough}


def doubted(effects: Iterable[Effect]) -> tuple[str, ...]:
    """Return the metrics that are off if some effects are."""
    names = (name for one in effects for name in WITH.get(one.metric, (one.metric,)))
    return tuple(dict.fromkeys(names))


def without(effect: Effect) -> str:
    """Return a shown number, and that without a part of the requests: "TTFT p95 is 250 ms, 86.0 ms without"."""
    other = effect.high if effect.value == effect.low else effect.low
    return f"{_subject(effect)} is {number(effect.value)} {_unit(effect)}, {number(other)} {_unit(effect)} without"


def in_words(effect: Effect) -> str:
    """Return the ends of a shown number: "TTFT p95 is 63.2 to 99.6 ms"."""
    return f"{_subject(effect)} is {number(effect.low)} to {number(effect.high)} {_unit(effect)}"


def _subject(effect: Effect) -> str:
    name = WORDS.get(effect.metric, effect.metric)
    return f"{name} {effect.statistic}" if METRICS[effect.metric].takes_statistics else name


def _unit(effect: Effect) -> str:
    return METRICS[effect.metric].unit


def number(value: float) -> str:
    """Return a number for a sentence, with three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:#.3g}".rstrip(".")
