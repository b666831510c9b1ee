"""State of a running trial, shared by both drivers: records, skipped requests, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.drivers.base import ALONE, Control, DriveReport, DriveSettings, Part, Sink
from harness.drivers.due_queue import Due, DueQueue
from harness.drivers.timeline import NS_PER_S, NowNs, Outcome, Trace, build_record, not_sent
from harness.drivers.vitals import Recount, Vitals
from harness.errors import by_name
from harness.records import TOO_LATE, Loop, Phase, Record, Status
from harness.schedule.requests import Schedule


@dataclass(slots=True)
class TrialState:
    """One running trial. `finished` is set when its last record has been passed on."""

    schedule: Schedule
    settings: DriveSettings
    sink: Sink
    control: Control
    queue: DueQueue
    report: DriveReport
    now_ns: NowNs
    finished: asyncio.Future[None]
    part: Part = ALONE
    vitals: Vitals = field(default_factory=Vitals)
    _reported_counted: bool = False
    recount: Recount = field(init=False)

    def __post_init__(self) -> None:
        self.recount = Recount(self.schedule.count_tokens if self.settings.recount else None)

    def begin(self, t0_ns: int) -> None:
        """Set T0 and start the self-measurement."""
        self.report.t0_ns = t0_ns
        self.queue.begin(t0_ns)
        self.vitals.begin(self.report)

    def record(self, trace: Trace, outcome: Outcome) -> None:
        """Build the record of a request and pass it on. If a reply breaks the conversion, only its row is affected."""
        try:
            record = self._built(trace, outcome)
        except Exception as error:  # a plugin's pieces may have any content
            why = by_name("no record can be made of the reply", error)
            outcome = Outcome(Status.STREAM_ERROR, why, outcome.http_status)
            record = self._built(trace, outcome)
        self.vitals.see(outcome)
        self.vitals.add(record)
        self.recount.see(record, outcome)
        self._hand_on(record)

    def _built(self, trace: Trace, outcome: Outcome) -> Record:
        settings = self.settings
        return build_record(
            trace,
            outcome,
            self.report.t0_ns,
            self.schedule.loop_of(trace.row),
            chunks=settings.keep_chunks,
            text=settings.keep_text,
            count=self.schedule.count_tokens,
        )

    def finish_report(self) -> DriveReport:
        """Return the complete report, after the load."""
        self.vitals.fill(self.report)
        self.report.measured_until_ns = self.queue.measured_until_ns
        self.report.recounted = self.recount.counted()
        return self.report

    def end_load(self) -> None:
        """End the load; rows of an open plan that were never sent get their records."""
        for due in self.queue.close():
            self._not_sent(due, "the trial was stopped before it was sent")

    def skip(self, due: Due, why: str) -> None:
        """Skip a request; its follower falls due in its own time."""
        self._not_sent(due, why)
        self.queue.skip(due)

    def skip_if_expired(self, due: Due, now_ns: int) -> bool:
        """Skip a request of an open loop if its time-out passed before it was sent; return True if so."""
        timeout_ns = self.settings.timeout_ns
        if now_ns - due.due_ns < timeout_ns or self.schedule.loop is not Loop.OPEN:
            return False
        self.skip(due, f"{TOO_LATE} of {timeout_ns / NS_PER_S:g} s")
        return True

    def _not_sent(self, due: Due, why: str) -> None:
        loop = self.schedule.loop_of(due.row)
        self._hand_on(not_sent(due.row, due.phase, due.due_ns - self.report.t0_ns, loop, why))

    def report_counted(self) -> None:
        """Report once to the other parts that no counting request is left here."""
        if self.part.counted is not None and not self._reported_counted and self.queue.counted:
            self._reported_counted = True
            self.part.counted()

    def apply_release(self) -> bool:
        """Apply a release; return True if the last order was not to stop."""
        if self.control.released:
            self.queue.release()
        return not self.control.stopped

    def trace(self, due: Due) -> Trace:
        """Start a request's trace."""
        return Trace(due.row, due.due_ns, due.phase, dispatched_ns=self.now_ns())

    def _hand_on(self, record: Record) -> None:
        self.report.recorded += 1
        self.report.not_sent += record.status == Status.NOT_SENT
        self.report.cooldown += record.phase == Phase.COOLDOWN
        self.sink(record)

    def guarded(self, call: Callable[[], None]) -> None:
        """Call a function for an outside caller: its exception (no space for records) ends the trial only."""
        try:
            call()
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the trial with an error."""
        if not self.finished.done():
            self.finished.set_exception(error)
