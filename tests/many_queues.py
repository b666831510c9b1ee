"""Queues whose theory is known, many runs at once: customers' waits and sojourns by recursion, one row per run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVELS = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Queued:
    """Many runs of a queue in its steady state, in seconds; arrays of shape (runs, customers).

    due: arrivals.   latency: what is observed of each.   ended: when it leaves.   truth: quantiles by level.
    """

    due: Floats
    latency: Floats
    ended: Floats
    truth: dict[float, float]


def independent(rng: np.random.Generator, runs: int, n: int) -> Queued:
    """Lognormal latencies, 100 ms in the median, that know nothing of each other, far apart."""
    due = np.arange(n) * 2.0 + np.zeros((runs, 1))
    latency = 0.1 * rng.lognormal(0, 1, (runs, n))
    truth = {0.5: 0.1, 0.95: 0.1 * math.exp(1.6448536), 0.99: 0.1 * math.exp(2.3263479)}
    return Queued(due, latency, due + latency, truth)


def one_server(rng: np.random.Generator, runs: int, n: int, utilisation: float) -> Queued:
    """M/M/1 with services of 100 ms, begun in the steady state: the sojourn is exponential, 0.1 s / (1 - utilisation).

    What is in flight is looked at every 100 ms: longer services would be looked at more often, to no other end.
    Lindley's recursion, solved: the wait is the walk of services less gaps above its least value so far.
    """
    gaps = 0.1 * rng.exponential(1 / utilisation, (runs, n))
    services = 0.1 * rng.exponential(1, (runs, n))
    first = 0.1 * np.where(rng.random(runs) < utilisation, rng.exponential(1 / (1 - utilisation), runs), 0.0)
    walk = np.concatenate([first[:, None], services[:, :-1] - gaps[:, 1:]], axis=1).cumsum(axis=1)
    waits = walk - np.minimum(0.0, np.minimum.accumulate(walk, axis=1))
    due = gaps.cumsum(axis=1)
    truth = {p: -0.1 * math.log(1 - p) / (1 - utilisation) for p in LEVELS}
    return Queued(due, waits + services, due + waits + services, truth)


def many_servers(
    rng: np.random.Generator, runs: int, n: int, utilisation: float, *, servers: int = 32, whole: bool = False
) -> Queued:
    """32 servers, Poisson arrivals, services lognormal with mean 2 s and CV^2 0.63: 16 requests/s at most.

    Kiefer and Wolfowitz' recursion over all runs at once, begun half a run early. Latency: the wait and a prefill of
    about 50 ms; whole: until the service ends. The truth is what all runs together say.
    """
    before = n // 2
    sigma2 = math.log(1.63)
    services = rng.lognormal(math.log(2.0) - sigma2 / 2, math.sqrt(sigma2), (n + before, runs))
    gaps = rng.exponential(2.0 / (servers * utilisation), (n + before, runs))
    busy = np.sort(rng.exponential(2.0, (runs, servers)) * (rng.random((runs, servers)) < utilisation), axis=1)
    waits = np.empty((n + before, runs))
    for i in range(n + before):
        busy -= gaps[i][:, None]
        np.maximum(busy, 0.0, out=busy)
        waits[i] = busy[:, 0]
        busy[:, 0] += services[i]
        busy.sort(axis=1)
    due, waits, services = (array[before:].T.copy() for array in (gaps.cumsum(axis=0), waits, services))
    latency = waits + (services if whole else rng.lognormal(math.log(0.05), 0.3, waits.shape))
    truth = {p: float(np.quantile(latency, p)) for p in LEVELS}
    return Queued(due, latency, due + waits + services, truth)
