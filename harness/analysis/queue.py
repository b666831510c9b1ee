"""The queue of a trial: its independent states, and the rounds of a closed loop.

Latencies alone cannot show a slow queue: it is hidden by the spread of lengths and services, while every latency
depends on it. The number of requests in flight shows it at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness.analysis.columns import Columns
from harness.analysis.distributions import Observations
from harness.analysis.effective import INDEPENDENT, LEAST_ROUNDS, Dependence
from harness.analysis.stats import MAX_STEPS, Floats, less_seeming, memory_of
from harness.metrics import METRICS
from harness.scenario.loads.kinds import KINDS
from harness.store.manifest import TrialEntry

STEP_NS = 1e8
LEAST_STEPS = 1024


@dataclass(frozen=True, eq=False)
class QueueGuard:
    """Sources of correlation between the requests of a trial. Times in ns, ascending."""

    states: float = math.inf  # effective number of independent states of the requests in flight, infinite unknown
    due: Floats = field(default_factory=lambda: np.empty(0), repr=False)  # of all requests that were sent
    ended: Floats = field(default_factory=lambda: np.empty(0), repr=False)
    rounds: Floats = field(default_factory=lambda: np.empty(0), repr=False)  # begins of a closed loop's; none if few
    seen: float = math.inf  # states as they seem, see `effective.Dependence`

    def dependence(self, due: Floats, *, queues: bool = True) -> Dependence:
        """Return that of requests by their due times. `queues`: what is observed of them includes queueing."""
        if len(self.rounds):
            return Dependence(rounds=np.searchsorted(self.rounds, due, side="right"))
        if not queues or not math.isfinite(self.states):
            return INDEPENDENT
        return Dependence(self.states, in_flight(self.due, self.ended, due), seen=self.seen)

    def applied_to(self, found: Mapping[str, Observations], due: Floats) -> dict[str, Observations]:
        """Return the observations by metric name with what may make them alike. `due` is that of their requests."""
        plain, queued = (self.dependence(due, queues=queues) for queues in (False, True))
        return {name: _depending(one, queued if METRICS[name].queues else plain) for name, one in found.items()}

    def as_fact(self) -> dict[str, Any]:
        """Return JSON-able data: states (None unknown), rounds (None for no closed loop, or too few)."""
        return {
            "states": self.states if math.isfinite(self.states) else None,
            "rounds": len(self.rounds) or None,
        }


def _depending(one: Observations, dependence: Dependence) -> Observations:
    return one if one.places is None else replace(one, dependence=dependence.of(one.places))


NO_GUARD = QueueGuard()


def changes_by_plan(trial: TrialEntry) -> bool:
    """Return whether the load of a trial changes by schedule."""
    kind = KINDS.get(str(trial.kind))
    return bool(kind and kind.changes_by_plan) or trial.ramp


def guard_of(columns: Columns, users: int = 0) -> QueueGuard:
    """Return the guard of a trial from all its requests. `users` of a closed loop send them, 0 for an open one."""
    sent = columns.sent & np.isfinite(columns.times["due"])
    due, measured = columns.times["due"][sent], columns.measured.times["due"]
    if len(measured) < 2 or not measured[-1] > measured[0]:
        return NO_GUARD
    ended = np.sort(columns.ended[sent])
    return guard(due, ended, measured, users)


def guard(due: Floats, ended: Floats, measured: Floats, users: int = 0) -> QueueGuard:
    """Return the guard from ns in ascending order: due and ended of all requests, due of those measured."""
    rounds = measured[::users] if users and len(measured) >= LEAST_ROUNDS * users else np.empty(0)
    seen, states = states_in_flight(due, ended, (float(measured[0]), float(measured[-1])), len(measured))
    return QueueGuard(states, due, ended, rounds, seen)


def in_flight(due: Floats, ended: Floats, at: Floats) -> Floats:
    """Count the requests due before and not yet ended at these moments; due and ended each in ascending order."""
    found = np.searchsorted(due, at) - np.searchsorted(ended, at)
    return found.astype(np.float64)


def states_in_flight(due: Floats, ended: Floats, span_ns: tuple[float, float], n: int) -> tuple[float, float]:
    """Return the window over the autocorrelation time of the requests in flight, and what of it is sure; at most n.

    They are sampled at most 0.1 s apart, and as often as there are requests; at most MAX_STEPS times.
    """
    begin, end = span_ns
    steps = min(MAX_STEPS, max(math.ceil((end - begin) / STEP_NS), n, LEAST_STEPS))
    size = memory_of(in_flight(due, ended, np.linspace(begin, end, steps))).size
    return max(1.0, min(float(n), size)), min(float(n), less_seeming(size, steps))
