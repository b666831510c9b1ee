"""Load processes on this machine: the group's transport over pipes, in the trial's own process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.drivers.base import Control, DriveReport
from harness.drivers.progress import Progress, together
from harness.drivers.timeline import NS_PER_MS
from harness.drivers.workers.group import Worker, WorkerGroup
from harness.drivers.workers.part import PartSpec
from harness.drivers.workers.worker import Order
from harness.errors import Interrupted, TrialFailed
from harness.processes import Pipe, ended_how
from harness.records import Phase
from harness.schedule.requests import Schedule
from harness.store.run import record_stream, record_writer, recorded_in

LEAD_NS = 100 * NS_PER_MS  # every load process must have read T0 from its pipe before that time
SILENT_S = 60.0
LONGEST_BEGINNING_S = 900.0  # to build a long plan and load a tokenizer
GOODBYE_S = 10.0


class LoadProcesses:
    """Load processes of one trial, `count` of them."""

    def __init__(self, part: PartSpec, schedule: Schedule, folder: Path, control: Control, count: int) -> None:
        self._part, self._schedule, self._folder, self._control = part, schedule, folder, control
        self._group = WorkerGroup(count, control, self)
        self._pipes: dict[int, Pipe] = {}
        self._failed: dict[int, str] = {}
        self._listening: list[asyncio.Task[None]] = []

    async def drive(self, headers: Mapping[str, str]) -> tuple[DriveReport, str | None]:
        """Send the plan; return one report of all, and the reason if the server was silent to the end.

        Records stream to files of their own in the trial's folder, including those of processes that die. Raises
        TrialFailed if a load process cannot begin, Interrupted if the trial was stopped before that.
        """
        try:
            await self._start(headers)
            self._group.close()
            self._group.begin(LEAD_NS)
            await self._group.follow()
            return self._report()
        finally:
            self._control.on_change(None)
            await asyncio.gather(*(pipe.end(GOODBYE_S) for pipe in self._pipes.values()))
            await asyncio.gather(*self._listening, return_exceptions=True)

    def facts(self) -> dict[str, Any]:
        """Return the common progress, like `Progress.facts`."""
        lost = sum(worker.lost is not None for worker in self._group)
        nothing = Progress(self._schedule).facts() | {"phase": str(Phase.WARMUP), "workers_lost": lost}
        return nothing | together([dict(worker.progress) for worker in self._group if worker.progress])

    def send(self, worker: Worker, word: str, data: Mapping[str, Any]) -> None:
        self._pipes[worker.index].send(word, data)

    def look(self) -> None:
        """End the load processes that hang."""
        patience_s = SILENT_S if self._group.closed else LONGEST_BEGINNING_S
        for worker in self._group:
            if not worker.over and time.monotonic_ns() - worker.last_message_ns > patience_s * 1e9:
                self._failed[worker.index] = f"was silent for {patience_s:.0f} s and was killed"
                self._pipes[worker.index].kill()

    async def _start(self, headers: Mapping[str, str]) -> None:
        """Start all processes, and wait until they are ready."""
        for index in range(self._group.of):
            order = Order(self._part, str(self._folder), index, self._group.of, headers)
            try:
                pipe = await Pipe.start("harness.drivers.workers.worker", asdict(order))
            except OSError as error:
                why = f"load process {index} could not be started: {error.strerror or error}"
                raise TrialFailed(f"{why}; use fewer `workers`") from error
            self._pipes[index] = pipe
            worker = self._group.admit(str(index))
            assert worker is not None
            worker.about = {"pid": pipe.process.pid}
            self._listening.append(asyncio.ensure_future(self._listen(worker, pipe)))
        self._control.on_change(self._group.changed.set)
        while self._group.ready < self._group.of:
            await self._group.news()
            if self._control.stopped:
                raise Interrupted("stopped before the load began")
            for index, why in sorted(self._failed.items()):
                raise TrialFailed(f"load process {index} could not begin: {why}")

    async def _listen(self, worker: Worker, pipe: Pipe) -> None:
        """Process the messages of a load process until it has ended."""
        async for event in pipe.events():
            word = event.pop("event")
            if word == "refused":
                self._failed[worker.index] = event["reason"]
            self._group.receive(worker.name, word, event, time.monotonic_ns())
            self._group.changed.set()
        self._group.receive(worker.name, "end", {}, time.monotonic_ns())
        status = await pipe.process.wait()
        if not worker.over:
            why = self._failed.setdefault(worker.index, ended_how(status))
            self._group.lose(worker.name, why, f"load process {worker.index} died: {why}")
        self._group.changed.set()

    def _report(self) -> tuple[DriveReport, str | None]:
        report = self._group.report(self._schedule)
        if any(worker.lost is not None for worker in self._group):
            with record_writer(self._folder, "lost") as writer:
                self._group.add_lost(report, self._schedule, self._records_of, writer.add)
        silences = [one.silence for one in self._group if one.report is not None and one.report["recorded"]]
        return report, silences[0] if silences and all(silences) else None

    def _records_of(self, worker: Worker) -> Mapping[int, Any]:
        return recorded_in([record_stream(self._folder, str(worker.index))])
