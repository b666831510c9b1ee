"""Cap the effective sample size by the autocorrelation of the number of requests in flight.

Latencies alone cannot show a slow queue: it is hidden by the spread of lengths and services, while every latency
depends on it. The number of requests in flight shows it at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.analysis.columns import Columns
from harness.analysis.stats import MAX_STEPS, Floats, autocorrelation_time
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
    """How far a trial's latencies count as independent."""

    states: float = math.nan  # effective number of independent states of the requests in flight, NaN unknown
    queueing: bool = False  # latencies depend strongly on each other and on the requests in flight
    tail_follows: bool = False  # the slowest requests met more requests in flight than the others

    def cap(self, p: float) -> float:
        """Return the upper limit of the effective sample size of latencies for quantile p; infinite without a limit.

        From p95 on 200 states are required, and from p99 on wherever the tail follows the queue: coverage of G/G/32 at
        0.7 falls to 0.9 otherwise (tests/test_coverage.py).
        """
        queued = self.queueing or (self.tail_follows and p >= TAIL)
        few = FEW_STATES_FOR_TAILS if p >= FIRST_TAIL_LEVEL else FEW_STATES
        return self.states if queued and self.states < few else math.inf

    @property
    def applied(self) -> bool:
        """Whether it limits the quantiles below the tail, too."""
        return math.isfinite(self.cap(0.5))

    def as_fact(self) -> dict[str, Any]:
        """Return JSON-able data: n_eff_in_flight (None unknown), queueing, tail_follows, applied."""
        states = self.states if math.isfinite(self.states) else None
        flags = {"queueing": self.queueing, "tail_follows": self.tail_follows, "applied": self.applied}
        return {"n_eff_in_flight": states, **flags}


NO_GUARD = QueueGuard()


def changes_by_plan(trial: TrialEntry) -> bool:
    """Return whether the load of a trial changes by schedule."""
    kind = KINDS.get(str(trial.kind))
    return bool(kind and kind.changes_by_plan) or trial.ramp


def guard_of(columns: Columns, n_eff_tail: float) -> QueueGuard:
    """Return the guard of a trial, from all its requests and the effective sample size of its latencies for p99.

    The latencies are times to the first token, or to the end if nothing was streamed.
    """
    sent = columns.sent & np.isfinite(columns.times["due"])
    rows = columns.measured
    first = rows.times["first_token"]
    event = first if np.isfinite(first).any() else rows.times["done"]
    latency = np.where(rows.censored & ~np.isfinite(event), np.inf, event - rows.start)
    known = ~np.isnan(latency)
    arrivals, values = rows.times["due"][known], latency[known]
    if len(values) < 2 or not arrivals[-1] > arrivals[0]:
        return NO_GUARD
    return guard(columns.times["due"][sent], np.sort(columns.ended[sent]), arrivals, values, n_eff_tail)


def guard(due: Floats, ended: Floats, arrivals: Floats, values: Floats, n_eff_tail: float) -> QueueGuard:
    """Return the guard of a trial from ns: due and ended of all requests, arrivals and values of those with a latency.

    All but the values are in ascending order. There is a queue if the latencies' own effective sample size for p99 is
    below half their number, and they follow the requests in flight: a busy machine makes neighbours alike, too, but not
    those that met many.
    """
    n = len(values)
    met = in_flight(due, ended, arrivals)
    tail = tail_follows(values, met)
    states = states_in_flight(due, ended, (float(arrivals[0]), float(arrivals[-1])), n)
    return QueueGuard(states, n_eff_tail < QUEUEING_SHARE * n and (tail or follows(values, met)), tail)


def in_flight(due: Floats, ended: Floats, at: Floats) -> Floats:
    """Count the requests due before and not yet ended at these moments; due and ended each in ascending order."""
    found = np.searchsorted(due, at) - np.searchsorted(ended, at)
    return found.astype(np.float64)


def states_in_flight(due: Floats, ended: Floats, span_ns: tuple[float, float], n: int) -> float:
    """Return the window over the integrated autocorrelation time of the requests in flight.

    They are sampled at most 0.1 s apart, and as often as there are requests; at most MAX_STEPS times.
    """
    begin, end = span_ns
    steps = min(MAX_STEPS, max(math.ceil((end - begin) / STEP_NS), n, LEAST_STEPS))
    return steps / autocorrelation_time(in_flight(due, ended, np.linspace(begin, end, steps)))


def follows(values: Floats, met: Floats) -> bool:
    """Return whether latencies increase with the requests in flight that they met.

    Test: rank correlation (Spearman, normal approximation), true by chance six times in a thousand.
    """
    one, other = _ranks(values), _ranks(met)
    spread = float(one.std()) * float(other.std())
    if spread == 0:
        return False
    covariance = float(((one - one.mean()) * (other - other.mean())).mean())
    return covariance / spread * math.sqrt(len(values)) > DEVIATIONS


def tail_follows(values: Floats, met: Floats) -> bool:
    """Return whether the slowest hundredth met more requests in flight than the others, by the mean of their ranks."""
    n = len(values)
    slowest = max(1, round(n * (1 - TAIL)))
    order = np.argsort(values, kind="stable")
    ranks = _ranks(met)
    spread = float(ranks.std()) / math.sqrt(slowest)
    excess = float(ranks[order[-slowest:]].mean()) - (n + 1) / 2
    return spread > 0 and excess > DEVIATIONS * spread


def _ranks(values: Floats) -> Floats:
    """Return ranks from 1, the mean one for equal values."""
    import pandas as pd

    return np.asarray(pd.Series(values).rank(), dtype=np.float64)
