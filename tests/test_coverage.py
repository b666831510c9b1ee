"""Coverage: of many runs of queues whose theory is known, how many intervals hold the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.analysis import stats
from harness.analysis.queue import NO_GUARD, TAIL, QueueGuard, guard
from harness.analysis.stats import Bound, Estimate, Floats
from tests import many_queues
from tests.estimates import quantile_estimate
from tests.many_queues import Queued

RUNS = 300
NS_PER_S = 1e9
CELLS: dict[str, Callable[[np.random.Generator, int], Queued]] = {
    "independent": lambda rng, runs: many_queues.independent(rng, runs, 500),
    "M/M/1 0.5": lambda rng, runs: many_queues.one_server(rng, runs, 1000, 0.5),
    "M/M/1 0.7": lambda rng, runs: many_queues.one_server(rng, runs, 1000, 0.7),
    "M/M/1 0.85": lambda rng, runs: many_queues.one_server(rng, runs, 4000, 0.85),
    "G/G/32 0.6": lambda rng, runs: many_queues.many_servers(rng, runs, 1000, 0.6),
    "G/G/32 0.7": lambda rng, runs: many_queues.many_servers(rng, runs, 4000, 0.7),
    "G/G/32 0.8": lambda rng, runs: many_queues.many_servers(rng, runs, 4000, 0.8),
    "G/G/32 0.92": lambda rng, runs: many_queues.many_servers(rng, runs, 4000, 0.92),
    "G/G/32 0.92, to the end": lambda rng, runs: many_queues.many_servers(rng, runs, 4000, 0.92, whole=True),
}


def own_size(sizes: dict[float, float], p: float) -> float:
    """The effective size for a level, the queue left aside."""
    return min(sizes[level] for level in (*(level for level in stats.GUARD_LEVELS if level < p), p))


def holds(found: Estimate, truth: float) -> bool:
    """Whether what is said is true: the interval, or the bound."""
    if found.bound is Bound.UPPER:
        return truth <= found.high
    return found.low <= truth and (found.bound is Bound.LOWER or truth <= found.high)


def guards_and_sizes(made: Queued) -> list[tuple[Floats, dict[float, float], QueueGuard]]:
    """Of each run its latencies, what they are worth by themselves, and the guard."""
    found = []
    for due, latency, ended in zip(made.due, made.latency, made.ended, strict=True):
        sizes = stats.sizes_by_level(latency, stats.LEVELS)
        tail = own_size(sizes, TAIL)
        found.append((latency, sizes, guard(due * NS_PER_S, np.sort(ended) * NS_PER_S, due * NS_PER_S, latency, tail)))
    return found


def coverage(made: Queued) -> dict[float, tuple[float, float]]:
    """By level: how often what we say is true, and how often it is a point and no bound."""
    runs = guards_and_sizes(made)
    found = {}
    for p, truth in made.truth.items():
        said = [
            quantile_estimate([latency], p, n_eff=own_size(sizes, p), m_cap=guarded.cap(p))
            for latency, sizes, guarded in runs
        ]
        points = float(np.mean([one.bound is Bound.POINT for one in said]))
        found[p] = float(np.mean([holds(one, truth) for one in said])), points
    return found


def naive_coverage(made: Queued, p: float) -> float:
    """The same of the interval for independent values."""
    said = [quantile_estimate([latency], p, n_eff=len(latency)) for latency in made.latency]
    return float(np.mean([holds(one, made.truth[p]) for one in said]))


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_nine_of_ten_intervals_hold_the_truth(cell: str) -> None:
    """Known answer 15: at p50, p95 and p99, whatever the queue; of independent values about 95 of 100 do, more where
    ranks are few.
    """
    found = coverage(CELLS[cell](np.random.default_rng(15), RUNS))
    assert min(share for share, _ in found.values()) >= 0.90, found
    if cell == "independent":
        assert 0.92 <= found[0.5][0] <= 0.99


@pytest.mark.slow
def test_the_interval_for_independent_values_fails_on_a_queue() -> None:
    """Known answer 15: the test above can fail: at 0.85 this interval holds the p95 in fewer than 3 runs of 10."""
    made = CELLS["M/M/1 0.85"](np.random.default_rng(15), RUNS)
    assert naive_coverage(made, 0.95) < 0.3
    assert coverage(made)[0.95][0] > 0.9
    independent = CELLS["independent"](np.random.default_rng(15), RUNS)
    assert naive_coverage(independent, 0.95) > 0.9


@pytest.mark.slow
def test_shares_of_a_queue_are_held_down_too() -> None:
    """Of how many requests were in time, nine of ten intervals hold the truth, and far fewer without the guard."""
    made = CELLS["G/G/32 0.92, to the end"](np.random.default_rng(16), RUNS)
    limit, truth = made.truth[0.5], 0.5

    def share_of(latency: Floats, cap: float) -> bool:
        found = stats.share_estimate([latency <= limit], caps=[cap])
        return found.low <= truth <= found.high

    runs = guards_and_sizes(made)
    assert np.mean([share_of(latency, guarded.cap(0.5)) for latency, _, guarded in runs]) >= 0.9
    assert np.mean([share_of(latency, NO_GUARD.cap(0.5)) for latency, _, _ in runs]) < 0.9
