"""Queue guard: where requests queue, a window is worth no more than the independent states of the queue in it.

Latencies alone cannot show this: beside the spread of lengths and services a slow queue is hard to see in them, while
every one of them depends on it. The number of requests in flight shows it at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.analysis.columns import Columns, Floats
from harness.analysis.stats import MAX_STEPS, autocorrelation_time
from harness.records import Status
from harness.scenario.loads import KINDS
from harness.store.manifest import TrialEntry

STEP_NS = 1e8
LEAST_STEPS = 1024
TAIL = 0.99
FEW_STATES = 100
FEW_STATES_FOR_TAILS = 200
FIRST_TAIL_LEVEL = 0.95
QUEUEING_SHARE = 0.5
DEVIATIONS = 2.5


@dataclass(frozen=True, slots=True)
class QueueGuard:
    """How far a trial's latencies can be trusted to be many.

    states: effective number of independent states of the requests in flight, NaN unknown.   queueing: latencies depend
    on each other much, and on those.   tail_follows: the slowest requests are those that met many others.
    """

    states: float = math.nan
    queueing: bool = False
    tail_follows: bool = False

    def cap(self, p: float) -> float:
        """The most that latencies can be worth for the quantile of this level; infinite where nothing limits them.

        From p95 on 200 states are asked for, and from p99 on wherever the tail follows the queue: coverage of G/G/32
        at 0.7 falls to 0.9 otherwise (tests/test_coverage.py).
        """
        queued = self.queueing or (self.tail_follows and p >= TAIL)
        few = FEW_STATES_FOR_TAILS if p >= FIRST_TAIL_LEVEL else FEW_STATES
        return self.states if queued and self.states < few else math.inf

    @property
    def applied(self) -> bool:
        """Whether it limits the quantiles below the tail, too."""
        return math.isfinite(self.cap(0.5))

    def as_fact(self) -> dict[str, Any]:
        """JSON-able: n_eff_in_flight (None unknown), queueing, tail_follows, applied."""
        states = self.states if math.isfinite(self.states) else None
        flags = {"queueing": self.queueing, "tail_follows": self.tail_follows, "applied": self.applied}
        return {"n_eff_in_flight": states, **flags}


NO_GUARD = QueueGuard()


def changes_by_plan(trial: TrialEntry) -> bool:
    """Whether the load of a trial is not the same throughout, as was planned."""
    kind = KINDS.get(str(trial.kind))
    return bool(kind and kind.changes_by_plan) or trial.ramp


def guard_of(columns: Columns, n_eff_tail: float) -> QueueGuard:
    """The guard of a trial. columns: all requests.   n_eff_tail: effective size of the latencies for p99.

    The latencies are times to the first token, to the end where nothing was streamed.
    """
    sent = ~columns.has_status([Status.NOT_SENT]) & np.isfinite(columns.times["due"])
    rows = columns.measured
    first = rows.times["first_token"]
    event = first if np.isfinite(first).any() else rows.times["done"]
    latency = np.where(rows.censored & ~np.isfinite(event), np.inf, event - rows.times["due"])
    known = ~np.isnan(latency)
    arrivals, values = rows.times["due"][known], latency[known]
    if len(values) < 2 or not arrivals[-1] > arrivals[0]:
        return NO_GUARD
    return guard(columns.times["due"][sent], np.sort(columns.ended[sent]), arrivals, values, n_eff_tail)


def guard(due: Floats, ended: Floats, arrivals: Floats, values: Floats, n_eff_tail: float) -> QueueGuard:
    """The guard from ns: due and ended of all requests, each in order; arrivals of those with a latency, in order.

    A queue is there where the latencies' own effective size for p99 is below half their number, and they follow the
    requests in flight: a busy machine makes neighbours alike, too, but not those that met many.
    """
    n = len(values)
    met = in_flight(due, ended, arrivals)
    tail = tail_follows(values, met)
    return QueueGuard(
        states=states_in_flight(due, ended, (float(arrivals[0]), float(arrivals[-1])), n),
        queueing=n_eff_tail < QUEUEING_SHARE * n and (tail or follows(values, met)),
        tail_follows=tail,
    )


def in_flight(due: Floats, ended: Floats, at: Floats) -> Floats:
    """Requests due before and not yet ended at these moments; due and ended each in ascending order."""
    found = np.searchsorted(due, at) - np.searchsorted(ended, at)
    return found.astype(np.float64)


def states_in_flight(due: Floats, ended: Floats, span_ns: tuple[float, float], n: int) -> float:
    """The window over the integrated autocorrelation time of the requests in flight.

    They are sampled at most 0.1 s apart, and as often as there are requests; in windows above about 3.6 hours less
    often, MAX_STEPS times.
    """
    begin, end = span_ns
    steps = min(MAX_STEPS, max(math.ceil((end - begin) / STEP_NS), n, LEAST_STEPS))
    sampled = in_flight(due, ended, np.linspace(begin, end, steps))
    return steps / autocorrelation_time(sampled)


def follows(values: Floats, met: Floats) -> bool:
    """Whether latencies are longer the more requests in flight they met, by the correlation of their ranks (Spearman,
    normal approximation): chance alone says so six times in a thousand.
    """
    one, other = _ranks(values), _ranks(met)
    spread = float(one.std()) * float(other.std())
    if spread == 0:
        return False
    covariance = float(((one - one.mean()) * (other - other.mean())).mean())
    return covariance / spread * math.sqrt(len(values)) > DEVIATIONS


def tail_follows(values: Floats, met: Floats) -> bool:
    """The same of the slowest hundredth: whether they met more requests in flight than the others, by the mean of their
    ranks.
    """
    n = len(values)
    slowest = max(1, round(n * (1 - TAIL)))
    order = np.argsort(values, kind="stable")
    ranks = _ranks(met)
    spread = float(ranks.std()) / math.sqrt(slowest)
    excess = float(ranks[order[-slowest:]].mean()) - (n + 1) / 2
    return spread > 0 and excess > DEVIATIONS * spread


def _ranks(values: Floats) -> Floats:
    """From 1, equal values sharing the mean of theirs."""
    counts, places = np.unique(values, return_inverse=True)
    sizes = np.bincount(places, minlength=len(counts))
    ranks: Floats = (np.cumsum(sizes) - (sizes - 1) / 2)[places]
    return ranks
