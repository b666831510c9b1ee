"""Trial in Locust's process: sent from there, or led there and sent by workers on this or other machines.

The master carries the conversation of `harness.drivers.workers.group` in Locust's own messages, with the prefix
`harness_`. A worker also sends `hello` {host} and `ping` {at_ns}. The master also sends `part` {part, index, of},
`pong` {at_ns, master_ns}, `over` {more} and `dismissed` {reason}. No header values are sent: each worker has its own.
`words` has the shape of each message, `border` drops the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engines.secrets import masked
from harness.drivers.base import DriveReport, Part
from harness.drivers.drive import drive
from harness.drivers.locust.options import Options
from harness.drivers.locust.records import take, unpacked
from harness.drivers.locust.session import LocustSession, quieten
from harness.drivers.locust.users import Seats, fire_request_event
from harness.drivers.workers.group import Worker, WorkerGroup
from harness.drivers.workers.worker import Sender
from harness.errors import TrialFailed
from harness.records import Record
from harness.store.run import Ended, record_stream, recorded_in

ALONE_LEAD_NS = 50_000_000
LEAD_NS = 1_000_000_000
REPORT_EVERY_S = 5.0
REPORT_PATIENCE_S = 20.0
GOODBYE_S = 0.3
LONGEST_REASON = 1000
Hear = Callable[[str, Any], None]


async def drive_alone(sender: Sender) -> DriveReport:
    """Send the whole plan from this process and report every request to Locust."""
    quieten()
    schedule = sender.schedule
    seats = Seats(range(schedule.users))
    endpoint = sender.order.part.endpoint(sender.order.headers)
    session = LocustSession(seats, endpoint.url)
    session.environment.create_local_runner()
    began_utc_s = 0.0

    async def start() -> int:
        nonlocal began_utc_s
        began_utc_s = time.time() + ALONE_LEAD_NS / 1e9
        return time.monotonic_ns() + ALONE_LEAD_NS

    def keep(record: Record) -> None:
        sender.keep(record)
        fire_request_event(session.environment, record, began_utc_s)

    try:
        if Options(**sender.order.locust).page:
            sender.post("notice", {"text": f"Locust's page is at {session.show_page()}"})
        loop = asyncio.get_running_loop()
        session.on_stop(lambda: loop.call_soon_threadsafe(sender.control.stop))
        await session.spawn(schedule.users or 1)  # an open loop has one user, for its dispatcher
        part = Part(start=start, hand_over=seats.hand_over)
        return await drive(schedule, endpoint, sender.order.part.settings, keep, sender.control, part)
    finally:
        session.end()


async def lead(sender: Sender) -> DriveReport:
    """Wait for the workers, let them send the plan, collect their measurements."""
    quieten()
    options = Options(**sender.order.locust)
    session = LocustSession(
        Seats(), sender.order.part.target.url, told=lambda why: sender.post("notice", _dropped(why))
    )
    port = session.lead(options.bind_host, options.bind_port)
    master = Master(sender, session, options)
    try:
        if options.page:
            sender.post("notice", {"text": f"Locust's page is at {session.show_page()}"})
        await master.gather_workers(f"{options.bind_host}:{port}")
        await master.begin()
        await master.group.follow()
        return master.report()
    finally:
        sender.control.on_change(None)
        master.dismiss_all()
        await asyncio.sleep(GOODBYE_S)
        session.end()


def _dropped(reason: str) -> dict[str, str]:
    return {"text": f"a message at the workers' port was dropped: {reason}; further ones are only counted"}


class Master:
    """Master of one trial's workers. Messages arrive in Locust's greenlets, which run while this loop waits."""

    def __init__(self, sender: Sender, session: LocustSession, options: Options) -> None:
        self._sender, self._session, self._options = sender, session, options
        self._loop = asyncio.get_running_loop()
        self.group = WorkerGroup(options.expect_workers, sender.control, self)
        self._error: Exception | None = None
        self._draining_since_s: float | None = None
        replies: dict[str, Hear] = {"hello": self._hello, "ping": self._ping, "refused": self._refused}
        for word in (*replies, "ready", "records", "counted", "report"):
            session.listen(f"harness_{word}", functools.partial(self._receive, word, replies.get(word)))
        session.on_heartbeat(lambda name: self.group.receive(name, "heartbeat", {}, time.monotonic_ns()))

    # Transport of the group:

    def send(self, worker: Worker, word: str, data: Mapping[str, Any]) -> None:
        with contextlib.suppress(Exception):
            self._session.send(f"harness_{word}", dict(data), worker.name)

    def look(self) -> None:
        """Drop the workers that Locust has lost, and after the end those without a report."""
        if self._error is not None:
            raise self._error
        clients = self._session.runner.clients
        missing = {client.id for client in clients.missing}
        for worker in self.group:
            if worker.name in missing or worker.name not in clients:
                self._lose(worker, "was lost")
        if self.group.released or (self.group.closed and self._sender.control.stopped):
            self._lose_the_silent()

    def _lose_the_silent(self) -> None:
        now_s = time.monotonic()
        self._draining_since_s = self._draining_since_s or now_s
        settings = self._sender.order.part.settings
        patience_s = REPORT_PATIENCE_S + (settings.drain_ns or settings.timeout_ns) / 1e9
        if now_s - self._draining_since_s > patience_s:
            for worker in self.group:
                self._lose(worker, f"did not end within {patience_s:.0f} s")

    def _lose(self, worker: Worker, reason: str) -> None:
        """Drop a worker and abort its load, because its further records do not count."""
        note = f"a load worker {reason} before the start"
        if self.group.closed:
            note = f"load worker {worker.index} {reason}: its remaining requests were not sent"
        if self.group.lose(worker.name, f"it {reason}", note):
            self._sender.post("notice", {"text": note})
            self.send(worker, "abort", {})

    # Course of the trial:

    async def gather_workers(self, address: str) -> None:
        """Wait until all workers are ready, at most for the patience. Raises TrialFailed if then none is."""
        group, control, patience_s = self.group, self._sender.control, self._options.patience_s
        until_s = time.monotonic() + patience_s
        reported_s = 0.0
        while group.ready < group.of and time.monotonic() < until_s and not control.stopped:
            if time.monotonic() - reported_s >= REPORT_EVERY_S:
                reported_s = time.monotonic()
                left = f"{group.ready} of {group.of}, {until_s - reported_s:.0f} s more"
                self._sender.post("waiting", {"text": f"waiting at {address} for load workers: {left}"})
            await group.news()
        if not group.ready and not control.stopped:
            reasons = "".join(f"; {note}" for note in group.notes)
            raise TrialFailed(
                f"no load worker came to {address} within {patience_s:g} s{reasons}; "
                "start `harness worker --master-host HOST --master-port PORT` on each machine that sends load"
            )

    async def begin(self) -> None:
        """Spawn Locust's users and announce T0."""
        group, sender = self.group, self._sender
        group.close()
        sender.post("notice", {"text": f"{group.ready} of {group.of} load workers are ready"})
        self._session.on_stop(lambda: self._loop.call_soon_threadsafe(sender.control.stop))
        self._session.forget_all_but([worker.name for worker in group])
        if group.ready and not sender.control.stopped:
            await self._session.spawn(sender.schedule.users or group.ready)
        for worker in group:
            assert worker.clock is not None
            worker.about = {"clock_uncertainty_ms": worker.clock.uncertainty_ns / 1e6}
        group.begin(LEAD_NS)

    def report(self) -> DriveReport:
        """Merge the reports, and write the rows of lost and absent workers."""
        if dropped := self._session.border.dropped:
            self.group.notes.append(f"{dropped} messages at the workers' port came from no worker of this run")
        report = self.group.report(self._sender.schedule)
        self.group.add_lost(report, self._sender.schedule, self._records_of, self._sender.keep)
        return report

    def dismiss_all(self) -> None:
        """Announce the end of this trial, and whether another one follows."""
        more = self._options.more and not self._sender.control.stopped
        with contextlib.suppress(Exception):  # the workers may be gone
            self._session.send("harness_over", {"more": more})

    def _records_of(self, worker: Worker) -> Mapping[int, Ended]:
        return recorded_in([record_stream(Path(self._sender.order.folder))], worker.index)

    # Messages from workers:

    def _receive(self, word: str, answer: Hear | None, name: str, data: Any) -> None:
        try:
            worker = self.group.get(name)
            if word == "records" and worker is not None and not worker.over:
                if (batches := unpacked(data["ipc"])) is not None:
                    take(batches, self._sender.writer, self._sender.progress)
                else:
                    self._session.border.drop("its records cannot be read")
            self.group.receive(name, word, data, time.monotonic_ns())
            if answer is not None:
                answer(name, data)
        except Exception as error:  # Locust would only log it
            self._error = self._error or error
        self._loop.call_soon_threadsafe(self.group.changed.set)

    def _hello(self, name: str, _: Any) -> None:
        worker = self.group.admit(name)
        if worker is None:
            self._session.send("harness_dismissed", {"reason": self.group.notes[-1]}, name)
            return
        part = {"part": asdict(self._sender.order.part), "index": worker.index, "of": self.group.of}
        self._session.send("harness_part", part, name)

    def _ping(self, name: str, data: Any) -> None:
        self._session.send("harness_pong", {"at_ns": data["at_ns"], "master_ns": time.monotonic_ns()}, name)

    def _refused(self, name: str, data: Any) -> None:
        reason = masked(data["reason"], LONGEST_REASON)
        self.group.refuse(name, reason)
        self._sender.post("notice", {"text": f"a load worker refused: {reason}"})
