"""Master of a trial under Locust whose load comes from workers in other processes, on this or other machines.

It carries the conversation of `harness.drivers.workers.crew` in Locust's own messages, with the prefix `harness_`. A
worker also sends `hello` {host} and `ping` {at_ns}. The master also sends `part` {part, index, of}, `pong` {at_ns,
master_ns}, `over` {more} and `dismissed` {reason}. Header values are never sent: each worker has its own.
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

from harness.drivers.base import DriveReport
from harness.drivers.locust.options import Options
from harness.drivers.locust.records import take
from harness.drivers.locust.session import LocustSession, quieten
from harness.drivers.locust.users import Seats
from harness.drivers.workers.crew import Crew, Worker
from harness.drivers.workers.worker import Sender
from harness.errors import TrialFailed
from harness.store.run import Told, record_stream, told_in

LEAD_NS = 1_000_000_000
SAY_EVERY_S = 5.0
REPORT_PATIENCE_S = 20.0
GOODBYE_S = 0.3
Hear = Callable[[str, Any], None]


async def lead(sender: Sender) -> DriveReport:
    """Wait for the workers, let them send the plan, collect their measurements."""
    quieten()
    options = Options(**sender.order.locust)
    session = LocustSession(Seats(), sender.part.url)
    port = session.lead(options.bind_host, options.bind_port)
    master = Master(sender, session, options)
    try:
        if options.page:
            sender.say("notice", {"text": f"Locust's page is at {session.show_page()}"})
        await master.gather_workers(f"{options.bind_host}:{port}")
        await master.begin()
        await master.crew.follow()
        return master.report()
    finally:
        sender.control.on_change(None)
        master.dismiss_all()
        await asyncio.sleep(GOODBYE_S)
        session.end()


class Master:
    """Master of one trial's workers. Messages arrive in Locust's greenlets, which run while this loop waits."""

    def __init__(self, sender: Sender, session: LocustSession, options: Options) -> None:
        self._sender, self._session, self._options = sender, session, options
        self._loop = asyncio.get_running_loop()
        self.crew = Crew(options.expect_workers, sender.control, self)
        self._error: Exception | None = None
        self._draining_since_s: float | None = None
        answers: dict[str, Hear] = {"hello": self._hello, "ping": self._ping, "refused": self._refused}
        for word in (*answers, "ready", "records", "counted", "report"):
            session.listen(f"harness_{word}", functools.partial(self._hear, word, answers.get(word)))
        session.on_heartbeat(lambda name: self.crew.hear(name, "heartbeat", {}, time.monotonic_ns()))

    # Transport of the crew:

    def send(self, worker: Worker, word: str, data: Mapping[str, Any]) -> None:
        """Send a message to a worker; ignored if the worker is gone."""
        with contextlib.suppress(Exception):
            self._session.send(f"harness_{word}", dict(data), worker.name)

    def look(self) -> None:
        """Drop the workers that Locust has lost, and after the end those without a report."""
        if self._error is not None:
            raise self._error
        clients = self._session.runner.clients
        missing = {client.id for client in clients.missing}
        for worker in self.crew:
            if worker.name in missing or worker.name not in clients:
                self._lose(worker, "was lost")
        if self.crew.released or (self.crew.closed and self._sender.control.stopped):
            self._lose_the_silent()

    def _lose_the_silent(self) -> None:
        now_s = time.monotonic()
        self._draining_since_s = self._draining_since_s or now_s
        settings = self._sender.part.drive_settings()
        patience_s = REPORT_PATIENCE_S + (settings.drain_ns or settings.timeout_ns) / 1e9
        if now_s - self._draining_since_s > patience_s:
            for worker in self.crew:
                self._lose(worker, f"did not end within {patience_s:.0f} s")

    def _lose(self, worker: Worker, reason: str) -> None:
        """Drop a worker and abort its load, because its further records do not count."""
        note = f"a load worker {reason} before the start"
        if self.crew.closed:
            note = f"load worker {worker.index} {reason}: its remaining requests were not sent"
        if self.crew.lose(worker.name, f"it {reason}", note):
            self._sender.say("notice", {"text": note})
            self.send(worker, "abort", {})

    # Course of the trial:

    async def gather_workers(self, address: str) -> None:
        """Wait until all workers are ready, at most for the patience. Raises TrialFailed if then none is."""
        crew, control, patience_s = self.crew, self._sender.control, self._options.patience_s
        until_s = time.monotonic() + patience_s
        said_s = 0.0
        while crew.ready < crew.of and time.monotonic() < until_s and not control.stopped:
            if time.monotonic() - said_s >= SAY_EVERY_S:
                said_s = time.monotonic()
                left = f"{crew.ready} of {crew.of}, {until_s - said_s:.0f} s more"
                self._sender.say("waiting", {"text": f"waiting at {address} for load workers: {left}"})
            await crew.news()
        if not crew.ready and not control.stopped:
            reasons = "".join(f"; {note}" for note in crew.notes)
            raise TrialFailed(
                f"no load worker came to {address} within {patience_s:g} s{reasons}; "
                "start `harness worker --master-host HOST --master-port PORT` on each machine that sends load"
            )

    async def begin(self) -> None:
        """Spawn Locust's users and announce T0."""
        crew, sender = self.crew, self._sender
        crew.close()
        sender.say("notice", {"text": f"{crew.ready} of {crew.of} load workers are ready"})
        self._session.on_stop(lambda: self._loop.call_soon_threadsafe(sender.control.stop))
        if crew.ready and not sender.control.stopped:
            await self._session.spawn(sender.schedule.users or crew.ready)
        for worker in crew:
            assert worker.clock is not None
            worker.about = {"clock_uncertainty_ms": worker.clock.uncertainty_ns / 1e6}
        crew.begin(LEAD_NS)

    def report(self) -> DriveReport:
        """Merge the reports, and write the rows of lost and absent workers."""
        report = self.crew.report(self._sender.schedule)
        self.crew.add_lost(report, self._sender.schedule, self._told_of, self._sender.keep)
        return report

    def dismiss_all(self) -> None:
        """Announce the end of this trial, and whether another one follows."""
        more = self._options.more and not self._sender.control.stopped
        with contextlib.suppress(Exception):  # the workers may be gone
            self._session.send("harness_over", {"more": more})

    def _told_of(self, worker: Worker) -> Mapping[int, Told]:
        return told_in([record_stream(Path(self._sender.order.folder))], worker.index)

    # Messages from workers:

    def _hear(self, word: str, answer: Hear | None, name: str, data: Any) -> None:
        try:
            worker = self.crew.get(name)
            if word == "records" and worker is not None and not worker.over:
                take(data["ipc"], self._sender.writer, self._sender.progress)
            self.crew.hear(name, word, data, time.monotonic_ns())
            if answer is not None:
                answer(name, data)
        except Exception as error:  # Locust would only log it
            self._error = self._error or error
        self._loop.call_soon_threadsafe(self.crew.changed.set)

    def _hello(self, name: str, _: Any) -> None:
        worker = self.crew.admit(name)
        if worker is None:
            self._session.send("harness_dismissed", {"reason": self.crew.notes[-1]}, name)
            return
        told = {"part": asdict(self._sender.part), "index": worker.index, "of": self.crew.of}
        self._session.send("harness_part", told, name)

    def _ping(self, name: str, data: Any) -> None:
        self._session.send("harness_pong", {"at_ns": data["at_ns"], "master_ns": time.monotonic_ns()}, name)

    def _refused(self, name: str, data: Any) -> None:
        self.crew.refuse(name, data["reason"])
        self._sender.say("notice", {"text": f"a load worker refused: {data['reason']}"})
