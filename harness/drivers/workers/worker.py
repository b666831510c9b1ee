"""Process that sends load for its parent, and a worker's side of the conversation with its leader.

The trial's process starts `python -P -m harness.drivers.workers.worker` for each share of a plan, and
`harness.drivers.locust.process` for a load that Locust sends. Standard input carries one line of JSON (`Order`, the
only way for header values, which may be secret), then the orders: `begin` {t0_ns} (absolute, monotonic), `release`,
`stop`, `abort`. The end of standard input means abort. Events are the messages of `harness.drivers.workers.group`.
Records go to the trial's folder.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from engines.base import Endpoint
from harness.drivers.base import Control, DriveReport, DriveSettings, HandOver, Part, Sink
from harness.drivers.drive import drive
from harness.drivers.progress import Progress
from harness.drivers.workers.group import SAME_CLOCK, ClockOffset
from harness.drivers.workers.part import PartSpec, rebuild
from harness.errors import HarnessError, TrialFailed
from harness.processes import (
    PROGRESS_EVERY_S,
    Emit,
    background,
    event_loop_runner,
    event_stream,
    first_line,
    parent_orders,
    unless_ordered,
)
from harness.records import Record
from harness.schedule.requests import Schedule, Shard
from harness.store.run import flush_or_end, record_writer
from harness.store.streams import StreamWriter
from harness.telemetry.cgroup import raise_file_limit

Words = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """Share of one trial, over any transport."""

    shard: Shard
    control: Control
    post: Callable[[str, Words], None]  # sends a message to the leader
    begun: Callable[[], Awaitable[Words]]  # waits for the leader's `begin`
    clock: ClockOffset = SAME_CLOCK
    processes: int = 1  # of this machine, this one included

    async def send(
        self,
        schedule: Schedule,
        endpoint: Endpoint,
        settings: DriveSettings,
        sink: Sink,
        hand_over: HandOver | None = None,
    ) -> DriveReport:
        """Send the share as soon as all workers are ready."""

        def keep(record: Record) -> None:
            record.worker = self.shard.index
            sink(record)

        part = Part(self.shard, self._start, self._counted, hand_over, self.processes)
        return await drive(schedule, endpoint, settings, keep, self.control, part)

    async def _start(self) -> int:
        self.post("ready", asdict(self.clock))
        return int((await self.begun())["t0_ns"])

    def _counted(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # the end of standard input, which follows, aborts
            self.post("counted", {})


@dataclass(frozen=True, slots=True)
class Order:
    """Order to a process that sends load, as JSON."""

    part: PartSpec
    folder: str
    index: int | None = None  # of the share; None for the whole plan
    of: int = 1
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)  # of every request; may hold secrets
    locust: Mapping[str, Any] = field(default_factory=dict)  # the `Options` of Locust


@dataclass(slots=True)
class Sender:
    """Process that sends load for its parent, or leads other workers."""

    order: Order
    schedule: Schedule
    emit: Emit
    writer: StreamWriter[Record]
    begin: asyncio.Future[Words | None]
    progress: Progress
    control: Control = field(default_factory=Control)

    def post(self, word: str, data: Words) -> None:
        self.emit({"event": word, **data})

    def keep(self, record: Record) -> None:
        """Store a record and count it in the progress."""
        self.writer.add(record)
        self.progress.add(record)

    async def begun(self) -> Words:
        if (begin := await self.begin) is None:
            raise TrialFailed("the trial ended before this load process began")
        return begin

    async def obey(self) -> None:
        """Carry out the parent's orders; abort when the parent is gone."""
        async for word, data in parent_orders():
            if word == "begin":
                self.begin.set_result(data)
            else:
                self.control.obey(word)
        if not self.begin.done():
            self.begin.set_result(None)
        self.control.abort()

    async def report_progress(self) -> None:
        """Report progress twice a second, and store rows that wait for others."""
        while True:
            self.post("progress", self.progress.facts())
            flush_or_end(self.writer, self.control.abort)
            await asyncio.sleep(PROGRESS_EVERY_S)


Send = Callable[[Sender], Awaitable[DriveReport]]


async def carry_out(order: Order, schedule: Schedule, emit: Emit, send: Send) -> None:
    """Send the load while obeying orders and reporting progress; report the result."""
    begin = asyncio.get_running_loop().create_future()
    with record_writer(Path(order.folder), None if order.index is None else str(order.index)) as writer:
        sender = Sender(order, schedule, emit, writer, begin, Progress(schedule))
        async with background(sender.obey()), background(sender.report_progress()):
            report = await send(sender)
    sender.post("report", {"report": asdict(report), "silence": sender.progress.silence()})


def serve_parent(send: Send, run: Callable[[Coroutine[Any, Any, None]], object]) -> None:
    """Send the load that standard input orders. `run` runs the coroutine, once the plan is built."""
    order = TypeAdapter(Order).validate_json(first_line())
    emit = event_stream()
    raise_file_limit()
    with contextlib.suppress(BrokenPipeError):
        try:
            schedule = unless_ordered(lambda: rebuild(order.part))
            run(carry_out(order, schedule, emit, send))
        except HarnessError as error:
            emit({"event": "refused", "reason": str(error)})


async def send_share(sender: Sender) -> DriveReport:
    """Send a share of the plan, in step with the other load processes."""
    order = sender.order
    shard = Shard(order.index or 0, order.of)
    share = Share(shard, sender.control, sender.post, sender.begun, processes=order.of)
    return await share.send(sender.schedule, order.part.endpoint(order.headers), order.part.settings, sender.keep)


if __name__ == "__main__":
    serve_parent(send_share, event_loop_runner())
