"""The measuring window of a trial, and who falls due in it: one answer for rates, goodput, bursts and series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis.columns import Columns, Flags, Floats
from harness.records import Loop, Status
from harness.store.manifest import PlannedWindow, TrialEntry

NS_PER_S = 1e9
BINS = 20


@dataclass(frozen=True, slots=True)
class Window:
    """The measuring window [start_ns, end_ns) as offsets from T0, and in words.

    ramp_in_ns: how much of what was planned lies before it, because the load had begun with nothing in flight.
    alone: it reaches to the end of the last measured request, and only those count.
    """

    start_ns: float
    end_ns: float
    text: str
    ramp_in_ns: float = 0.0
    alone: bool = False

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) / NS_PER_S

    def edges(self) -> Floats:
        """Ends of BINS equal parts, shape (BINS + 1,), nanoseconds; histograms, which take in the last one, end short
        of it.
        """
        last_ns = max(self.start_ns, float(np.nextafter(self.end_ns, -np.inf)))  # empty where nothing was measured
        return np.linspace(self.start_ns, last_ns, BINS + 1)

    def holds(self, moments: Floats) -> Flags:
        """Which moments lie in it; NaN does not."""
        return (moments >= self.start_ns) & (moments < self.end_ns)

    def load(self, columns: Columns) -> Columns:
        """The requests whose work in it counts."""
        return columns.measured if self.alone else columns

    def population(self, columns: Columns) -> Columns:
        """The requests that were offered in it: due in it, and sent."""
        columns = self.load(columns)
        rows = self.holds(columns.times["due"]) & ~columns.has_status([Status.NOT_SENT])
        return columns if rows.all() else columns.where(rows)


def window_of(trial: TrialEntry, columns: Columns) -> Window:
    """The window of a trial.

    It begins as planned and ends when the first request falls due that is not measured any more: by the plan, or in a
    closed loop limited by requests when its users had sent so many. It does not reach to the end of the last reply:
    while the last ones are served nothing new is measured, and a rate over that time would be too small. Of a trial
    that broke off it ends with the last request that was sent. Only a lone spike, and requests that users have all sent
    before each was answered once, are measured until all of them have ended.

    A load that begins with nothing in flight needs the time of a reply to come up, in which fewer requests end than are
    sent. The window begins behind that; see `_came_up_ns` and `_within_a_wave`.
    """
    planned = trial.window or PlannedWindow()
    rows = columns.measured
    if not len(rows):
        return _of_the_plan(planned)
    first_ns, last_ns = float(rows.times["due"][0]), float(np.nanmax(rows.times["due"]))
    end_ns = _end_ns(trial, planned, last_ns)
    if _is_lone_spike(trial, planned) or not end_ns > first_ns or _over_at_once(trial, columns, end_ns):
        return _alone(rows, first_ns)
    start_ns = float(planned.start_ns) if planned.end_ns is not None else first_ns
    begin_ns = max(start_ns, _came_up_ns(trial, columns, start_ns, end_ns))
    if begin_ns > start_ns and trial.loop == Loop.CLOSED:
        within_ns = _within_a_wave(columns, begin_ns, end_ns, by_number=planned.end_ns is None)
        if within_ns is None:
            return _alone(rows, first_ns)
        begin_ns = within_ns
    exact = begin_ns > start_ns or end_ns != planned.end_ns
    text = " to ".join(f"{ns / NS_PER_S:.3f} s" if exact else f"{ns / NS_PER_S:g} s" for ns in (begin_ns, end_ns))
    return Window(begin_ns, end_ns, text, begin_ns - start_ns)


def _alone(rows: Columns, first_ns: float) -> Window:
    """All that the measured requests took."""
    end_ns = float(np.nanmax(rows.ended)) + 1
    return Window(first_ns, end_ns, f"first due to last done, {(end_ns - first_ns) / NS_PER_S:.3f} s", alone=True)


def _within_a_wave(columns: Columns, begin_ns: float, end_ns: float, *, by_number: bool) -> float | None:
    """Where in the first wave from `begin_ns` on the window of a closed loop begins; None where there is no whole one.

    Its users begin at once and go on in waves, for long where replies take alike, and a window that began in front of a
    wave would hold up to one too much. Where a number limits the load, its end lies at a certain request of a wave, and
    it begins at the same of an earlier one: with as many requests due in it as the users send in a number of rounds.
    Where time does, the end lies anywhere, and it begins in the middle of the wave.
    """
    due = columns.times["due"][~columns.has_status([Status.NOT_SENT])]
    users = int((due == due[0]).sum())
    inside = due[(due >= begin_ns) & (due < end_ns)]
    if not by_number:
        return float(inside[min(users, len(inside)) // 2]) if len(inside) else begin_ns
    return float(inside[len(inside) % users]) if len(inside) >= users else None


def _of_the_plan(planned: PlannedWindow) -> Window:
    """Where nothing was measured."""
    start_ns, end_ns = planned.start_ns, planned.end_ns
    if end_ns is None:
        return Window(0.0, 0.0, "empty: nothing was measured")
    return Window(float(start_ns), float(end_ns), f"{start_ns / NS_PER_S:g} s to {end_ns / NS_PER_S:g} s")


def _is_lone_spike(trial: TrialEntry, planned: PlannedWindow) -> bool:
    return planned.end_ns is None and trial.bursts is not None and trial.bursts.every_s is None


def _over_at_once(trial: TrialEntry, columns: Columns, end_ns: float) -> bool:
    """Whether the users of a closed loop had sent all that is measured before anything was answered."""
    return trial.loop == Loop.CLOSED and not (columns.ended[columns.ok] < end_ns).any()


def _end_ns(trial: TrialEntry, planned: PlannedWindow, last_due_ns: float) -> float:
    """When the first request fell due that is not measured; of a trial that broke off, and of one whose load ended with
    the last measured request (a trace), when that fell due.
    """
    end_ns = planned.end_ns
    if end_ns is None and trial.client is not None:
        end_ns = trial.client.measured_until_ns
    if end_ns is None:
        return last_due_ns
    return float(end_ns) if trial.status == "complete" else min(float(end_ns), last_due_ns)


def _came_up_ns(trial: TrialEntry, columns: Columns, start_ns: float, end_ns: float) -> float:
    """When the load had come up: the first time a request falls due after the first reply was complete, or, in an open
    loop, after as many were in flight as at the window's end. (Behind a stall at the beginning of an open loop the
    first reply comes late, and then those of everything that had piled up.) 0 where that is not before the end, and
    where at the end of an open loop nothing is in flight, as at its beginning.

    With requests due at random the moment itself counts: a window that began with the next one would hold one too many.
    """
    sent = columns.where(~columns.has_status([Status.NOT_SENT]))
    due, done = sent.times["due"], sent.ended[sent.ok]
    if not len(done):
        return 0.0
    up_ns = float(done.min())
    if up_ns > start_ns and trial.loop != Loop.CLOSED:
        ended = np.sort(sent.ended)
        met = 1 + np.arange(len(due)) - np.searchsorted(ended, due)
        at_the_end = int(np.searchsorted(due, end_ns)) - int(np.searchsorted(ended, end_ns))
        if at_the_end <= 0:
            return 0.0
        enough = np.flatnonzero(met >= at_the_end)
        up_ns = min(up_ns, float(due[enough[0]]) + 1) if len(enough) else up_ns
    after = due[(due >= up_ns) & (due < end_ns)]
    if not up_ns > start_ns or not len(after):
        return 0.0
    with_the_next = trial.loop == Loop.CLOSED or _evenly_spaced(due, after[0])
    return float(after[0]) if with_the_next else up_ns


def _evenly_spaced(due: Floats, at_ns: float) -> bool:
    """Whether requests fall due at equal distances around a moment, give or take a nanosecond."""
    gaps = np.diff(due[max(0, int(np.searchsorted(due, at_ns)) - 2) :][:4])
    return len(gaps) == 0 or float(np.ptp(gaps)) <= 2
