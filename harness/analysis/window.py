"""The measurement window of a trial and the requests due in it: one answer for rates, goodput, bursts and series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis.columns import NS_PER_S, Columns
from harness.analysis.stats import Flags, Floats
from harness.records import Loop
from harness.store.manifest import PlannedWindow, TrialEntry

BINS = 20


@dataclass(frozen=True, slots=True)
class Window:
    """The measurement window [start_ns, end_ns) as offsets from T0."""

    start_ns: float
    end_ns: float
    text: str
    ramp_in_ns: float = 0.0  # part of the planned window before it, because the load had begun with nothing in flight
    alone: bool = False  # it reaches to the end of the last measured request, and only those count

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / NS_PER_S

    def edges(self) -> Floats:
        """Return the ends of BINS equal parts, shape (BINS + 1,), nanoseconds.

        They end just before the window does, since histograms include the last edge.
        """
        last_ns = max(self.start_ns, float(np.nextafter(self.end_ns, -np.inf)))  # empty where nothing was measured
        return np.linspace(self.start_ns, last_ns, BINS + 1)

    def holds(self, moments: Floats) -> Flags:
        """Return which moments lie in it; NaN does not."""
        return (moments >= self.start_ns) & (moments < self.end_ns)

    def load(self, columns: Columns) -> Columns:
        """Return the requests whose work in it counts."""
        return columns.measured if self.alone else columns

    def population(self, columns: Columns) -> Columns:
        """Return the requests that were due in it and sent."""
        columns = self.load(columns)
        rows = self.holds(columns.times["due"]) & columns.sent
        return columns if rows.all() else columns.where(rows)


def window_of(trial: TrialEntry, columns: Columns) -> Window:
    """Return the window of a trial.

    It begins as planned and ends when the first request falls due that is not measured: by the schedule, or in a closed
    loop limited by requests when its users had sent that many. It does not reach to the end of the last reply: nothing
    new is measured meanwhile, and a rate over that time would be too small. In an interrupted trial it ends with the
    last request sent. Two loads are measured until all requests have ended: a lone spike, and users who have all sent
    their requests before any was answered.

    A load that begins with nothing in flight needs the time of a reply to come up, in which fewer requests end than are
    sent. The window begins behind that; see `_came_up_ns` and `_within_a_wave`.
    """
    planned = trial.window or PlannedWindow()
    rows = columns.measured
    if not len(rows) and planned.end_ns is None:
        return Window(0.0, 0.0, "empty: nothing was measured")
    if not len(rows):
        ends_ns = float(planned.start_ns), float(planned.end_ns or 0)
        return Window(*ends_ns, " to ".join(f"{ns / NS_PER_S:g} s" for ns in ends_ns))
    first_ns, last_ns = float(rows.times["due"][0]), float(np.nanmax(rows.times["due"]))
    end_ns = _end_ns(trial, planned, last_ns)
    lone_spike = planned.end_ns is None and trial.bursts is not None and trial.bursts.every_s is None
    closed = trial.loop == Loop.CLOSED
    sent_at_once = closed and not (columns.ended[columns.ok] < end_ns).any()
    if lone_spike or not end_ns > first_ns or sent_at_once:
        return _alone(rows, first_ns)
    start_ns = float(planned.start_ns) if planned.end_ns is not None else first_ns
    begin_ns = max(start_ns, _came_up_ns(trial, columns, start_ns, end_ns))
    if begin_ns > start_ns and closed:
        within_ns = _within_a_wave(columns, begin_ns, end_ns, by_number=planned.end_ns is None)
        if within_ns is None:
            return _alone(rows, first_ns)
        begin_ns = within_ns
    exact = begin_ns > start_ns or end_ns != planned.end_ns
    text = " to ".join(f"{ns / NS_PER_S:.3f} s" if exact else f"{ns / NS_PER_S:g} s" for ns in (begin_ns, end_ns))
    return Window(begin_ns, end_ns, text, begin_ns - start_ns)


def _alone(rows: Columns, first_ns: float) -> Window:
    end_ns = float(np.nanmax(rows.ended)) + 1
    return Window(first_ns, end_ns, f"first due to last done, {(end_ns - first_ns) / NS_PER_S:.3f} s", alone=True)


def _within_a_wave(columns: Columns, begin_ns: float, end_ns: float, *, by_number: bool) -> float | None:
    """Return where the window of a closed loop begins in the first wave from `begin_ns` on; None without a whole wave.

    Its users begin at once and go on in waves, for long if replies take alike. A window that began in front of a wave
    would hold up to one too much. If time limits the load, its end lies anywhere, and the window begins in the middle
    of the wave. If a number does, the end lies at a certain request of a wave. The window then begins at the same
    request of an earlier wave, so that the requests due in it are a whole number of rounds.
    """
    due = columns.times["due"][columns.sent]
    users = int((due == due[0]).sum())
    inside = due[(due >= begin_ns) & (due < end_ns)]
    if not by_number:
        return float(inside[min(users, len(inside)) // 2]) if len(inside) else begin_ns
    return float(inside[len(inside) % users]) if len(inside) >= users else None


def _end_ns(trial: TrialEntry, planned: PlannedWindow, last_due_ns: float) -> float:
    """Return the due time of the first request that is not measured.

    For an interrupted trial, and a load that ends with the last measured request (a trace), it is that of the last one.
    """
    end_ns = planned.end_ns
    if end_ns is None and trial.client is not None:
        end_ns = trial.client.measured_until_ns
    if end_ns is None:
        return last_due_ns
    return float(end_ns) if trial.status == "complete" else min(float(end_ns), last_due_ns)


def _came_up_ns(trial: TrialEntry, columns: Columns, start_ns: float, end_ns: float) -> float:
    """Return when the load had come up, or 0 if that is not before the end.

    Closed loop: the first time a request falls due after the first reply was complete. Open loop: also after as many
    were in flight as at the window's end; 0 if nothing is in flight then, as at the beginning. After a stall at the
    beginning the first reply comes late, together with everything that had piled up.

    With requests due at random the moment itself counts: a window that began with the next one would hold one too many.
    """
    sent = columns.where(columns.sent)
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
    """Return whether requests fall due at equal distances around a moment, to within two nanoseconds."""
    gaps = np.diff(due[max(0, int(np.searchsorted(due, at_ns)) - 2) :][:4])
    return len(gaps) == 0 or float(np.ptp(gaps)) <= 2
