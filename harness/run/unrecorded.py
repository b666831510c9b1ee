"""Write rows for the unrecorded requests of an incomplete trial, in a process that plans the trial again.

The run starts it as `python -P -m harness.run.unrecorded FILE`, so that a plan that takes all memory does not end the
run. It answers with one line of JSON: {facts, rows} or {failed}.
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
from harness.errors import HarnessError, TrialFailed
from harness.processes import ended_how, event_stream, module_command
from harness.run.entries import plan_entry
from harness.run.supervisor import ABORT_S, POLL_S, ChildCommand, StopRequest
from harness.schedule.requests import WHOLE
from harness.store.run import record_streams, record_writer, recorded_in


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Trial whose process ended early."""

    scenario: Mapping[str, Any]  # as resolved
    cell: int
    trial: int
    salt: int
    folder: str  # of the trial
    until_ns: int  # its end as an offset from T0; negative if no request was sent
    why: str  # for the records


async def write_unrecorded(trial: Incomplete, command: ChildCommand, stop: StopRequest) -> dict[str, Any]:
    """Let a process write the rows; return its answer, {failed: why} if they could not be written."""
    order = command.specification.with_name("unrecorded.json")
    try:
        order.write_text(json.dumps(asdict(trial)))
        arguments = module_command("harness.run.unrecorded", str(order), python=command.python)
        return await _answer(await command.started(arguments, asyncio.subprocess.DEVNULL), stop)
    except OSError as error:
        return {"failed": f"no process could be started for it: {error.strerror or error}"}
    finally:
        order.unlink(missing_ok=True)


async def _answer(process: asyncio.subprocess.Process, stop: StopRequest) -> dict[str, Any]:
    """Return its last line. A request to stop at once shortens the wait."""
    assert process.stdout is not None
    left_s = ABORT_S
    reading = asyncio.ensure_future(process.stdout.read())
    try:
        while not reading.done():
            await asyncio.wait({reading}, timeout=POLL_S)
            left_s -= POLL_S * (stop.level > 1)
            if left_s <= 0 and not reading.done():
                return {"failed": "the run was stopped at once"}
        return dict(json.loads(reading.result().splitlines()[-1]))
    except (ValueError, IndexError):
        return {"failed": f"the process that was to write them {ended_how(await process.wait())}"}
    finally:
        reading.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def written(trial: Incomplete) -> dict[str, Any]:
    """Write the rows; return their number and the facts of the plan. Raises HarnessError if it cannot be made."""
    cell = replace(cell_from(trial.scenario, trial.cell), salt=trial.salt)
    schedule, folder = schedule_of(cell, trial.trial), Path(trial.folder)
    if schedule.grows:
        raise TrialFailed("the plan of a search is made while it runs")
    recorded, rows = recorded_in(record_streams(folder)), 0
    with record_writer(folder, "unrecorded") as writer:
        for record in lost_rows(schedule, WHOLE, recorded, trial.until_ns, trial.why):
            writer.add(record)
            rows += 1
    return {"facts": plan_entry(schedule).stored(), "rows": rows}


def main() -> None:
    """Write the rows that the order file describes."""
    trial = Incomplete(**json.loads(Path(sys.argv[1]).read_text()))
    emit = event_stream()
    try:
        emit(written(trial))
    except (EngineError, HarnessError) as error:
        emit({"failed": str(error)})


if __name__ == "__main__":
    main()
