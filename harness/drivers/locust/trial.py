"""A trial whose load Locust sends, as the cell's child sees it: start Locust's process, listen, pass orders on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import asdict
from typing import Any

from harness.drivers.base import Control, DriveReport
from harness.drivers.locust.order import Order
from harness.errors import Interrupted, TrialFailed
from harness.processes import LONGEST_LINE_BYTES, Emit, ended_how, module_command, own_packages_first

TOLD = ("notice", "waiting", "progress")


async def drive_by_locust(order: Order, trial: int, emit: Emit, control: Control) -> tuple[DriveReport, str | None]:
    """Let Locust send the plan; its own report, and why the server was silent to the end, if it was.

    Its records stream to the trial's folder. Raises TrialFailed, one sentence, if it cannot, or its process dies, and
    Interrupted if it could not and was stopped.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *module_command("harness.drivers.locust.process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=own_packages_first(os.environ),
            limit=LONGEST_LINE_BYTES,
        )
    except OSError as error:
        raise TrialFailed(f"Locust's process could not be started: {error.strerror or error}") from error
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
    stdin = process.stdin

    def pass_on() -> None:
        if control.stopped and not stdin.is_closing():
            stdin.write(b"abort\n" if control.aborted else b"stop\n")

    control.on_change(pass_on)
    pass_on()
    try:
        return await listen(process, trial, emit, control)
    finally:
        control.on_change(None)
        stdin.close()
        await gone(process)


async def listen(
    process: asyncio.subprocess.Process, trial: int, emit: Emit, control: Control
) -> tuple[DriveReport, str | None]:
    """Pass on what it tells until it has ended."""
    assert process.stdout is not None
    async for line in process.stdout:
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            break  # cut off in the middle of a line: it is dying
        if event["event"] in TOLD:
            emit({**event, "trial": trial})
        elif event["event"] == "clock":
            control.begins(event["t0_ns"])
        elif event["event"] == "ended":
            return DriveReport(**event["report"]), event["silence"]
        elif event["event"] == "failed":
            raise Interrupted("stopped before the load began") if control.stopped else TrialFailed(event["reason"])
    raise TrialFailed(f"Locust's process {ended_how(await process.wait())}")


async def gone(process: asyncio.subprocess.Process) -> None:
    """Its standard input has ended, and so does it; it is not waited for longer than some seconds."""
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
