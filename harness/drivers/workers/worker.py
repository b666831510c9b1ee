"""A load process: sends a share of a trial's plan, in step with others that send the rest.

The trial's child starts it as `python -P -m harness.drivers.workers.worker` and writes one line of JSON to its standard
input (`Order`; header values, which may be secret, come this way and no other), later `begin T0` (absolute, on the
monotonic clock that all processes of a machine share), `release` (everyone's requests that count have ended), `stop`,
`abort`. The end of standard input means abort. Events, by `event`: `ready` (connections are open, the first requests
written), `progress` {...}, `counted` (nothing of its own that counts is left), `ended` {report, silence}, `failed`
{reason}. Its records go to a file of its own in the trial's folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.drivers.base import Control, DriveReport, Part
from harness.drivers.drive import drive
from harness.drivers.progress import Progress
from harness.drivers.workers.part import PartSpec, rebuild
from harness.errors import HarnessError, TrialFailed
from harness.processes import (
    PROGRESS_EVERY_S,
    Emit,
    background,
    event_loop_runner,
    event_stream,
    first_line,
    unless_ordered,
)
from harness.records import Record
from harness.schedule.requests import Schedule, Shard
from harness.store.run import flush_or_end, record_writer
from harness.store.streams import StreamWriter
from harness.telemetry.cgroup import raise_file_limit


@dataclass(frozen=True, slots=True)
class Order:
    """What a load process is asked for: its share of a trial.

    part: a `PartSpec` as JSON.   folder: the trial's.   index, of: its share.   headers: of every request.
    """

    part: Mapping[str, Any]
    folder: str
    index: int
    of: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


async def send(order: Order, part: PartSpec, schedule: Schedule, emit: Emit) -> DriveReport:
    """Send the share when everyone is ready, telling of it."""
    control, progress = Control(), Progress(schedule)
    begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def start() -> asyncio.Future[int]:
        emit({"event": "ready"})
        return begun

    def counted() -> None:
        with contextlib.suppress(BrokenPipeError):  # the end of standard input, which comes too, says what to do
            emit({"event": "counted"})

    share = Part(Shard(order.index, order.of), start, counted)
    with record_writer(Path(order.folder), str(order.index)) as writer:

        def keep(record: Record) -> None:
            record.worker = order.index
            writer.add(record)
            progress.add(record)

        endpoint = part.endpoint(order.headers)
        async with background(obey(control, begun)), background(tell(progress, writer, control, emit)):
            report = await drive(schedule, endpoint, part.drive_settings(), keep, control, share)
    emit({"event": "ended", "report": asdict(report), "silence": progress.silence()})
    return report


async def obey(control: Control, begun: asyncio.Future[int]) -> None:
    """Carry out the orders; without a trial there is nobody to measure for."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    actions = {"release": control.release, "stop": control.stop, "abort": control.abort}
    while line := await reader.readline():
        name, _, value = line.decode().strip().partition(" ")
        if name == "begin":
            begun.set_result(int(value))
        else:
            actions[name]()
    if not begun.done():
        begun.set_exception(TrialFailed("the trial ended before this load process began"))
    control.abort()


async def tell(progress: Progress, writer: StreamWriter[Record], control: Control, emit: Emit) -> None:
    """Say how far the share is, twice a second, and see that rows do not wait for others to be stored."""
    while True:
        emit({"event": "progress", **progress.facts()})
        flush_or_end(writer, control.abort)
        await asyncio.sleep(PROGRESS_EVERY_S)


def main() -> None:
    """Entry point."""
    order = Order(**json.loads(first_line()))
    emit = event_stream()
    raise_file_limit()
    with contextlib.suppress(BrokenPipeError):
        try:
            part = PartSpec(**order.part)
            schedule = unless_ordered(lambda: rebuild(part))
            event_loop_runner()(send(order, part, schedule, emit))
        except HarnessError as error:
            emit({"event": "failed", "reason": str(error)})


if __name__ == "__main__":
    main()
