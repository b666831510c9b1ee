"""Search for the largest rate within a trial: the schedule grows by what the search wants to send next."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from harness.analysis.stats import Floats
from harness.drivers.base import Control
from harness.drivers.timeline import NS_PER_S, clock_of
from harness.processes import Emit, aside
from harness.records import Record, Status
from harness.run.entries import plan_entry
from harness.saturation.observed import State, Visit
from harness.saturation.requests import Outcomes, Requests, bounds_of
from harness.saturation.search import Search, Step
from harness.saturation.settings import settings_of
from harness.scenario.loads.saturate import Saturate
from harness.schedule.cells import TrialPlan
from harness.schedule.growing import Growth, ns_of
from harness.schedule.requests import Schedule
from harness.store.manifest import SearchEntry, SearchVisit

LEAD_S = 0.05  # between a decision and the first arrival of another rate
AHEAD_S = 60.0  # for which arrivals are planned at once
UNTIL_T0_S = 0.005
_VALUES = ("ttft_ms", "tpot_ms", "e2e_ms", "stall_ms")
_FIRST_ROOM = 4096


class Seen:
    """Outcomes of the requests that have ended, by their numbers in the schedule."""

    def __init__(self) -> None:
        self._ended_s = np.full(_FIRST_ROOM, math.inf)
        self._ok = np.zeros(_FIRST_ROOM, dtype=np.bool_)
        self._values = {name: np.full(_FIRST_ROOM, math.nan) for name in _VALUES}

    def add(self, record: Record) -> None:
        """Take a record."""
        at = record.request
        self._make_room(at + 1)
        if record.done_ns is None or record.due_ns is None:
            return
        self._ended_s[at] = record.done_ns / NS_PER_S
        self._ok[at] = record.status == Status.OK
        for name, value in _values_of(record).items():
            self._values[name][at] = value

    def outcomes(self, due_s: Floats) -> Outcomes:
        """Return the outcomes of the first rows of the schedule, due at these times."""
        rows = len(due_s)
        self._make_room(rows)
        values = {name: one[:rows].copy() for name, one in self._values.items()}
        return Outcomes(due_s, self._ended_s[:rows].copy(), self._ok[:rows].copy(), values)

    def _make_room(self, rows: int) -> None:
        while rows > len(self._ended_s):
            more = len(self._ended_s)
            self._ended_s = np.concatenate([self._ended_s, np.full(more, math.inf)])
            self._ok = np.concatenate([self._ok, np.zeros(more, dtype=np.bool_)])
            self._values = {name: np.concatenate([one, np.full(more, math.nan)]) for name, one in self._values.items()}


def _values_of(record: Record) -> dict[str, float]:
    """Return the latencies of an ended request, in ms; a missing one is absent."""
    found = {}
    due_ns, first_ns, last_ns = record.due_ns or 0, record.first_token_ns, record.last_token_ns
    if first_ns is not None:
        found["ttft_ms"] = (first_ns - due_ns) / 1e6
    end_ns = record.done_ns if last_ns is None else last_ns
    if end_ns is not None:
        found["e2e_ms"] = (end_ns - due_ns) / 1e6
    if first_ns is not None and last_ns is not None and (record.output_tokens or 0) > 1 and last_ns > first_ns:
        found["tpot_ms"] = (last_ns - first_ns) / ((record.output_tokens or 0) - 1) / 1e6
    if record.chunk_ns and len(record.chunk_ns) > 1:
        found["stall_ms"] = max(b - a for a, b in zip(record.chunk_ns, record.chunk_ns[1:], strict=False)) / 1e6
    return found


@dataclass
class Searching:
    """Search that runs beside the driver of its trial.

    Attributes:
        emit: Sender of the events `search` (what the manifest keeps) and `notice` (a line of progress).
    """

    trial: int
    plan: TrialPlan
    schedule: Schedule
    control: Control
    emit: Emit
    seen: Seen = field(default_factory=Seen)

    def __post_init__(self) -> None:
        assert isinstance(self.plan.load, Saturate)
        self._slo = self.plan.slo.model_dump()
        self._of_classes = [(one.slo or self.plan.slo).model_dump() for one in self.plan.classes.values()]
        self.search = Search(settings_of(self.plan.load, self._slo, self.plan.limits, self._of_classes))
        self._of_row = np.empty(0, dtype=np.int64)
        self._growth = Growth(self.schedule, self.plan.load, self.plan.seed)
        self._planned_until_s, self._sent = 0.0, -1

    async def run(self) -> None:
        """Search to the end, then let the driver finish; a failure ends the trial. Ends early if it is stopped."""
        try:
            await self._search()
        except Exception:
            self.control.abort()
            raise
        self._store()
        self.control.release()

    async def _search(self) -> None:
        loop = asyncio.get_running_loop()
        now_ns = clock_of(loop)
        while self.control.t0_ns is None:
            await asyncio.sleep(UNTIL_T0_S)
        t0_ns = self.control.t0_ns

        def now_s() -> float:
            return (now_ns() - t0_ns) / NS_PER_S

        at_s = now_s() + LEAD_S
        while not self.control.stopped:
            step = await self._next(at_s)
            least_s = now_s() + LEAD_S / 2
            if step is None:
                self._end(max(at_s, least_s))
                break
            self._not_before(least_s)
            if step.state is State.CONFIRM:
                self._measure(self.search.visits[-1])
                break
            at_s = max(at_s, self.search.visits[-1].start_s)
            self._send(step, at_s)
            at_s += step.seconds
            await asyncio.sleep(max(0.0, at_s - LEAD_S - now_s()))

    async def _next(self, at_s: float) -> Step | None:
        """Return the next step. The estimate is made on a thread, unless time stands still meanwhile."""
        work: Callable[[], Step | None] = partial(self.search.next, self._requests(at_s), at_s)
        return work() if hasattr(asyncio.get_running_loop(), "time_ns") else await aside(work)

    def _not_before(self, least_s: float) -> None:
        """Begin a new visit after what has been sent while it was decided: rows that were taken stay as they are."""
        visit = self.search.visits[-1]
        if visit.number == self._sent or visit.start_s >= least_s:
            return
        late_s, end_s = least_s - visit.start_s, max(visit.end_s, least_s)
        counted_from_s = visit.counted_from_s + late_s
        self.search.visits[-1] = replace(visit, start_s=least_s, end_s=end_s, counted_from_s=counted_from_s)

    def _end(self, at_s: float) -> None:
        """Send nothing more from a time on."""
        self._growth.send(self._sent, 0.0, ns_of(at_s), ns_of(at_s))
        self.control.grow()

    def _requests(self, at_s: float) -> Requests:
        due_s = self._growth.due_ns[: int(np.searchsorted(self._growth.due_ns, ns_of(at_s)))] / NS_PER_S
        if self._of_classes and len(self._of_row) < len(due_s):
            self._of_row = self.schedule.classes_of(2 * len(due_s))
        bounds = bounds_of(self._slo, self._of_classes, self._of_row[: len(due_s)])
        return self.seen.outcomes(due_s).meeting(bounds, self.search.settings.requirements, at_s - LEAD_S)

    def _send(self, step: Step, at_s: float) -> None:
        """Plan the arrivals of a step, and more of the same rate behind it."""
        visit = self.search.visits[-1]
        if step.visit == self._sent and (at_s + step.seconds < self._planned_until_s or not step.rate):
            return
        if step.visit != self._sent:
            self._tell(visit)
            self._store()
        self._sent, self._planned_until_s = step.visit, at_s + step.seconds + AHEAD_S
        self._growth.send(visit.number, visit.rate, ns_of(visit.start_s), ns_of(self._planned_until_s))
        self.control.grow()

    def _measure(self, visit: Visit) -> None:
        """Plan the measurement: the settling time before it, and as much load behind it as it may need to end."""
        load = self.plan.load
        assert isinstance(load, Saturate)
        start_s, end_s = visit.counted_from_s, visit.counted_from_s + self.search.settings.confirm_s
        self.search.visits[-1] = Visit(visit.number, visit.state, visit.rate, visit.start_s, end_s, start_s)
        self._growth.send(visit.number, visit.rate, ns_of(visit.start_s), ns_of(end_s + load.timeout_s))
        self._growth.measure(ns_of(start_s), ns_of(end_s))
        window = {"start_ns": ns_of(start_s), "end_ns": ns_of(end_s)}
        self.emit({"event": "clock", "trial": self.trial, "window": window, "t0_ns": self.control.t0_ns})
        self._tell(visit)
        self.control.grow()

    def _tell(self, visit: Visit) -> None:
        """Report a new rate in a line."""
        self.emit({"event": "notice", "trial": self.trial, "text": described(visit, self.search)})

    def _store(self) -> None:
        """Report the visits, and what is known of the plan now."""
        settings, visits = self.search.settings, self.search.visits
        load = self.plan.load
        assert isinstance(load, Saturate)
        found = SearchEntry(
            attainment=load.attainment,
            gaps_variation=settings.arrivals,
            width=settings.width,
            ended=self.search.ended,
            visits=[
                SearchVisit(
                    state=str(one.state),
                    rate=one.rate,
                    start_ns=ns_of(one.start_s),
                    end_ns=ns_of(one.end_s),
                    counted_from_ns=ns_of(one.counted_from_s),
                    overloaded=one.overloaded,
                )
                for one in visits
            ],
        )
        plan = plan_entry(self.schedule).stored()
        self.emit({"event": "search", "trial": self.trial, "plan": plan, "search": found.stored()})


def described(visit: Visit, search: Search) -> str:
    """Return a visit that begins, and what is known so far, in one line."""
    what = {
        State.RAMP: f"ramp, {visit.rate:.3g} requests/s",
        State.PAUSE: "overloaded: waiting until the backlog is gone",
        State.SEARCH: f"search, {visit.rate:.3g} requests/s",
        State.CONFIRM: f"measuring at {visit.rate:.3g} requests/s",
    }[visit.state]
    found = search.found
    if found is None:
        return what
    known = found.decisive
    if known.at_floor:
        return f"{what}; no rate is known to keep {found.binding}"
    return f"{what}; largest rate {found.lower:.3g} to {known.upper:.3g}, median {known.value:.3g} ({found.binding})"
