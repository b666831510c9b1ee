"""Coverage: of many runs of a queue whose truth is known, how many intervals hold it, and how many are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.analysis.effective import Dependence, Sizes
from harness.analysis.queue import guard
from harness.analysis.stats import Bound, Estimate, Floats, Ordered, ordered_quantile
from tests import many_queues
from tests.many_queues import Queued

NS_PER_S = 1e9
GOOD = 0.10
CELLS: dict[str, Callable[[np.random.Generator, int], Queued]] = {
    "independent, 500": lambda rng, runs: many_queues.independent(rng, runs, 500),
    "M/M/1 at 0.5, 1,000": lambda rng, runs: many_queues.one_server(rng, runs, 1000, 0.5),
    "M/M/1 at 0.7, 1,000": lambda rng, runs: many_queues.one_server(rng, runs, 1000, 0.7),
    "M/M/1 at 0.85, 4,000": lambda rng, runs: many_queues.one_server(rng, runs, 4000, 0.85),
    "32 servers at 0.6, 1,000": lambda rng, runs: many_queues.many_servers(rng, runs, 1000, 0.6),
    "32 servers at 0.7, 450": lambda rng, runs: many_queues.many_servers(rng, runs, 450, 0.7),
    "32 servers at 0.95, 150, to the end": lambda rng, runs: many_queues.many_servers(rng, runs, 150, 0.95, whole=True),
    "32 servers at 0.7, 4,000": lambda rng, runs: many_queues.many_servers(rng, runs, 4000, 0.7),
    "32 servers at 0.8, 4,000": lambda rng, runs: many_queues.many_servers(rng, runs, 4000, 0.8),
    "32 servers at 0.92, 4,000": lambda rng, runs: many_queues.many_servers(rng, runs, 4000, 0.92),
    "32 servers at 0.92, 4,000, to the end": lambda rng, runs: many_queues.many_servers(
        rng, runs, 4000, 0.92, whole=True
    ),
    "batching, small, at 0.2, 300": lambda rng, runs: many_queues.batching(rng, runs, 300, 5, large=False),
    "batching, small, at 0.5, 600": lambda rng, runs: many_queues.batching(rng, runs, 600, 12, large=False),
    "batching, large, at 0.4, 1,200": lambda rng, runs: many_queues.batching(rng, runs, 1200, 40, large=True),
    "batching, large, at 0.8, 2,400": lambda rng, runs: many_queues.batching(rng, runs, 2400, 80, large=True),
    "64 users, no queue, 1,000": lambda rng, runs: many_queues.closed_loop(rng, runs, 1000, 64, None),
    "32 users on 16 slots, 600": lambda rng, runs: many_queues.closed_loop(rng, runs, 600, 32, 16),
    "256 users on 128 slots, 2,560": lambda rng, runs: many_queues.closed_loop(rng, runs, 2560, 256, 128),
    "64 users in lockstep, 960": lambda rng, runs: many_queues.lockstep(rng, runs, 64, 15),
    "8 users in lockstep, 320": lambda rng, runs: many_queues.lockstep(rng, runs, 8, 40),
    "4 users, busy machine, 1,200": lambda rng, runs: many_queues.busy_machine(rng, runs, 1200, 4),
}


@dataclass(frozen=True)
class Covered:
    """Shares of the runs: whose interval holds the truth; whose interval has one end; whose value is near the truth;
    whose value is near it and whose interval has one end.
    """

    holds: float
    open: float
    good: float
    good_open: float


def dependence_of(made: Queued, run: int) -> Dependence:
    """What makes the latencies of a run alike."""
    due, n = made.due[run] * NS_PER_S, made.latency.shape[1]
    found = guard(due, np.sort(made.ended[run]) * NS_PER_S, due[-n:], made.users or 0)
    return found.dependence(due[-n:])


def estimates(made: Queued, *, independent: bool = False) -> Iterator[dict[float, Estimate]]:
    """Each run's estimates by level. independent: as if no request knew of another."""
    for run, latency in enumerate(made.latency):
        ordered, n = Ordered.of(latency), float(len(latency))
        sizes = None if independent else Sizes(latency, ordered, dependence_of(made, run))
        yield {
            p: ordered_quantile(ordered, ordered, [ordered], p, n if sizes is None else sizes.at(p).n_eff)
            for p in made.truth
        }


def coverage(made: Queued, *, independent: bool = False) -> dict[float, Covered]:
    """By level."""
    every = list(estimates(made, independent=independent))
    return {p: covered([one[p] for one in every], truth) for p, truth in made.truth.items()}


def covered(found: list[Estimate], truth: float) -> Covered:
    """Of the estimates of many runs."""
    holds = [one.low <= truth <= one.high for one in found]
    is_open = np.array([one.bound is not Bound.POINT for one in found])
    good = np.array([abs(one.value / truth - 1) < GOOD for one in found])
    return Covered(*(float(np.mean(flags)) for flags in (holds, is_open, good, good & is_open)))


def of_cell(name: str, runs: int, seed: int = 15) -> Queued:
    """So many runs of a cell."""
    return CELLS[name](np.random.default_rng(seed), runs)


def as_flags(latency: Floats, limit: float) -> Floats:
    """Which requests were in time, 1 or 0."""
    return (latency <= limit).astype(np.float64)
