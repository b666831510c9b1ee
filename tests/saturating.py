"""A queue in whole arrays behind the search's probe, and the searches by bisection of other tools."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field, replace

import numpy as np

from harness.saturation.probe import searched
from harness.saturation.requests import Requests, Requirement
from harness.saturation.search import Search, Settings, Step
from harness.seeding import generator

SERVERS, MEAN_S, CV, PREFILL_S = 32, 2.0, 0.8, 0.05
SLO_S, SHARE = 1.0, 0.95
TRUE_RATE = 14.21
"""Largest rate at which 95 % of the waits are at most 1 s, by long runs of the same queue."""


@dataclass
class QueueProbe:
    """First come, first served by several servers; lognormal services; Poisson arrivals.

    The first token comes when a server begins. A request in flight is known only if it has waited beyond the SLO.
    """

    seed: int
    servers: int = SERVERS
    mean_s: float = MEAN_S
    cv: float = CV
    slo_s: float = SLO_S
    now_s: float = 0.0
    due: list[float] = field(default_factory=list)
    begun: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    free: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = generator(self.seed, 1)
        self.free = [0.0] * self.servers

    def run(self, step: Step) -> tuple[Requests, float]:
        """Send Poisson arrivals for the length of a step."""
        self.send(step.rate, step.seconds)
        return self.requests(), self.now_s

    def send(self, rate: float, seconds: float) -> None:
        """Let arrivals of a rate come for some time."""
        end_s = self.now_s + seconds
        count = self.random.poisson(rate * seconds)
        sigma2 = math.log(1 + self.cv**2)
        services = self.random.lognormal(math.log(self.mean_s) - sigma2 / 2, math.sqrt(sigma2), count)
        for due, service in zip(np.sort(self.random.uniform(self.now_s, end_s, count)), services, strict=True):
            begun = max(due, self.free[0])
            heapq.heapreplace(self.free, begun + service)
            self.due.append(due)
            self.begun.append(begun)
            self.ended.append(begun + service)
        self.now_s = end_s

    def requests(self) -> Requests:
        """What a client knows now."""
        due, begun, ended = (np.array(column) for column in (self.due, self.begun, self.ended))
        done = ended <= self.now_s
        wait = begun - due + PREFILL_S
        late = self.now_s - due > self.slo_s
        missed = np.where(
            done, (wait > self.slo_s).astype(np.float64), np.where(late & (begun > self.now_s), 1.0, np.nan)
        )
        return Requests(
            due,
            np.where(done, ended, math.inf),
            np.where(done, ended - due, np.nan),
            np.where(done, wait, np.nan),
            {"slo": missed},
            {"ttft": missed},
        )


def search_of(seed: int, **settings: float) -> tuple[Search, float]:
    """A whole search on the queue, and its virtual seconds."""
    search = Search(replace(Settings((Requirement("slo", SHARE),), ttft_s=SLO_S), **settings))  # type: ignore[arg-type]
    probe = QueueProbe(seed)
    return searched(search, probe, probe.requests()), probe.now_s


def bisected(seed: int, trial_s: float, trials: int = 6, low: float = 8.0, high: float = 16.5) -> float:
    """The rate that bisection finds: each trial on an empty server, and believed, as AIPerf and evalscope do."""
    for trial in range(trials):
        rate = (low + high) / 2
        probe = QueueProbe(1000 * seed + trial)
        probe.send(rate, trial_s)
        waits = np.array(probe.begun) - np.array(probe.due) + PREFILL_S
        low, high = (rate, high) if (waits <= SLO_S).mean() >= SHARE else (low, rate)
    return low


def attainment(rate: float, seed: int, seconds: float) -> float:
    """The share of waits within the SLO in a long run, after a tenth of it."""
    probe = QueueProbe(seed)
    probe.send(rate, seconds)
    waits = (np.array(probe.begun) - np.array(probe.due) + PREFILL_S)[len(probe.due) // 10 :]
    return float((waits <= SLO_S).mean())
