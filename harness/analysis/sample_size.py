"""Sample size: what the requests of a trial are worth at the quantiles that matter, and what those need.

An interval with two ends needs ln(alpha) / ln(p) independent requests, 59 for a p95 and 299 for a p99. Queueing lowers
the effective sample size, by an unknown factor before the run: a forecast is a lower limit.
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
METRICS = ("ttft_ms", "tpot_ms", "e2e_ms")


def limited(limits: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Yield the (registered metric, level) of each limit on a quantile of all requests."""
    for limit in map(parse_limit, limits):
        metric = find(limit.metric)
        if metric and not limit.class_name and limit.statistic and limit.statistic.startswith("p"):
            yield metric.name, float(limit.statistic[1:]) / 100


def sizes_of(reading: Reading) -> dict[str, dict[str, Any]]:
    """Return what the quantiles of a trial rest on, as "ttft_ms p99": those of METRICS at LEVELS, and those of limits.

    Each has level, n (requests), n_eff (what they are worth), needed (n_eff for an interval with two ends), explained
    (R2 of the requests in flight), states (of the requests in flight; None unknown) and times_longer (required length
    of the trial over its length; 1 where it was enough).
    """
    wanted = dict.fromkeys((name, p) for name in METRICS for p in LEVELS)
    wanted |= dict.fromkeys(
        sorted(one for one in set(limited(reading.trial.limits)) if one[0] in reading.distributions)
    )
    states = reading.guard.as_fact()["states"]
    found = {}
    for name, p in wanted:
        size, needed = reading.distributions[name].size(p), stats.floor_two_sided(p)
        if size.n:
            lacking = math.floor(size.n_eff) < needed
            found[f"{name} {label(p)}"] = {
                "level": p,
                "n": size.n,
                "n_eff": size.n_eff,
                "needed": needed,
                "explained": size.explained,
                "states": states,
                "times_longer": needed / max(size.n_eff, 1.0) if lacking else 1.0,
            }
    return found


def label(p: float) -> str:
    """Return a level as the name of a statistic: p99.9."""
    return f"p{100 * p:.6g}"
