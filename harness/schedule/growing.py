"""Growth of a schedule while it runs: stretches of one rate each, as a search for the largest rate asks for them.

Rows are numbered in due order, and their contents follow from the seed and the number, as in every schedule. The due
times of a stretch follow from the seed, its number and its rate. Rows that have not fallen due can be replaced.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.records import Phase
from harness.scenario.loads.saturate import Saturate
from harness.schedule import arrivals
from harness.schedule.arrivals import NS_PER_S, Int64, Process
from harness.schedule.requests import Schedule
from harness.schedule.timing import PHASES, Window
from harness.seeding import generator

_STRETCH_GAPS = 23
_WARMUP, _MEASURE, _COOLDOWN = (PHASES.index(phase) for phase in (Phase.WARMUP, Phase.MEASURE, Phase.COOLDOWN))


class Growth:
    """Growth of the schedule of a search, which has no rows at first."""

    def __init__(self, schedule: Schedule, load: Saturate, seed: int) -> None:
        self._schedule, self._load, self._seed = schedule, load, seed

    @property
    def due_ns(self) -> Int64:
        """Due times so far."""
        assert self._schedule.due_ns is not None
        return self._schedule.due_ns

    def send(self, stretch: int, rate: float, start_ns: int, end_ns: int) -> None:
        """Replace what is due from `start_ns` on by arrivals of a rate until `end_ns`; none of a rate of 0.

        A later end for the same stretch, rate and start gives the same arrivals and more of them.
        """
        due_ns = np.empty(0, dtype=np.int64)
        if rate > 0:
            random, process = generator(self._seed, _STRETCH_GAPS, stretch), Process(self._load.arrivals)
            limits: Any = {"cv": self._load.cv or 1.0, "start_ns": start_ns, "end_ns": end_ns}
            due_ns = arrivals.steady(process, rate, random, **limits)
        kept = int(np.searchsorted(self.due_ns, start_ns))
        phases = np.concatenate([self._phases[:kept], np.full(len(due_ns), _WARMUP, dtype=np.int8)])
        self._schedule.replace_rows(np.concatenate([self.due_ns[:kept], due_ns]), phases, self._schedule.window)

    def measure(self, start_ns: int, end_ns: int) -> None:
        """Set the measurement window: rows due in it are measured, those after it are cooldown."""
        phases = self._phases.copy()
        phases[self.due_ns >= start_ns] = _MEASURE
        phases[self.due_ns >= end_ns] = _COOLDOWN
        self._schedule.replace_rows(self.due_ns, phases, Window(start_ns, end_ns))

    @property
    def _phases(self) -> NDArray[np.int8]:
        assert self._schedule.phases is not None
        return self._schedule.phases


def ns_of(seconds: float) -> int:
    """Return seconds in whole nanoseconds."""
    return round(seconds * NS_PER_S)
