"""Workers that share a trial's plan, as seen by the process that leads the trial.

A group knows no transport. `pipes` reaches load processes, `harness.drivers.locust.master` reaches Locust's workers.
Both carry the same conversation:

1. A worker receives its part. It sends `ready` {offset_ns, uncertainty_ns} when its connections are open and its first
   requests are encoded, or `refused` {reason}.
2. All receive `begin` {t0_ns, t0_utc_s}. Each sends its progress: `progress` {...} or `records` {ipc}.
3. Each sends `counted` when it has no counting request left. When all have sent it, all receive `release`.
4. Each sends `report` {report, silence}. `stop` and `abort` end the load early.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from harness.drivers.base import Control, DriveReport, Sink
from harness.drivers.workers.lost_rows import lost_rows
from harness.records import Clock, Status
from harness.schedule.requests import Schedule, Shard
from harness.store.run import Ended

LOOK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """Offset of a worker's monotonic clock: leader = worker + offset, to within `uncertainty_ns`."""

    offset_ns: int = 0
    uncertainty_ns: int = 0

    def there(self, leader_ns: int) -> int:
        """Convert a time of the leader to the worker's clock."""
        return leader_ns - self.offset_ns


SAME_CLOCK = ClockOffset()


def least_round_trip(exchanges: Sequence[tuple[int, int, int]]) -> ClockOffset:
    """Return the offset from the exchange (sent, the leader's time, answered) with the shortest round trip.

    The leader's reading lies between the worker's two readings; their middle errs by half the round trip at most.
    """
    sent_ns, leader_ns, answered_ns = min(exchanges, key=lambda one: one[2] - one[0])
    return ClockOffset(leader_ns - (sent_ns + answered_ns) // 2, (answered_ns - sent_ns + 1) // 2)


@dataclass(slots=True)
class Worker:
    """Worker with a share of the plan, and the messages received from it."""

    name: str
    index: int
    clock: ClockOffset | None = None
    counted: bool = False
    progress: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None
    silence: str | None = None
    lost: str | None = None  # reason for which it is gone without a report
    last_message_ns: int = field(default_factory=time.monotonic_ns)  # on the leader's clock
    about: Mapping[str, Any] = field(default_factory=dict)  # entries of the manifest besides its report

    @property
    def ready(self) -> bool:
        """True if it waits for the start."""
        return self.clock is not None and self.lost is None

    @property
    def over(self) -> bool:
        """True if nothing more will come from it."""
        return self.report is not None or self.lost is not None


class Transport(Protocol):
    """Connection of a group to its workers."""

    def send(self, worker: Worker, word: str, data: Mapping[str, Any]) -> None:
        """Send a message to a worker; no error if it is gone."""

    def look(self) -> None:
        """Drop the workers that are gone or hang."""


class WorkerGroup:
    """Workers of a trial, `of` of them expected. A share without a worker is absent."""

    def __init__(self, of: int, control: Control, transport: Transport) -> None:
        self.of = of
        self.notes: list[str] = []  # about workers that were refused, late or lost
        self.changed = asyncio.Event()  # set when there is news
        self.closed = False  # no further worker is admitted
        self.released = False  # all counting requests have ended
        self._control, self._transport = control, transport
        self._workers: dict[str, Worker] = {}
        self._t0_ns = 0

    def __iter__(self) -> Iterator[Worker]:
        return iter(sorted(self._workers.values(), key=lambda worker: worker.index))

    def get(self, name: str) -> Worker | None:
        return self._workers.get(name)

    @property
    def ready(self) -> int:
        return sum(worker.ready for worker in self)

    @property
    def absent(self) -> list[int]:
        return sorted(set(range(self.of)) - {worker.index for worker in self})

    @property
    def all_counted(self) -> bool:
        return all(worker.counted or worker.over for worker in self)

    @property
    def all_over(self) -> bool:
        return all(worker.over for worker in self)

    # Membership:

    def admit(self, name: str) -> Worker | None:
        """Assign a share to a worker that has come; return None, with a note, if it is too late or one too many."""
        if (known := self._workers.get(name)) is not None:
            return known
        if self.closed or not self.absent:
            why = "came after the start" if self.closed else f"was one more than the {self.of} expected"
            self.notes.append(f"a load worker {why} and was dismissed")
            return None
        self._workers[name] = Worker(name, self.absent[0])
        return self._workers[name]

    def refuse(self, name: str, reason: str) -> None:
        """Remove a worker that cannot take part; before the start its share is free again."""
        if self._workers.pop(name, None) is not None:
            self.notes.append(f"a load worker refused: {reason}")

    def receive(self, name: str, word: str, data: Mapping[str, Any], now_ns: int) -> None:
        """Process a message of a worker; every message is a sign of life."""
        worker = self._workers.get(name)
        if worker is None:
            return
        worker.last_message_ns = now_ns
        if word == "ready":
            worker.clock = ClockOffset(data["offset_ns"], data["uncertainty_ns"])
        elif word == "counted":
            worker.counted = True
        elif word == "progress":
            worker.progress = data
        elif word == "report" and worker.lost is None:
            worker.report, worker.silence = data["report"], data.get("silence")

    def lose(self, name: str, why: str, note: str) -> bool:
        """Mark a worker as lost; return True if its report was still expected."""
        worker = self._workers.get(name)
        if worker is None or worker.over:
            return False
        self.notes.append(note)
        if self.closed:
            worker.lost = why
        else:  # its share is free again
            del self._workers[name]
        return True

    def close(self) -> None:
        """Continue with the workers that are ready."""
        self.closed = True
        self._workers = {name: worker for name, worker in self._workers.items() if worker.ready}
        if self.absent:
            missing = f"{len(self.absent)} of {self.of} load workers did not come in time"
            self.notes.append(f"{missing}: their requests were not sent")

    # Course of the trial:

    def begin(self, lead_ns: int) -> None:
        """Announce T0, and from now on every order to stop."""
        self._t0_ns, t0_utc_s = time.monotonic_ns() + lead_ns, time.time() + lead_ns / 1e9
        for worker in self:
            assert worker.clock is not None
            there = {"t0_ns": worker.clock.there(self._t0_ns), "t0_utc_s": t0_utc_s}
            self._transport.send(worker, "begin", there)
        self._control.begins(self._t0_ns)
        self._control.on_change(self._pass_on)
        self._pass_on()

    async def follow(self) -> None:
        """Wait until every worker has reported or is lost; release them when all have finished counting."""
        while not self.all_over:
            if not self.released and self.all_counted:
                self.released = True
                self._send_all("release")
            await self.news()

    async def news(self) -> None:
        """Wait until a message arrives, at most a moment, and look for lost workers."""
        self.changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.changed.wait(), LOOK_EVERY_S)
        self._transport.look()

    def _pass_on(self) -> None:
        if self._control.order is not None:
            self._send_all(self._control.order)

    def _send_all(self, word: str) -> None:
        for worker in self:
            if not worker.over:
                self._transport.send(worker, word, {})

    # Result:

    def report(self, schedule: Schedule) -> DriveReport:
        reports = [{**(one.report or {}), "worker": one.index, **one.about, "lost": one.lost} for one in self]
        report = merged(reports, self._t0_ns, schedule.count)
        report.interrupted = report.interrupted or self._control.stopped
        report.notes = [*self.notes, *report.notes]
        return report

    def add_lost(
        self,
        report: DriveReport,
        schedule: Schedule,
        records_of: Callable[[Worker], Mapping[int, Ended]],
        sink: Sink,
    ) -> None:
        """Add the records of workers that were lost or never came to the sink, and to the others' report.

        `records_of` returns the requests of a lost worker that have records.
        """
        lost = [(one.index, records_of(one), one.last_message_ns - self._t0_ns) for one in self if one.lost is not None]
        for index, recorded, until_ns in [*lost, *((index, {}, -1) for index in self.absent)]:
            report.recorded += len(recorded)
            for record in lost_rows(schedule, Shard(index, self.of), recorded, until_ns):
                sink(record)
                report.recorded += 1
                report.not_sent += record.status == Status.NOT_SENT


_SUMMED = (
    *("recorded", "not_sent", "cooldown", "connections_opened", "connections_in_window", "connect_errors"),
    *("canary_events", "resends", "unreadable_events", "impossible_counts"),
)
_OWN = ("t0_ns", "planned", "measured_until_ns", "interrupted")


def merged(reports: Sequence[Mapping[str, Any]], t0_ns: int, planned: int | None) -> DriveReport:
    """Merge the reports of several load workers, each as a mapping, incomplete if the worker died.

    Quality indicators are the maximum, counters the sum. The clock is the kernel's only if it was for all.
    """
    report = DriveReport(t0_ns=t0_ns, planned=planned)
    for name in (each.name for each in fields(DriveReport) if each.name not in _OWN):
        values = [value for one in reports if isinstance(value := one.get(name), int | float)]
        if values:
            setattr(report, name, sum(values) if name in _SUMMED else max(values))
    clocks = {one["clock"] for one in reports if one.get("clock")}
    report.clock = Clock.KERNEL if clocks == {Clock.KERNEL} else Clock.LOOP
    measured_until = [one["measured_until_ns"] for one in reports if one.get("measured_until_ns") is not None]
    report.measured_until_ns = min(measured_until, default=None)
    report.interrupted = any(one.get("interrupted") for one in reports)
    for one in reports:
        for cause, attempts in (one.get("retried") or {}).items():
            report.retried[cause] = report.retried.get(cause, 0) + attempts
        report.notes += [f"load worker {one.get('worker')}: {note}" for note in one.get("notes", ())]
        report.recounted += one.get("recounted", ())
    report.workers = [{name: value for name, value in one.items() if name != "recounted"} for one in reports]
    return report
