"""Sample size: which quantiles a trial can report as a number, and how long it must be for the others.

A quantile needs ln(alpha / 2) / ln(p) independent requests, 72 for a p95 and 368 for a p99; with fewer it is a bound.
Queueing lowers the effective sample size, by an unknown factor before the run: a forecast is a lower limit.
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
    """Yield the (registered metric, level) of each limit on a quantile of all requests."""
    for limit in map(parse_limit, limits):
        metric = find(limit.metric)
        if metric and not limit.class_name and limit.statistic and limit.statistic.startswith("p"):
            yield metric.name, float(limit.statistic[1:]) / 100


def sizes_of(reading: Reading) -> dict[str, dict[str, Any]]:
    """Return the quantiles of a trial that are bounds because there are too few requests, as "ttft_ms p99".

    Each has level, needed and have (effective sample sizes), n (requests) and times_longer (required length of the
    trial over its length).
    """
    limits = set(limited(reading.trial.limits))
    wanted = dict.fromkeys([(name, p) for name in METRICS for p in (HEADLINE, stats.LEVELS[-1])])
    wanted |= dict.fromkeys(sorted(one for one in limits if one[0] in reading.distributions))
    found = {}
    for name, p in wanted:
        held = reading.distributions[name]
        have, needed = held.effective_size(p), stats.floor_two_sided(p)
        if held.ordered.n and math.floor(have) < needed:
            size = {"level": p, "needed": needed, "have": have, "n": held.ordered.n}
            found[f"{name} {label(p)}"] = size | {"times_longer": needed / max(have, 1.0)}
    return found


def label(p: float) -> str:
    """Return a level as the name of a statistic: p99.9."""
    return f"p{100 * p:.6g}"
