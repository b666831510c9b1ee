"""The process in which Locust runs for one trial: alone, or as the master of workers on other machines.

The child of a cell starts it as `python -P -m harness.drivers.locust.process`, writes one line of JSON to its standard
input (`Order`) and then `stop` or `abort` as to a cell's child; the end of standard input means abort. Events come as
JSON lines on standard output, by `event`: `notice` {text}, `waiting` {text}, `clock` {t0_ns}, `progress` {...},
`ended` {report, silence}, `failed` {reason}. Records go to the trial's folder from here. Importing Locust changes the
whole interpreter, which is why nothing else runs in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from harness.drivers.base import Control, DriveReport
from harness.drivers.locust.order import Order, Work
from harness.drivers.progress import Progress
from harness.drivers.workers.part import PartSpec, rebuild
from harness.errors import HarnessError
from harness.processes import PROGRESS_EVERY_S, background, event_stream, first_line, unless_ordered
from harness.telemetry.cgroup import raise_file_limit


async def carry_out(work: Work, drive_it: Callable[[Work], Awaitable[DriveReport]]) -> None:
    """Do the work and tell of it; the parent's orders are obeyed meanwhile."""
    work.control.on_begin(lambda t0_ns: work.emit({"event": "clock", "t0_ns": t0_ns}))
    async with background(obey(work.control)), background(tell_progress(work)):
        try:
            report = await drive_it(work)
            work.emit({"event": "ended", "report": asdict(report), "silence": work.progress.silence()})
        except HarnessError as error:
            work.emit({"event": "failed", "reason": str(error)})


async def obey(control: Control) -> None:
    """Carry out the parent's commands; without a parent there is nobody to measure for."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"stop":
            control.stop()
        elif line.strip() == b"abort":
            control.abort()
    control.abort()


async def tell_progress(work: Work) -> None:
    """Say how far the trial is, twice a second, and see that rows do not wait for others to be stored."""
    while True:
        if work.begun:
            work.emit({"event": "progress", **work.progress.facts()})
        work.flush()
        await asyncio.sleep(PROGRESS_EVERY_S)


def main() -> None:
    """Entry point."""
    order = Order(**json.loads(first_line()))
    emit = event_stream()
    raise_file_limit()
    try:
        part = PartSpec(**order.part)
        schedule = unless_ordered(lambda: rebuild(part))
    except HarnessError as error:
        emit({"event": "failed", "reason": str(error)})
        return
    work = Work(order, part, schedule, Progress(schedule), Control(), emit)
    with contextlib.suppress(BrokenPipeError):
        from harness.drivers.locust.loop import run_in_greenlet  # from here on the interpreter is Locust's

        if order.expect_workers:
            from harness.drivers.locust.master import lead

            run_in_greenlet(carry_out(work, lead))
        else:
            from harness.drivers.locust.local import drive_alone

            run_in_greenlet(carry_out(work, drive_alone))


if __name__ == "__main__":
    main()
