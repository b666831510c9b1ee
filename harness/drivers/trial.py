"""Running trial: its records and skipped requests, and the course that the clients of both kinds of engine share."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from engines.secrets import masked
from harness.drivers.base import ALONE, Control, DriveReport, DriveSettings, Part, Sink
from harness.drivers.conversations import Conversations
from harness.drivers.due_queue import Due, DueQueue, Prepared
from harness.drivers.http.pacing import make_alarm
from harness.drivers.http.poller import Poller
from harness.drivers.timeline import NS_PER_MS, NS_PER_S, NowNs, Outcome, Trace, build_record, not_sent
from harness.drivers.vitals import Recount, Vitals
from harness.errors import by_name
from harness.records import TOO_LATE, Loop, Phase, Record, Status
from harness.schedule.requests import Schedule

_TICK_NS = 10 * NS_PER_MS
LONGEST_TEXT = 1_000  # characters of an error, a finish reason or a backend: a plugin's dialect may not cut
OF_SERVERS = ("error", "finish_reason", "backend")
"""Columns of a record with the words of a server. The others hold numbers, or words of our own."""


@dataclass(slots=True)
class TrialState:
    """Running trial. `finished` is set when its last record has been passed on."""

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
        loop, count = self.schedule.loop_of(trace.row), self.schedule.count_tokens
        chunks, text = self.settings.keep_chunks, self.settings.keep_text
        return build_record(trace, outcome, self.report.t0_ns, loop, chunks=chunks, text=text, count=count)

    def finish_report(self) -> DriveReport:
        """Return the complete report, after the load."""
        self.vitals.fill()
        self.report.planned = self.schedule.count
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

    def trace(self, due: Due) -> Trace:
        return Trace(due.row, due.due_ns, due.phase, dispatched_ns=self.now_ns(), held_ns=due.held_ns)

    def _hand_on(self, record: Record) -> None:
        """Pass a record on, without secrets: every record goes through here, whatever sent its request."""
        for name in OF_SERVERS:
            if (text := getattr(record, name)) is not None:
                setattr(record, name, masked(text, LONGEST_TEXT))
        if record.text is not None:
            record.text = masked(record.text)
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


class Client(ABC):
    """Sender of one trial's requests. Without a poller its alarms are those of the loop."""

    _prepared: Prepared[Any]

    def __init__(self, state: TrialState, loop: asyncio.AbstractEventLoop, poller: Poller | None) -> None:
        self._state = state
        self._queue = state.queue
        self._now_ns = state.now_ns
        self._conversations = Conversations(state.schedule)
        self._ending = False
        self._virtual = hasattr(loop, "time_ns")
        self._next_tick_ns = 0
        self._alarm = make_alarm(loop, poller, self._dispatch, state.now_ns)
        self._heartbeat = make_alarm(loop, poller, self._beat, state.now_ns)
        self._drain = make_alarm(loop, poller, self._drained, state.now_ns)

    @abstractmethod
    def prepare(self) -> None:
        """Encode the first requests. Raises ValueError for a request that the dialect cannot carry."""

    def start(self) -> None:
        """Set the alarms; T0 is near."""
        if not self._virtual:
            self._next_tick_ns = self._now_ns() + _TICK_NS
            self._heartbeat.set(self._next_tick_ns)
        self._alarm.set(self._queue.next_due_ns)
        self._end_if_over()

    def close(self) -> None:
        for alarm in (self._alarm, self._heartbeat, self._drain):
            alarm.close()

    def control_changed(self) -> None:
        """React to an order: a release, or the end of the trial."""
        state = self._state
        if state.finished.done() or self._ending:
            return
        if state.control.grown:
            state.control.grown = False
            self._queue.take_up()
            self._prepared.look_again()
            self._dispatch()
        if state.control.released:
            self._queue.release()
        if state.control.stopped:
            state.report.interrupted = True
            state.end_load()
            self._alarm.set(None)
            if state.control.aborted:
                self._cut_all("the trial was ended at once")
            elif state.settings.drain_ns is not None:
                self._drain.set(self._now_ns() + state.settings.drain_ns)
        self._end_if_over()

    def _drained(self) -> None:
        self._cut_all("still in flight at the end of the drain time")
        self._dispatch()

    def _beat(self) -> None:
        """Measure the own lateness."""
        now_ns = self._now_ns()
        self._state.vitals.tick(now_ns - self._next_tick_ns)
        self._next_tick_ns += _TICK_NS * ((now_ns - self._next_tick_ns) // _TICK_NS + 1)
        self._heartbeat.set(self._next_tick_ns)
        self._tick(now_ns)

    def _given_up(self, due: Due, now_ns: int) -> bool:
        """Give up a taken request that cannot be sent any more; return True if so.

        An earlier turn has failed, no place was free within its time-out, or the load generator was too late.
        """
        timeout_ns = self._state.settings.timeout_ns
        if (why_not := self._conversations.broken(due.row)) is not None:
            self._state.skip(due, why_not)
        elif due.held_ns is not None and due.held_ns >= timeout_ns:
            self._time_out(due, due.due_ns + timeout_ns)
        elif not self._state.skip_if_expired(due, now_ns):
            return False
        self._prepared.drop(due.row.request)
        return True

    def _time_out(self, due: Due, done_ns: int) -> None:
        """End a request that waited for a place until its time-out."""
        timeout_ns = done_ns - due.due_ns
        outcome = Outcome(Status.TIMEOUT, f"no place was free within {timeout_ns / NS_PER_S:g} s after it was due")
        self._conversations.add_reply(due.row, outcome)
        self._queue.ended(due, done_ns, failed=True, sent=False)
        trace = Trace(due.row, due.due_ns, due.phase, held_ns=timeout_ns, done_ns=done_ns)
        self._state.record(trace, outcome)

    @abstractmethod
    def _dispatch(self) -> None:
        """Send everything that is due, and set the alarm for the next request."""

    @abstractmethod
    def _cut_all(self, reason: str) -> None:
        """End every request in flight."""

    @abstractmethod
    def _tick(self, now_ns: int) -> None:
        """Do the work of every 10 ms; not in virtual time."""

    @abstractmethod
    def _end_if_over(self) -> None:
        """End the trial if nothing is left to send or to wait for."""
