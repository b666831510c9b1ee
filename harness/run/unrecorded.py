"""Rows for the requests of a trial whose process broke off: made by a process of its own, which plans the trial anew.

The run starts it as `python -P -m harness.run.unrecorded FILE`, so that a plan which may just have taken all memory is
not made by the process that keeps the run together. It answers with one line of JSON: {facts, rows} or {failed}.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from engines.base import EngineError
from harness.drivers.workers.lost_rows import lost_rows
from harness.drivers.workers.part import cell_from, schedule_of
from harness.errors import HarnessError
from harness.processes import ended_how, event_stream, module_command
from harness.run.entries import plan_entry
from harness.run.supervisor import ABORT_S, POLL_S, ChildCommand, StopRequest
from harness.schedule.requests import WHOLE
from harness.store.run import record_streams, record_writer, told_in

PART = "unrecorded"


@dataclass(frozen=True, slots=True)
class Broken:
    """A trial that broke off.

    scenario: as resolved.   cell, trial: indices.   salt: of the prompts.   folder: the trial's.   until_ns: when it
    broke off, as an offset from T0; negative where no request had been sent.   why: for the records.
    """

    scenario: Mapping[str, Any]
    cell: int
    trial: int
    salt: int
    folder: str
    until_ns: int
    why: str


async def write_unrecorded(broken: Broken, command: ChildCommand, stop: StopRequest) -> dict[str, Any]:
    """Let a process write the rows; what it answered, {failed: why} where they could not be written."""
    order = command.specification.with_name("unrecorded.json")
    try:
        order.write_text(json.dumps(asdict(broken)))
        arguments = module_command("harness.run.unrecorded", str(order), python=command.python)
        return await _answer(await command.started(arguments, asyncio.subprocess.DEVNULL), stop)
    except OSError as error:
        return {"failed": f"no process could be started for it: {error.strerror or error}"}
    finally:
        order.unlink(missing_ok=True)


async def _answer(process: asyncio.subprocess.Process, stop: StopRequest) -> dict[str, Any]:
    """What it says last; whoever wants to stop at once does not wait long for it."""
    assert process.stdout is not None
    left_s = ABORT_S
    reading = asyncio.ensure_future(process.stdout.read())
    try:
        while not reading.done():
            await asyncio.wait({reading}, timeout=POLL_S)
            left_s -= POLL_S * (stop.level > 1)
            if left_s <= 0 and not reading.done():
                return {"failed": "the run was stopped at once"}
        found: dict[str, Any] = json.loads(reading.result().splitlines()[-1])
    except (ValueError, IndexError):
        return {"failed": f"the process that was to write them {ended_how(await process.wait())}"}
    else:
        return found
    finally:
        reading.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def written(broken: Broken) -> dict[str, Any]:
    """Write the rows, and say how many and what the plan is. Raises HarnessError where it cannot be made."""
    cell = replace(cell_from(broken.scenario, broken.cell), salt=broken.salt)
    schedule, folder = schedule_of(cell, broken.trial), Path(broken.folder)
    told, rows = told_in(record_streams(folder)), 0
    with record_writer(folder, PART) as writer:
        for record in lost_rows(schedule, WHOLE, told, broken.until_ns, broken.why):
            writer.add(record)
            rows += 1
    return {"facts": plan_entry(schedule).stored(), "rows": rows}


def main() -> None:
    """Entry point."""
    broken = Broken(**json.loads(Path(sys.argv[1]).read_text()))
    emit = event_stream()
    try:
        emit(written(broken))
    except (EngineError, HarnessError) as error:
        emit({"failed": str(error)})


if __name__ == "__main__":
    main()
