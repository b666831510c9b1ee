"""Sample size: which quantiles a trial can give as a number, before it runs and after, and how long it must be for
the others.

A quantile needs ln(alpha / 2) / ln(p) independent requests, 72 for a p95 and 368 for a p99; with fewer it is a bound.
Requests that queue are worth fewer than their number, by how much nobody knows before the run: what is said before
is the least.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from harness.analysis import stats
from harness.metrics import find
from harness.scenario.limits import parse_limit

if TYPE_CHECKING:
    from harness.analysis.reading import Reading

LEVELS = (0.5, 0.95, 0.99)
HEADLINE = 0.95
METRICS = ("ttft_ms", "e2e_ms")


def limited(limits: Iterable[str]) -> Iterator[tuple[str, float]]:
    """The (registered metric, level) of each limit on a quantile of all requests."""
    for limit in map(parse_limit, limits):
        metric = find(limit.metric)
        if metric and not limit.class_name and limit.statistic and limit.statistic.startswith("p"):
            yield metric.name, float(limit.statistic[1:]) / 100


def sizes_of(reading: Reading) -> dict[str, dict[str, Any]]:
    """What the quantiles of a trial lack that are bounds for want of requests: "ttft_ms p99" -> level, needed and have
    (independent requests), n (requests) and times_longer (how many times as long it should have been).
    """
    asked = set(limited(reading.trial.limits))
    wanted = dict.fromkeys([(name, p) for name in METRICS for p in (HEADLINE, stats.LEVELS[-1])])
    wanted |= dict.fromkeys(sorted(one for one in asked if one[0] in reading.distributions))
    found = {}
    for name, p in wanted:
        held = reading.distributions[name]
        have, needed = held.effective_size(p), stats.floor_two_sided(p)
        if held.ordered.n and math.floor(have) < needed:
            size = {"level": p, "needed": needed, "have": have, "n": held.ordered.n}
            found[f"{name} {label(p)}"] = size | {"times_longer": needed / max(have, 1.0)}
    return found


def label(p: float) -> str:
    """A level as a statistic is called: p99.9."""
    return f"p{100 * p:.6g}"
