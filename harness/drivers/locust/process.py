"""Locust's process for one trial: a single sender, or the master of workers.

Importing Locust changes the whole interpreter, so nothing else runs in that process. The trial's process starts it as
`python -P -m harness.drivers.locust.process`. It receives the orders of a load process
(`harness.drivers.workers.worker`) except T0, which it sets itself. It sends the further events `notice` {text},
`waiting` {text} and `clock` {t0_ns}.
"""

from __future__ import annotations

from dataclasses import asdict

from harness.drivers.base import Control, DriveReport
from harness.drivers.locust.options import Options
from harness.drivers.workers.worker import Order, Sender, serve_parent
from harness.errors import Interrupted, TrialFailed
from harness.processes import Emit, Pipe, ended_how

GOODBYE_S = 10.0


async def drive_by_locust(order: Order, trial: int, emit: Emit, control: Control) -> tuple[DriveReport, str | None]:
    """Let Locust send the plan; return its report, and the reason if the server was silent to the end.

    Records stream to the trial's folder. Raises TrialFailed if Locust cannot send the plan or its process died,
    Interrupted if the trial was stopped before the load began.
    """
    try:
        pipe = await Pipe.start("harness.drivers.locust.process", asdict(order))
    except OSError as error:
        raise TrialFailed(f"Locust's process could not be started: {error.strerror or error}") from error

    def pass_on() -> None:
        if control.order is not None:
            pipe.send(control.order)

    control.on_change(pass_on)
    pass_on()
    try:
        return await _listen(pipe, trial, emit, control)
    finally:
        control.on_change(None)
        await pipe.end(GOODBYE_S)


async def _listen(pipe: Pipe, trial: int, emit: Emit, control: Control) -> tuple[DriveReport, str | None]:
    """Pass on the events of Locust's process until it has ended."""
    passed_on = {"notice", "waiting"}
    async for event in pipe.events():
        word = event["event"]
        if word in passed_on:
            emit({**event, "trial": trial})
        elif word == "clock":
            passed_on.add("progress")
            control.begins(event["t0_ns"])
        elif word == "report":
            return DriveReport(**event["report"]), event["silence"]
        elif word == "refused":
            raise Interrupted("stopped before the load began") if control.stopped else TrialFailed(event["reason"])
    raise TrialFailed(f"Locust's process {ended_how(await pipe.process.wait())}")


async def send(sender: Sender) -> DriveReport:
    """Send the plan from here or let workers send it. Runs in a greenlet of Locust's."""
    sender.control.on_begin(lambda t0_ns: sender.post("clock", {"t0_ns": t0_ns}))
    from harness.drivers.locust.master import drive_alone, lead

    return await (lead if Options(**sender.order.locust).expect_workers else drive_alone)(sender)


if __name__ == "__main__":
    from harness.drivers.locust.loop import run_in_greenlet

    serve_parent(send, run_in_greenlet)
