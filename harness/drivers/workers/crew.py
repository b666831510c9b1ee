"""The load processes of a trial, as the cell's child sees them: start them, give them T0, listen, put together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.drivers.base import Control, DriveReport, merged
from harness.drivers.progress import Progress, together
from harness.drivers.timeline import NS_PER_MS
from harness.drivers.workers.lost_rows import lost_rows
from harness.drivers.workers.part import PartSpec
from harness.drivers.workers.worker import Order
from harness.errors import Interrupted, TrialFailed
from harness.processes import LONGEST_LINE_BYTES, ended_how, module_command, own_packages_first
from harness.records import Phase, Status
from harness.schedule.requests import Schedule, Shard
from harness.store.run import record_stream, record_writer, told_in

LEAD_NS = 100 * NS_PER_MS  # T0 travels through pipes, and everyone must have read it before it comes
SILENT_S = 60.0
LONGEST_BEGINNING_S = 900.0  # a long plan is being built, a tokenizer loaded
LOOK_EVERY_S = 1.0
GOODBYE_S = 10.0
LOST = "lost"


@dataclass(slots=True)
class Worker:
    """One load process, and what it has told.

    lost: why it is gone without a report.   lost_ns: when that was seen.   refused: why it cannot do its share.
    """

    index: int
    process: asyncio.subprocess.Process
    changed: asyncio.Event
    ready: bool = False
    counted: bool = False
    report: dict[str, Any] | None = None
    silence: str | None = None
    refused: str | None = None
    lost: str | None = None
    lost_ns: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    heard_s: float = field(default_factory=time.monotonic)

    @property
    def over(self) -> bool:
        """Whether nothing more is to come from it."""
        return self.report is not None or self.lost is not None

    def tell(self, order: str) -> None:
        """Send an order; one that is gone does not hear it."""
        assert self.process.stdin is not None
        if not self.over and not self.process.stdin.is_closing():
            self.process.stdin.write(order.encode() + b"\n")

    async def listen(self) -> None:
        """Hear it until it has ended."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.heard_s = time.monotonic()
            with contextlib.suppress(ValueError):  # cut off in the middle of a line: it is dying
                self._hear(json.loads(line))
            self.changed.set()
        lost_ns = time.monotonic_ns()
        status = await self.process.wait()
        if self.report is None:
            self.lost, self.lost_ns = self.refused or self.lost or ended_how(status), lost_ns
        self.changed.set()

    def _hear(self, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        self.ready |= kind == "ready"
        self.counted |= kind == "counted"
        if kind == "progress":
            self.progress = event
        elif kind == "ended":
            self.report, self.silence = event["report"], event["silence"]
        elif kind == "failed":
            self.refused = event["reason"]


class Crew:
    """The load processes of one trial."""

    def __init__(self, part: PartSpec, schedule: Schedule, folder: Path, control: Control) -> None:
        self._part = part
        self._schedule = schedule
        self._folder = folder
        self._control = control
        self._changed = asyncio.Event()
        self._workers: list[Worker] = []
        self._listening: list[asyncio.Task[None]] = []
        self._t0_ns = 0

    async def start(self, count: int, headers: Mapping[str, str]) -> None:
        """Start them all, then wait until all are ready.

        Raises TrialFailed if one cannot be, Interrupted if the load is stopped before.
        """
        for index in range(count):
            worker = Worker(index, await self._started(index), self._changed)
            order = Order(asdict(self._part), str(self._folder), index, count, dict(headers))
            worker.tell(json.dumps(asdict(order)))
            self._workers.append(worker)
            self._listening.append(asyncio.ensure_future(worker.listen()))
        self._control.on_change(self._changed.set)
        while not all(worker.ready for worker in self._workers):
            await self._news()
            if self._control.stopped:
                raise Interrupted("stopped before the load began")
            self._end_the_hung(LONGEST_BEGINNING_S)
            failed = next((worker for worker in self._workers if worker.lost or worker.refused), None)
            if failed is not None:
                raise TrialFailed(f"load process {failed.index} could not begin: {failed.refused or failed.lost}")

    async def _started(self, index: int) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *module_command("harness.drivers.workers.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=own_packages_first(os.environ),
                limit=LONGEST_LINE_BYTES,
            )
        except OSError as error:
            raise TrialFailed(
                f"load process {index} could not be started: {error.strerror or error}; use fewer `workers`"
            ) from error

    def begin(self) -> None:
        """Give everyone T0, and from now on every order to stop."""
        self._t0_ns = time.monotonic_ns() + LEAD_NS
        self._tell_all(f"begin {self._t0_ns}")
        self._control.begins(self._t0_ns)
        self._control.on_change(self._pass_on)
        self._pass_on()

    async def follow(self) -> None:
        """Until everyone has reported or is lost; those who linger for the others' sake are released."""
        released = False
        while not all(worker.over for worker in self._workers):
            if not released and all(worker.counted or worker.over for worker in self._workers):
                released = True
                self._tell_all("release")
            await self._news()
            self._end_the_hung(SILENT_S)

    def finish(self) -> tuple[DriveReport, str | None]:
        """Write the rows of those who were lost, and put the reports together; why the server was silent, if it was."""
        lost = [worker for worker in self._workers if worker.lost is not None]
        rows, not_sent = self._write_lost(lost) if lost else (0, 0)
        report = merged([described(worker) for worker in self._workers], self._t0_ns, self._schedule.count)
        report.recorded += rows
        report.not_sent += not_sent
        report.interrupted = report.interrupted or self._control.stopped
        report.notes += [f"load process {worker.index} died: {worker.lost}" for worker in lost]
        silences = [one.silence for one in self._workers if one.report is not None and one.report["recorded"]]
        return report, silences[0] if silences and all(silences) else None

    def facts(self) -> dict[str, Any]:
        """How far all are together, as `Progress.facts` says it of one."""
        told = [worker.progress for worker in self._workers if worker.progress]
        lost = sum(worker.lost is not None for worker in self._workers)
        nothing = Progress(self._schedule).facts() | {"phase": str(Phase.WARMUP), "workers_lost": lost}
        return nothing | together(told)

    async def dismiss(self) -> None:
        """They end when their standard input does; whoever does not is killed."""
        self._control.on_change(None)
        for worker in self._workers:
            assert worker.process.stdin is not None
            worker.process.stdin.close()
        if self._listening:
            _, hanging = await asyncio.wait(self._listening, timeout=GOODBYE_S)
            if hanging:
                self._kill([worker for worker in self._workers if worker.process.returncode is None])
                await asyncio.wait(hanging)

    def _write_lost(self, lost: Sequence[Worker]) -> tuple[int, int]:
        """Records of those who died, theirs and ours; how many of them were never sent."""
        rows = not_sent = 0
        with record_writer(self._folder, LOST) as writer:
            for worker in lost:
                told = told_in([record_stream(self._folder, str(worker.index))])
                shard = Shard(worker.index, len(self._workers))
                rows += len(told)
                for record in lost_rows(self._schedule, shard, told, worker.lost_ns - self._t0_ns):
                    writer.add(record)
                    rows += 1
                    not_sent += record.status == Status.NOT_SENT
        return rows, not_sent

    def _tell_all(self, order: str) -> None:
        for worker in self._workers:
            worker.tell(order)

    def _pass_on(self) -> None:
        if self._control.stopped:
            self._tell_all("abort" if self._control.aborted else "stop")

    async def _news(self) -> None:
        """Wait until someone has said something or is gone, a second at most."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), LOOK_EVERY_S)

    def _end_the_hung(self, patience_s: float) -> None:
        now_s = time.monotonic()
        for worker in self._workers:
            if not worker.over and now_s - worker.heard_s > patience_s:
                worker.refused = f"gave no sign of life for {patience_s:.0f} s and was ended"
                self._kill([worker])

    @staticmethod
    def _kill(workers: Sequence[Worker]) -> None:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()


def described(worker: Worker) -> dict[str, Any]:
    """A worker's report as the manifest keeps it."""
    return {**(worker.report or {}), "worker": worker.index, "pid": worker.process.pid, "lost": worker.lost}


async def drive_by_workers(crew: Crew, count: int, headers: Mapping[str, str]) -> tuple[DriveReport, str | None]:
    """Let load processes send the plan; one report of all, and why the server was silent to the end, if it was.

    Their records stream to files of their own in the trial's folder, with those that they leave undone when they die.
    Raises TrialFailed, one sentence, if one cannot begin, and Interrupted if they were stopped before that.
    """
    try:
        await crew.start(count, headers)
        crew.begin()
        await crew.follow()
        return crew.finish()
    finally:
        await crew.dismiss()
