"""A trial under Locust whose load comes from workers on other machines, or other processes: the master's side.

Beside Locust's own messages (heartbeats, users, statistics) there are ours, all of whose names begin with `harness_`:
from a worker `hello`, `ping` {at_ns}, `ready` {offset_ns, uncertainty_ns, host}, `refused` {reason}, `records` {ipc},
`counted`, `report` {report}; to a worker `part` {part, index, of}, `pong` {at_ns, master_ns}, `begin` {t0_ns,
t0_utc_s}, `release`, `stop`, `abort`, `over` {more}, `dismissed` {reason}. Header values never travel: a worker has
its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from harness.drivers.base import DriveReport, merged
from harness.drivers.locust.local import spawned
from harness.drivers.locust.order import Work
from harness.drivers.locust.records import Collected
from harness.drivers.locust.roster import Clock, Roster, Worker
from harness.drivers.locust.session import LocustSession, quieten
from harness.drivers.locust.users import Seats
from harness.drivers.workers.lost_rows import lost_rows
from harness.errors import TrialFailed
from harness.schedule.requests import Shard
from harness.store.run import record_stream, told_in

LEAD_NS = 1_000_000_000
LOOK_EVERY_S = 0.25
SAY_EVERY_S = 5.0
REPORT_PATIENCE_S = 20.0
GOODBYE_S = 0.3


async def lead(work: Work) -> DriveReport:
    """Wait for the workers, let them send the plan, gather what they measured."""
    quieten()
    session = LocustSession(Seats(), str(work.part.url))
    port = session.lead(work.order.bind_host, work.order.bind_port)
    master = Master(work, session, asyncio.get_running_loop())
    try:
        if work.order.page:
            work.emit({"event": "notice", "text": f"Locust's page is at {session.show_page()}"})
        await master.gather_workers(f"{work.order.bind_host}:{port}")
        await master.begin()
        await master.follow()
        return master.finish()
    finally:
        work.control.on_change(None)
        master.dismiss_all()
        await asyncio.sleep(GOODBYE_S)
        session.end()


class Master:
    """Leads the workers of one trial. Messages are heard in Locust's greenlets, which run while this loop waits."""

    def __init__(self, work: Work, session: LocustSession, loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._session = session
        self._loop = loop
        self._roster = Roster(work.order.expect_workers)
        self._changed = asyncio.Event()
        self._collected = Collected(work.folder, work.progress)
        self._t0_ns = 0
        self._error: Exception | None = None
        self._draining_since_s: float | None = None
        hearers: dict[str, Callable[[str, Any], None]] = {
            "hello": self._hello,
            "ping": self._ping,
            "ready": self._ready,
            "refused": self._refused,
            "records": self._records,
            "counted": self._counted,
            "report": self._report,
        }
        for kind, hear in hearers.items():
            session.listen(f"harness_{kind}", self._then_look(hear))
        session.on_heartbeat(lambda name: self._roster.hear(name, time.monotonic_ns()))

    def _then_look(self, hear: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
        def heard(name: str, data: Any) -> None:
            self._roster.hear(name, time.monotonic_ns())
            try:
                hear(name, data)
            except Exception as error:  # Locust would only log it
                self._error = self._error or error
            self._loop.call_soon_threadsafe(self._changed.set)

        return heard

    # Before the start:

    async def gather_workers(self, address: str) -> None:
        """Wait until all are ready, at most for the patience. Raises TrialFailed if then nobody is."""
        of = self._roster.of
        until_s = time.monotonic() + self._work.order.patience_s
        said_s = 0.0
        while self._roster.ready < of and time.monotonic() < until_s and not self._work.control.stopped:
            if time.monotonic() - said_s >= SAY_EVERY_S:
                said_s = time.monotonic()
                left_s = until_s - said_s
                text = f"waiting at {address} for load workers: {self._roster.ready} of {of}, {left_s:.0f} s more"
                self._work.emit({"event": "waiting", "text": text})
            await self._look()
        if not self._roster.ready and not self._work.control.stopped:
            reasons = "".join(f"; {note}" for note in self._roster.notes)
            raise TrialFailed(
                f"no load worker came to {address} within {self._work.order.patience_s:g} s{reasons}; "
                "start `harness worker --master-host HOST --master-port PORT` on each machine that sends load"
            )

    async def begin(self) -> None:
        """Give everyone T0."""
        self._roster.begin()
        work, roster = self._work, self._roster
        workers = list(roster)
        work.emit({"event": "notice", "text": f"{len(workers)} of {roster.of} load workers are ready"})
        users = work.schedule.users or len(workers)
        self._session.on_stop(lambda: self._loop.call_soon_threadsafe(work.control.stop))
        if workers and not work.control.stopped:
            self._session.start(users)
            await spawned(self._session, users)
        self._t0_ns = time.monotonic_ns() + LEAD_NS
        t0_utc_s = time.time() + LEAD_NS / 1e9
        for worker in workers:
            assert worker.clock is not None
            there = {"t0_ns": worker.clock.there(self._t0_ns), "t0_utc_s": t0_utc_s}
            self._session.send("harness_begin", there, worker.name)
        work.begun = True
        work.control.begins(self._t0_ns)
        work.control.on_change(self._pass_on)
        self._pass_on()

    # While it runs:

    async def follow(self) -> None:
        """Until everyone has reported or is lost."""
        released = False
        while not self._roster.all_over:
            await self._look()
            if not released and self._roster.all_counted:
                released = True
                self._session.send("harness_release")
            if released or self._work.control.stopped:
                self._lose_the_silent()

    def finish(self) -> DriveReport:
        """Write the rows of those who were lost or never came, and put the reports together."""
        schedule, roster = self._work.schedule, self._roster
        for worker in roster:
            if worker.lost is not None:
                shard = Shard(worker.index, roster.of)
                told = told_in([record_stream(self._work.folder)], worker.index)
                self._collected.add(lost_rows(schedule, shard, told, worker.heard_ns - self._t0_ns))
        for index in roster.absent:
            self._collected.add(lost_rows(schedule, Shard(index, roster.of), {}, -1))
        self._collected.close()
        report = merged([described(worker) for worker in roster], self._t0_ns, schedule.count)
        report.recorded = self._collected.rows
        report.not_sent += self._collected.lost
        report.interrupted = report.interrupted or self._work.control.stopped
        report.notes = [*roster.notes, *report.notes]
        return report

    def dismiss_all(self) -> None:
        """Tell everyone that this trial is over, and whether to wait for another."""
        more = self._work.order.more and not self._work.control.stopped
        with contextlib.suppress(Exception):  # whatever happened, there is nobody to tell any more
            self._session.send("harness_over", {"more": more})

    async def _look(self) -> None:
        """Wait for news, a quarter of a second at most, and see who is gone."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), LOOK_EVERY_S)
        if self._error is not None:
            raise self._error
        clients = self._session.runner.clients
        missing = {client.id for client in clients.missing}
        for worker in list(self._roster):
            if not worker.over and (worker.name in missing or worker.name not in clients):
                self._lose(worker, "was lost")

    def _lose(self, worker: Worker, reason: str) -> None:
        """Whatever it still sends does not count any more, so it shall send nothing."""
        self._roster.lose(worker.name, reason)
        self._work.emit({"event": "notice", "text": self._roster.notes[-1]})
        with contextlib.suppress(Exception):  # it is gone, after all
            self._session.send("harness_abort", worker=worker.name)

    def _lose_the_silent(self) -> None:
        """Whoever is still there after the end, but does not report, is given up some time later."""
        now_s = time.monotonic()
        self._draining_since_s = self._draining_since_s or now_s
        settings = self._work.part.drive_settings()
        patience_s = REPORT_PATIENCE_S + (settings.drain_ns or settings.timeout_ns) / 1e9
        if now_s - self._draining_since_s > patience_s:
            for worker in list(self._roster):
                self._lose(worker, f"did not end within {patience_s:.0f} s")

    def _pass_on(self) -> None:
        """The trial is to be ended: everyone is told."""
        control = self._work.control
        if control.aborted:
            self._session.send("harness_abort")
        elif control.stopped:
            self._session.send("harness_stop")

    # What workers say:

    def _hello(self, name: str, _: Any) -> None:
        shard = self._roster.admit(name)
        if shard is None:
            self._session.send("harness_dismissed", {"reason": self._roster.notes[-1]}, name)
            return
        told = {"part": asdict(self._work.part), "index": shard.index, "of": shard.of}
        self._session.send("harness_part", told, name)

    def _ping(self, name: str, data: Any) -> None:
        self._session.send("harness_pong", {"at_ns": data["at_ns"], "master_ns": time.monotonic_ns()}, name)

    def _ready(self, name: str, data: Any) -> None:
        worker = self._roster.get(name)
        if worker is not None:
            worker.clock = Clock(data["offset_ns"], data["uncertainty_ns"])

    def _refused(self, name: str, data: Any) -> None:
        self._roster.refuse(name, data["reason"])
        self._work.emit({"event": "notice", "text": f"a load worker refused: {data['reason']}"})

    def _records(self, name: str, data: Any) -> None:
        worker = self._roster.get(name)
        if worker is not None and not worker.over:
            self._collected.take(data["ipc"])

    def _counted(self, name: str, _: Any) -> None:
        worker = self._roster.get(name)
        if worker is not None:
            worker.counted = True

    def _report(self, name: str, data: Any) -> None:
        worker = self._roster.get(name)
        if worker is not None and worker.lost is None:
            worker.report = data["report"]


def described(worker: Worker) -> dict[str, Any]:
    """A worker's report as the manifest keeps it."""
    uncertainty_ms = None if worker.clock is None else worker.clock.uncertainty_ns / 1e6
    known = {"worker": worker.index, "clock_uncertainty_ms": uncertainty_ms, "lost": worker.lost}
    return (worker.report or {}) | known
