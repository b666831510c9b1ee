"""Child process of a cell: start the engine, drive its trials in turn, stop.

The parent writes the cell's specification to a file, starts `python -P -m harness.run.child FILE` in a session of its
own, reads a JSON event per line from standard output and writes orders to standard input: `stop` (send no more, finish
the requests in flight), `abort` (stop now), `go` (the answer to `waiting`). The end of standard input means that the
parent is gone: abort. Output of the engine goes to the cell's log.

Events, by `event`: `alive` (once a second, to detect a hang), `prepared`,
`waiting` {needs} (for its turn beside another child, see `harness.run.turns`), `starting` and `stopping` (the engine),
`started` {engine, start}, `planning` {trial}, `trial_begun` {trial, its part of the manifest}, `clock` {trial, t0_ns,
window} (T0 is fixed; of a search again when its window is), `progress` {trial, ...}, `search` {trial, plan, search},
`trial_ended` {trial, status, reason, client, prompts_asked}, `skipped` {reason} (the cell cannot run here), `failed`
{reason}, `stopped` (before the first request of a trial was due), those of `harness.run.scoring`, `ended`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from engines.base import (
    CachesPrompts,
    Endpoint,
    Engine,
    EngineError,
    InProcessEngine,
    LevelUnsupported,
    ServedEngine,
)
from harness.analysis.prompt_reuse import SentLines
from harness.drivers import canary
from harness.drivers.base import Control, DriveReport, DriveSettings
from harness.drivers.drive import drive
from harness.drivers.locust.process import drive_by_locust
from harness.drivers.progress import Progress
from harness.drivers.retry_policy import RetryPolicy
from harness.drivers.workers.count import WorkerCount
from harness.drivers.workers.part import PartSpec, schedule_of
from harness.drivers.workers.pipes import LoadProcesses
from harness.drivers.workers.worker import Order
from harness.errors import CellSkipped, HarnessError, Interrupted, TrialFailed, refusal
from harness.processes import PROGRESS_EVERY_S, Emit, aside, background, event_loop_runner, event_stream, parent_orders
from harness.records import Record
from harness.run.engine import needs, settings_of, started_engine, target_of
from harness.run.entries import plan_entry
from harness.run.scoring import QualityOrder, score_cell, score_reference
from harness.run.searching import Searching
from harness.scenario.model import Scenario
from harness.scenario.reader import as_checked
from harness.schedule.cells import Cell, TrialPlan
from harness.schedule.matrix import cell_at
from harness.schedule.prompts import mix
from harness.schedule.requests import Schedule
from harness.store.run import flush_or_end, forget_records, record_writer
from harness.telemetry.cgroup import raise_file_limit

ALIVE_EVERY_S = 1.0
WATCH_ENGINE_EVERY_S = 0.2
LAST_READING_S = 0.2  # for the parent's last reading of the server's page


@dataclass(slots=True)
class Orders:
    """Orders of the parent."""

    control: Control
    driving: bool = False  # a plan is being sent
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def turn(self, emit: Emit, needs: dict[str, Any] | None = None) -> None:
        """Wait until the parent lets this process go on. needs: memory of an engine that is to start."""
        self.go.clear()
        emit({"event": "waiting", "needs": needs})
        await self.go.wait()


@dataclass(frozen=True, slots=True)
class CellSpec:
    """Specification of a cell for the child."""

    scenario: dict[str, Any]
    cell: int
    folder: str  # of the cell
    trials: Sequence[tuple[int, str]]  # (index in the cell, folder) of those to run
    locust: dict[str, Any] = field(default_factory=dict)  # `Options`; `more`: trials of other cells follow
    quality: dict[str, Any] = field(default_factory=dict)  # a `QualityOrder`: after the trials, or for the reference
    salt: int = 0  # of its prompts
    in_turns: bool = False  # another child is up at the same time: each works while the other waits

    def save(self, path: Path) -> None:
        """Write the specification for the child."""
        path.write_text(json.dumps(asdict(self)))


async def run_cell(cell: Cell, scenario: Scenario, spec: CellSpec, emit: Emit, orders: Orders) -> None:
    """Run the trials of one cell, then score it. Raises EngineError if the engine cannot start."""

    async def turn(prepared: Engine | None = None) -> None:
        if spec.in_turns:
            memory = None if prepared is None else await aside(lambda: needs(prepared, cell.spec))
            await orders.turn(emit, memory)

    async with started_engine(cell, scenario, emit, turn) as (engine, cell):
        asked = SentLines()
        with canary.sender(isinstance(engine, ServedEngine)) as sender:
            for index, folder in spec.trials:
                await turn()
                trial = Trial(cell, index, Path(folder), spec, engine, emit, orders.control, sender, asked)
                emit({"event": "planning", "trial": index})
                schedule = await aside(partial(schedule_of, cell, index))
                orders.driving = True
                usable = await run_trial(trial, schedule)
                orders.driving = False
                if not usable or orders.control.stopped:
                    return  # the parent starts a new child for the other trials
        if spec.quality:
            await turn()
            await score_cell(cell, QualityOrder(**spec.quality), engine, Path(spec.folder), emit)
        await turn()  # its end takes time of the processor, too


@dataclass(frozen=True, slots=True)
class Trial:
    """Load on a cell, and the engine and streams that it uses."""

    cell: Cell
    index: int
    folder: Path
    spec: CellSpec
    engine: Engine
    emit: Emit
    control: Control
    sender: canary.Sender
    asked: SentLines  # prompts of earlier loads

    @property
    def plan(self) -> TrialPlan:
        """Load with its settings."""
        return self.cell.trials[self.index]

    @property
    def target(self) -> InProcessEngine | Endpoint:
        """Where the load goes."""
        return target_of(self.engine, self.plan.classes)

    @property
    def settings(self) -> DriveSettings:
        """Settings of the driver."""
        recount = self.cell.engine != "simulated"  # its text is filler
        own = replace(settings_of(self.plan), canary_port=self.sender.port, recount=recount)
        return replace(own, most_in_flight=self.plan.load.cap, retries=RetryPolicy.of(self.plan.load.retries))


async def run_trial(trial: Trial, schedule: Schedule) -> bool:
    """Drive one load, with records streaming to the trial's folder; return whether the engine can take another."""
    async with background(watch_engine(trial.engine, trial.control)) as watch:
        try:
            report, silence = await sent_by_enough(trial, schedule)
        except Interrupted:
            if watch.done() and (why := watch.result()):
                raise TrialFailed(why) from None  # the engine ended it before the load began, and not the user
            raise
        died = watch.result() if watch.done() else None
    report.notes += [trial.sender.missing] if trial.sender.missing else []
    reason = died or silence
    status = "failed" if reason else "interrupted" if report.interrupted else "complete"
    why = reason or ("it was stopped before its end" if report.interrupted else None)
    asked = trial.asked.add(schedule, report.recorded - report.not_sent)
    ended = {"status": status, "reason": why, "client": asdict(report), "prompts_asked": asked}
    trial.emit({"event": "trial_ended", "trial": trial.index, **ended})
    if reason is None and isinstance(trial.engine, ServedEngine):
        await asyncio.sleep(LAST_READING_S)
    return reason is None


async def sent_by_enough(trial: Trial, schedule: Schedule) -> tuple[DriveReport, str | None]:
    """Send the plan, from its beginning with more load processes if their warm-up was read late.

    The prompts are new ones then: a server may have kept those of the first try.
    """
    count, notes = workers_of(trial, schedule), list[str]()
    while True:
        await announce(trial, schedule, count.number)
        with trial.control.one_try() as control:
            report, silence = await sent(replace(trial, control=control), schedule, count)
        if not count.too_few or trial.control.stopped:
            report.notes += notes
            return report, silence
        forget_records(trial.folder)
        notes.append(count.grow())
        trial.asked.add(schedule, report.recorded - report.not_sent)
        trial = replace(trial, cell=replace(trial.cell, salt=mix(trial.cell.salt + count.number) >> 8))
        schedule = await aside(partial(schedule_of, trial.cell, trial.index))
        trial.emit({"event": "notice", "trial": trial.index, "text": notes[-1]})


def workers_of(trial: Trial, schedule: Schedule) -> WorkerCount:
    """Return the number of load processes.

    It is one for Locust, which has its own, for an engine in this process, for a cap, which is that of one process, and
    for a schedule that grows.
    """
    load = trial.plan.load
    alone = load.driver == "locust" or load.cap is not None or schedule.grows
    if not isinstance(trial.engine, ServedEngine) or alone:
        return WorkerCount(1, 1)
    return WorkerCount.of(schedule, load.workers, chunks=trial.settings.keep_chunks)


async def announce(trial: Trial, schedule: Schedule, workers: int) -> None:
    """Tell the parent that the trial begins, and when its clock does."""
    reset = await cache_reset(trial)
    entry = plan_entry(schedule)
    entry.driver, entry.workers = trial.plan.load.driver, workers
    entry.salt, entry.cache_reset = trial.cell.salt or None, reset
    stored = entry.stored()
    trial.emit({"event": "trial_begun", "trial": trial.index, **stored})
    window = dict.fromkeys(stored["window"]) if schedule.grows else stored["window"]  # known when it begins
    clock = {"event": "clock", "trial": trial.index, "window": window}
    trial.control.on_begin(lambda t0_ns: trial.emit({**clock, "t0_ns": t0_ns}))


async def cache_reset(trial: Trial) -> bool | None:
    """Let the engine drop its prompt cache; return whether it did, None if it has no way to."""
    if not isinstance(trial.engine, CachesPrompts):
        return None
    reset = await trial.engine.reset_cache()
    if reset:
        trial.asked.forget()
    return reset


async def sent(trial: Trial, schedule: Schedule, count: WorkerCount) -> tuple[DriveReport, str | None]:
    """Send the plan; return the report, and the reason if the server was silent to the end."""
    if trial.plan.load.driver == "locust":
        return await send_by_locust(trial, schedule)
    if count.number > 1:
        return await send_by_workers(trial, schedule, count)
    return await send_from_here(trial, schedule, count)


async def send_from_here(trial: Trial, schedule: Schedule, count: WorkerCount) -> tuple[DriveReport, str | None]:
    """Send the plan from this process."""
    progress = Progress(schedule)
    search = Searching(trial.index, trial.plan, schedule, trial.control, trial.emit) if schedule.grows else None
    with record_writer(trial.folder) as writer:

        def keep(record: Record) -> None:
            writer.add(record)
            progress.add(record)
            if search is not None:
                search.seen.add(record)

        store = partial(flush_or_end, writer, trial.control.abort)
        async with (
            background(report_progress(progress, trial, count, store)),
            contextlib.nullcontext() if search is None else background(search.run()),
        ):
            report = await drive(schedule, trial.target, trial.settings, keep, trial.control)
    return report, progress.silence()


async def send_by_locust(trial: Trial, schedule: Schedule) -> tuple[DriveReport, str | None]:
    """Send the plan from Locust's process, or from its workers."""
    spec, (part, target) = trial.spec, part_of(trial, schedule)
    numbers = [index for index, _ in spec.trials]
    later = numbers[numbers.index(trial.index) + 1 :]
    more = any(trial.cell.trials[index].load.driver == "locust" for index in later)
    options = {**spec.locust, "more": more or bool(spec.locust.get("more"))}
    order = Order(part, str(trial.folder), headers=dict(target.headers), locust=options)
    return await drive_by_locust(order, trial.index, trial.emit, trial.control)


async def send_by_workers(trial: Trial, schedule: Schedule, count: WorkerCount) -> tuple[DriveReport, str | None]:
    """Send the plan from several processes that share it."""
    part, target = part_of(trial, schedule)
    processes = LoadProcesses(part, schedule, trial.folder, trial.control, count.number)
    async with background(report_progress(processes, trial, count)):
        return await processes.drive(target.headers)


def part_of(trial: Trial, schedule: Schedule) -> tuple[PartSpec, Endpoint]:
    """Return the specification for processes that send the load, and the target."""
    target = trial.target
    assert isinstance(target, Endpoint)  # other engines were refused before
    cell, settings = trial.cell, trial.settings
    part = (trial.spec.scenario, cell.index, trial.index, schedule.plan_hash, settings, target, cell.salt, cell.refusal)
    return PartSpec(*part), target


async def watch_engine(engine: Engine, control: Control) -> str | None:
    """Wait until a served engine's process ends, then stop the load; return why it ended."""
    if not isinstance(engine, ServedEngine):
        return None
    began = time.monotonic()
    while (reason := engine.alive()) is None:
        await asyncio.sleep(WATCH_ENGINE_EVERY_S)
    control.stop()
    return f"the engine ended {time.monotonic() - began:.1f} s into the trial: {reason}"


async def report_progress(
    progress: Progress | LoadProcesses, trial: Trial, count: WorkerCount, store: Callable[[], None] = lambda: None
) -> None:
    """Report the progress of the trial twice a second; end this try of it if it has too few load processes.

    `store` writes rows that wait for others.
    """
    while True:
        facts = progress.facts()
        trial.emit({"event": "progress", "trial": trial.index, **facts})
        store()
        if count.look(facts):
            trial.control.abort()
        await asyncio.sleep(PROGRESS_EVERY_S)


async def report_alive(emit: Emit) -> None:
    """Emit `alive`, so that the parent can detect a hang."""
    while True:
        emit({"event": "alive", "utc": datetime.now(UTC).isoformat(timespec="seconds")})
        await asyncio.sleep(ALIVE_EVERY_S)


async def obey(orders: Orders, body: asyncio.Task[None]) -> None:
    """Carry out the parent's orders; abort when the parent is gone."""
    async for word, _ in parent_orders():
        if word == "stop":
            orders.control.stop()
            if not orders.driving:
                body.cancel()  # no request is in flight
        elif word == "abort":
            orders.control.abort()
        elif word == "go":
            orders.go.set()
    orders.control.abort()
    body.cancel()


async def execute(spec: CellSpec, emit: Emit) -> None:
    """Run the cell, or score the reference, while obeying the parent."""
    scenario = as_checked(spec.scenario)
    cell = cell_at(scenario, spec.cell)
    assert isinstance(cell, Cell)  # the parent starts no child for others
    cell, orders = in_the_child(cell, spec), Orders(Control())
    scores = QualityOrder(**spec.quality) if spec.quality.get("making") else None
    work = run_cell(cell, scenario, spec, emit, orders) if scores is None else score_reference(cell, scores, emit)
    body = asyncio.ensure_future(work)
    async with background(report_alive(emit)), background(obey(orders, body)):
        try:
            await body
        except (asyncio.CancelledError, Interrupted):
            emit({"event": "stopped"})
        except (CellSkipped, LevelUnsupported) as error:
            emit({"event": "skipped", "reason": str(error)})
        except MemoryError:
            emit({"event": "failed", "reason": "memory ran out in the process of the configuration"})
        except (EngineError, HarnessError) as error:
            emit({"event": "failed", "reason": str(error)})
        except (OSError, RuntimeError, ImportError) as error:
            if (why := refusal(error)) is None:
                raise
            emit({"event": "failed", "reason": why})


def in_the_child(cell: Cell, spec: CellSpec) -> Cell:
    """Return the cell with its salt, its engine's log, and its secrets, which the parent put in our environment."""
    env = {name: os.environ.get(name, value) for name, value in cell.spec.env.items()}
    return replace(cell, salt=spec.salt, spec=replace(cell.spec, log_path=Path(spec.folder) / "log.txt", env=env))


def main() -> None:
    """Run the child. Its exit code only shows whether it reached the end."""
    spec = CellSpec(**json.loads(Path(sys.argv[1]).read_text()))
    emit = event_stream()
    raise_file_limit()
    with contextlib.suppress(BrokenPipeError):
        event_loop_runner()(execute(spec, emit))
        emit({"event": "ended"})


if __name__ == "__main__":
    main()
