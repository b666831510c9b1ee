"""Queues whose theory is known, many runs at once: customers' waits and sojourns by recursion, one row per run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVELS = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Queued:
    """Many runs of a queue in its steady state, in seconds.

    due, ended: arrivals and departures, shape (runs, all), the former ascending.   latency: what is observed, shape
    (runs, n): of the last n.   truth: quantiles by level.   users: who send again when they are served; None: an open
    loop.
    """

    due: Floats
    latency: Floats
    ended: Floats
    truth: dict[float, float]
    users: int | None = None

    def shortened(self, n: int) -> Queued:
        """The first n of those that are observed, and all before them; the truth stays."""
        upto = self.due.shape[1] - self.latency.shape[1] + n
        return replace(self, due=self.due[:, :upto], ended=self.ended[:, :upto], latency=self.latency[:, :n])


def by_all(latency: Floats) -> dict[float, float]:
    """The truth as all runs together say."""
    return {p: float(np.quantile(latency, p)) for p in LEVELS}


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
    due, waits, services = (array.T.copy() for array in (gaps.cumsum(axis=0), waits, services))
    latency = waits + (services if whole else rng.lognormal(math.log(0.05), 0.3, waits.shape))
    return Queued(due, latency[:, before:], due + waits + services, by_all(latency[:, before:]))


def long_queues(
    rng: np.random.Generator, runs: int, n: int, servers: int, utilisation: float, cv: float
) -> Iterator[tuple[bool, Queued]]:
    """One queue with Poisson arrivals and lognormal services (mean 2 s) twice: to the first token, and to the end.

    It is begun empty 5,000 requests early, of which the last 1,500 are given. The truth is what all runs together say.
    """
    before, kept, every = 5000, 1500, np.arange(runs)
    sigma2 = math.log(1 + cv * cv)
    services = rng.lognormal(math.log(2.0) - sigma2 / 2, math.sqrt(sigma2), (n + before, runs))
    due = rng.exponential(2.0 / (servers * utilisation), services.shape).cumsum(axis=0)
    waits, free = np.empty(due.shape), np.zeros((runs, servers))
    for i in range(n + before):
        first = free.argmin(axis=1)
        waits[i] = np.maximum(0.0, free[every, first] - due[i])
        free[every, first] = due[i] + waits[i] + services[i]
    ended = (due + waits + services)[before - kept :].T.copy()
    due, waits, services = (array[before - kept :].T.copy() for array in (due, waits, services))
    prefills = np.minimum(services, rng.lognormal(math.log(0.05), 0.3, waits.shape))
    for whole, latency in ((False, waits + prefills), (True, waits + services)):
        yield whole, Queued(due, latency[:, kept:], ended, by_all(latency[:, kept:]))


def batching(rng: np.random.Generator, runs: int, n: int, rate: float, *, large: bool) -> Queued:
    """A server that makes one token of each running reply in a step, with Poisson arrivals; replies of 67 tokens in the
    median. Latency: to the first token.

    A step takes longer the more replies run and the more begin with it, at most four. large: 40 run at a rate of 40/s.
    """
    step_s, each_s, prefill_s = (0.008, 0.00008, 0.002) if large else (0.010, 0.0004, 0.006)
    before, slots, every = 800, 256, np.arange(runs)
    due = rng.exponential(1 / rate, (runs, n + before)).cumsum(axis=1)
    tokens = np.maximum(1, rng.lognormal(4.2, 0.7, due.shape)).astype(np.int64)
    coming = np.concatenate([due, np.full((runs, 4), np.inf)], axis=1)
    first, ended = np.zeros_like(due), np.zeros_like(due)
    now, begun = np.zeros(runs), np.zeros(runs, dtype=np.int64)
    left, whose = np.zeros((2, runs, slots), dtype=np.int64)
    while (begun < n + before).any() or left.any():
        running = (left > 0).sum(axis=1)
        now = np.where((running == 0) & (begun < n + before), np.maximum(now, coming[every, begun]), now)
        new = np.minimum(
            (coming[every[:, None], begun[:, None] + np.arange(4)] <= now[:, None]).sum(axis=1), slots - running
        )
        now += np.where(running + new > 0, step_s + each_s * (running + new) + prefill_s * new, 0.0)
        last = left == 1
        ended[np.nonzero(last)[0], whose[last]] = now[np.nonzero(last)[0]]
        left -= left > 0
        for k in range(4):
            some = np.flatnonzero(new > k)
            reply, slot = begun[some] + k, left[some].argmin(axis=1)
            first[some, reply] = ended[some, reply] = now[some]
            left[some, slot], whose[some, slot] = tokens[some, reply] - 1, reply
        begun += new
    latency = (first - due)[:, before:]
    return Queued(due, latency, ended, by_all(latency))


def batching_users(rng: np.random.Generator, runs: int, n: int, users: int) -> Queued:
    """The small server of `batching` with users who send again at once; all of their replies run together."""
    before, every = 24 * users, np.arange(runs)
    tokens = np.maximum(2, rng.lognormal(4.2, 0.7, (runs, n + before))).astype(np.int64)
    due, first, ended = np.full((3, *tokens.shape), np.inf)
    due[:, :users] = np.sort(rng.uniform(0, 0.001, (runs, users)), axis=1)
    now, begun, sent = np.zeros(runs), np.zeros(runs, dtype=np.int64), np.full(runs, min(users, n + before))
    left, whose = np.zeros((2, runs, users), dtype=np.int64)
    while (begun < n + before).any():
        running = (left > 0).sum(axis=1)
        places = np.minimum(begun[:, None] + np.arange(4), n + before - 1)
        waiting = (begun[:, None] + np.arange(4) < sent[:, None]) & np.isfinite(due[every[:, None], places])
        idle = (running == 0) & waiting[:, 0]
        now = np.where(idle, np.maximum(now, due[every, places[:, 0]]), now)
        new = (waiting & (due[every[:, None], places] <= now[:, None])).sum(axis=1)
        now += np.where(running + new > 0, 0.010 + 0.0004 * (running + new) + 0.006 * new, 0.0)
        for run, slot in zip(*np.nonzero(left == 1), strict=True):
            ended[run, whose[run, slot]] = now[run]
            if sent[run] < n + before:
                due[run, sent[run]] = now[run]
                sent[run] += 1
        left -= left > 0
        for k in range(4):
            some = np.flatnonzero(new > k)
            reply, slot = begun[some] + k, left[some].argmin(axis=1)
            first[some, reply] = now[some]
            left[some, slot], whose[some, slot] = tokens[some, reply] - 1, reply
        begun += new
    latency = (first - due)[:, before:]
    return Queued(due, latency, np.where(np.isfinite(ended), ended, now[:, None] + 1), by_all(latency), users)


def closed_loop(rng: np.random.Generator, runs: int, n: int, users: int, slots: int | None) -> Queued:
    """Users who send again at once, services lognormal with mean 1 s, on some slots, or on enough (None).

    Latency: the wait and a prefill of about 50 ms.
    """
    before, every = 2 * users, np.arange(runs)
    ready, free = np.zeros((runs, users)), np.zeros((runs, slots or users))
    due, latency, ended = np.empty((3, runs, n + before))
    services, prefills = rng.lognormal(-0.32, 0.8, due.shape), rng.lognormal(math.log(0.05), 0.1, due.shape)
    for i in range(n + before):
        user, slot = ready.argmin(axis=1), free.argmin(axis=1)
        due[:, i] = ready[every, user]
        begun = np.maximum(due[:, i], free[every, slot]) if slots else due[:, i]
        ended[:, i] = free[every, slot] = ready[every, user] = begun + np.maximum(services[:, i], prefills[:, i])
        latency[:, i] = begun - due[:, i] + prefills[:, i]
    return Queued(due, latency[:, before:], ended, by_all(latency[:, before:]), users)


def lockstep(rng: np.random.Generator, runs: int, users: int, rounds: int) -> Queued:
    """Users whose replies all end together, and prompts that are read one after another: a ramp in each round."""
    ready = rng.uniform(0, 0.001, (runs, users))
    parts = []
    for _ in range(rounds):
        ready.sort(axis=1)
        latency = rng.uniform(0.0014, 0.0026, ready.shape).cumsum(axis=1) + rng.normal(0.05, 0.0002, ready.shape)
        ended = (ready + latency).max(axis=1, keepdims=True) + 1.2 + rng.uniform(0, 0.001, ready.shape)
        parts.append((ready, latency, ended))
        ready = ended.copy()
    due, latency, ended = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return Queued(due, latency, ended, by_all(latency), users)


def busy_machine(rng: np.random.Generator, runs: int, n: int, users: int) -> Queued:
    """A closed loop without a queue on a machine whose speed changes slowly: it forgets itself in 60 requests."""
    made = closed_loop(rng, runs, n, users, None)
    speed, keep = rng.normal(size=(runs, n)), math.exp(-1 / 60)
    for i in range(1, n):
        speed[:, i] = keep * speed[:, i - 1] + math.sqrt(1 - keep * keep) * speed[:, i]
    latency = made.latency * np.exp(0.3 * speed)
    return Queued(made.due, latency, made.ended, by_all(latency), users)
