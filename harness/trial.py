"""What the child process of a cell executes: start the engine, drive its trials in turn, stop.

The parent writes the cell's specification to a file, starts `python -P -m harness.trial FILE` in a session of its own,
reads one JSON event per line from the child's standard output and writes orders to its standard input: `stop` (offer no
more, finish what is in flight), `abort` (stop now). The end of standard input means that the parent is gone: abort.
Whatever the engine prints goes to the cell's log.

Events, by `event`: `alive` (once a second, to tell a hang from work), `prepared`, `started` {engine, start},
`trial_begun` {trial, its part of the manifest}, `progress` {trial, ...}, `trial_ended` {trial, status, reason, client},
`failed` {reason}, `stopped` (on request, before a trial was under way), `ended`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import engines
from engines.base import Endpoint, Engine, EngineError, EngineInfo, InProcessEngine, ModelReference, ServedEngine
from engines.models.source import resolve
from engines.models.tokenizer import Tokenizer, tokenizer
from harness.drivers import canary
from harness.drivers.asyncio_driver import drive
from harness.drivers.base import Control, DriveReport, DriveSettings
from harness.errors import HarnessError
from harness.load_part import PartSpec
from harness.loads import SingleUser
from harness.locust_load import drive_by_locust
from harness.locust_order import Order
from harness.matrix import Cell, TrialPlan, expand
from harness.progress import Progress
from harness.records import Phase, Record, Status
from harness.scenario import Scenario
from harness.store import record_writer
from harness.telemetry import resident_bytes, tree
from harness.workload import PHASES, Schedule, build

ALIVE_EVERY_S = 1.0
WATCH_ENGINE_EVERY_S = 0.2
PROGRESS_EVERY_S = 0.5
LONGEST_LOAD_TO_REPEAT_S = 20.0
LONGEST_DRAIN_S = 30.0
FIRST_REQUEST_SEED = 1

Emit = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Orders:
    """The parent's orders, as far as the cell has got: `driving` while a trial is under way."""

    control: Control
    driving: bool = False

    @property
    def stopping(self) -> bool:
        """Whether nothing new shall be begun."""
        return self.control.stopped


@dataclass(frozen=True, slots=True)
class CellSpec:
    """What the parent tells the child.

    folder: the cell's; trials: (index in the cell, folder) of those to run.   locust: how Locust is used where a load
    asks for it, as `Order` has it; `more` there: whether other cells' trials follow.
    """

    scenario: dict[str, Any]
    cell: int
    folder: str
    trials: Sequence[tuple[int, str]]
    locust: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the specification where the child will read it."""
        path.write_text(json.dumps(asdict(self)))


async def run_cell(cell: Cell, scenario: Scenario, spec: CellSpec, emit: Emit, orders: Orders) -> None:
    """Run the trials of one cell. Raises EngineError if the engine cannot be had."""
    async with started_engine(cell, scenario, emit) as engine:
        with canary.sender(isinstance(engine, ServedEngine)) as sender:
            for index, folder in spec.trials:
                orders.driving = True
                trial = Trial(cell, index, Path(folder), spec, engine, emit, orders.control, sender)
                usable = await run_trial(trial)
                orders.driving = False
                if not usable or orders.stopping:
                    return  # the parent starts a fresh child for what is left


@contextlib.asynccontextmanager
async def started_engine(cell: Cell, scenario: Scenario, emit: Emit) -> AsyncIterator[Engine]:
    """The engine, loaded, its start measured and reported; stopped at the end whatever happens.

    A start is measured twice: cold (the weight files dropped from the file cache, where the system lets us) with the
    first request after it, and warm. Loads that take long are not repeated, and the event says so.
    """
    engine = engines.create(cell.spec)
    weights = await asyncio.to_thread(engine.prepare)
    emit({"event": "prepared"})
    try:
        cold = drop_from_file_cache(weights)
        load_s, info = await timed_start(engine)
        pids = engine_pids(engine, info)
        start: dict[str, Any] = {"load_cold": cold, "load_warm_s": None, "load_note": None}
        start["load_s"] = load_s if pids else None  # a server that runs already was not loaded
        emit({"event": "started", "engine": describe(engine, info), "start": start})
        start["first_request_ms"] = await first_request(cell, engine)
        start["rss_after_load_bytes"] = resident_bytes(tree(pids)) if pids else None
        if weights:
            if load_s <= LONGEST_LOAD_TO_REPEAT_S or any("load_warm_s" in limit for limit in scenario.limits):
                await engine.stop()
                engine = engines.create(cell.spec)
                start["load_warm_s"], info = await timed_start(engine)
            else:
                start["load_note"] = (
                    f"not repeated warm: a start takes {load_s:.0f} s; a limit on load_warm_s asks for it"
                )
        emit({"event": "started", "engine": describe(engine, info), "start": start})
        yield engine
    finally:
        await engine.stop()


async def timed_start(engine: Engine) -> tuple[float, EngineInfo]:
    """Start an engine; seconds until it can take a request, and what it says of itself."""
    began = time.monotonic_ns()
    info = await engine.start()
    return (time.monotonic_ns() - began) / 1e9, info


def engine_pids(engine: Engine, info: EngineInfo) -> list[int]:
    """The processes whose memory is the engine's: this one where it runs in here, none where the server is not ours."""
    return list(info.pids) if isinstance(engine, ServedEngine) else [os.getpid()]


def describe(engine: Engine, info: EngineInfo) -> dict[str, Any]:
    """The engine's facts as the manifest keeps them."""
    known = {"pids": engine_pids(engine, info), "options": dict(info.options), "libraries": dict(info.libraries)}
    return asdict(info) | known


def drop_from_file_cache(files: Sequence[Path]) -> bool:
    """Ask the system to forget these files' pages; False where it cannot be asked (then no start is cold)."""
    if not files or not hasattr(os, "posix_fadvise"):
        return False
    for path in files:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


async def first_request(cell: Cell, engine: Engine) -> float | None:
    """Milliseconds of the first request after the start, due to done; None if it did not succeed.

    Its prompt comes from a seed of its own, so that no later prompt finds its beginning in a prefix cache.
    """
    plan = cell.trials[0]
    workload = next((one.workload for one in plan.classes.values() if one.workload is not None), plan.workload)
    one = SingleUser.model_validate({"kind": "single_user", "requests": 1, "timeout": f"{plan.timeout_s}s"})
    schedule = build(one, workload, plan.seed ^ FIRST_REQUEST_SEED, tokenizer=tokenizer_of(cell.spec.model))
    records: list[Record] = []
    await drive(schedule, target_of(engine), settings_of(plan), records.append)
    return next(
        (
            (record.done_ns - record.due_ns) / 1e6
            for record in records
            if record.status == Status.OK and record.done_ns is not None and record.due_ns is not None
        ),
        None,
    )


@functools.cache  # a child has one cell, and a hub is not to be asked again between its trials
def tokenizer_of(model: ModelReference | None) -> Tokenizer | None:
    """The tokenizer of the cell's model, where it can be had without the engine."""
    return None if model is None else tokenizer(resolve(model))


def settings_of(plan: TrialPlan) -> DriveSettings:
    """How the driver treats the requests of a trial."""
    timeout_s = plan.timeout_s
    return DriveSettings(timeout_ns=round(timeout_s * 1e9), drain_ns=round(min(timeout_s, LONGEST_DRAIN_S) * 1e9))


def target_of(engine: Engine) -> InProcessEngine | Endpoint:
    """What the driver talks to."""
    return engine.endpoint() if isinstance(engine, ServedEngine) else engine  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Trial:
    """One load on one cell, and what driving it needs. sender: where the canary's events come from."""

    cell: Cell
    index: int
    folder: Path
    spec: CellSpec
    engine: Engine
    emit: Emit
    control: Control
    sender: canary.Sender

    @property
    def plan(self) -> TrialPlan:
        """Its load and what goes with it."""
        return self.cell.trials[self.index]

    @property
    def settings(self) -> DriveSettings:
        """How the driver treats its requests."""
        return replace(settings_of(self.plan), canary_port=self.sender.port)


async def run_trial(trial: Trial) -> bool:
    """Drive one load, its records streaming to the trial's folder; whether the engine can take another."""
    plan = trial.plan
    words = tokenizer_of(trial.cell.spec.model)
    schedule = build(plan.load, plan.workload, plan.seed, classes=plan.classes, tokenizer=words)
    trial.emit({"event": "trial_begun", "trial": trial.index, **trial_facts(schedule)})
    drive_it = send_by_locust if plan.load.driver == "locust" else send_from_here
    async with background(watch_engine(trial.engine, trial.control)) as watch:
        report, silence = await drive_it(trial, schedule)
        died = watch.result() if watch.done() else None
    report.notes += [trial.sender.missing] if trial.sender.missing else []
    reason = died or silence
    status = "failed" if reason else "interrupted" if report.interrupted else "complete"
    ended = {"event": "trial_ended", "trial": trial.index, "status": status, "reason": reason, "client": asdict(report)}
    trial.emit(ended)
    return reason is None


async def send_from_here(trial: Trial, schedule: Schedule) -> tuple[DriveReport, str | None]:
    """Send the plan from this process; the client's report, and why the server was silent to the end, if it was."""
    progress = Progress(schedule)
    with record_writer(trial.folder) as writer:

        def keep(record: Record) -> None:
            writer.add(record)
            progress.add(record)

        async with background(report_progress(progress, trial.index, trial.emit)):
            report = await drive(schedule, target_of(trial.engine), trial.settings, keep, trial.control)
    return report, progress.silence()


async def send_by_locust(trial: Trial, schedule: Schedule) -> tuple[DriveReport, str | None]:
    """The same from Locust's process, or from its workers."""
    target = target_of(trial.engine)
    assert isinstance(target, Endpoint)  # others were refused before anything ran
    spec = trial.spec
    part = PartSpec.of(spec.scenario, trial.cell.index, trial.index, schedule.plan_hash, trial.settings, target)
    later = [index for index, _ in spec.trials[[index for index, _ in spec.trials].index(trial.index) + 1 :]]
    more = any(trial.cell.trials[index].load.driver == "locust" for index in later)
    options = {**spec.locust, "more": more or bool(spec.locust.get("more"))}
    order = Order(asdict(part), str(trial.folder), dict(target.headers), **options)
    return await drive_by_locust(order, trial.index, trial.emit, trial.control)


def trial_facts(schedule: Schedule) -> dict[str, Any]:
    """What the manifest says of a plan before the first request."""
    phases = {} if schedule.phases is None else {p: int((schedule.phases == n).sum()) for n, p in enumerate(PHASES)}
    whole = schedule.count if schedule.window.start_ns == 0 else None
    return {
        "loop": str(schedule.loop),
        "plan_hash": schedule.plan_hash,
        "window": {"start_ns": schedule.window.start_ns, "end_ns": schedule.window.end_ns},
        "planned": {
            "total": schedule.count,
            "warmup": phases.get(Phase.WARMUP),
            "measure": phases.get(Phase.MEASURE, whole),
        },
        "prompt_length_source": schedule.prompt_sources,
    }


@contextlib.asynccontextmanager
async def background(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task that lives as long as the block."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def watch_engine(engine: Engine, control: Control) -> str | None:
    """Wait until a served engine's process has ended; stop the load then, and say why it ended."""
    if not isinstance(engine, ServedEngine):
        return None
    began = time.monotonic()
    while (reason := engine.alive()) is None:
        await asyncio.sleep(WATCH_ENGINE_EVERY_S)
    control.stop()
    return f"the engine ended {time.monotonic() - began:.1f} s into the trial: {reason}"


async def report_progress(progress: Progress, index: int, emit: Emit) -> None:
    """Say how far the trial is, twice a second."""
    while True:
        emit({"event": "progress", "trial": index, **progress.facts()})
        await asyncio.sleep(PROGRESS_EVERY_S)


async def say_alive(emit: Emit) -> None:
    """Let the parent tell work from a hang."""
    while True:
        emit({"event": "alive", "utc": datetime.now(UTC).isoformat(timespec="seconds")})
        await asyncio.sleep(ALIVE_EVERY_S)


async def obey(orders: Orders, body: asyncio.Task[None]) -> None:
    """Carry out the parent's commands; without a parent there is nobody to measure for."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"stop":
            orders.control.stop()
            if not orders.driving:
                body.cancel()  # nothing is in flight: an engine that is only starting need not be waited for
        elif line.strip() == b"abort":
            orders.control.abort()
    orders.control.abort()
    body.cancel()


async def execute(spec: CellSpec, emit: Emit) -> None:
    """Run the cell, watching the parent."""
    scenario = Scenario.model_validate(spec.scenario)
    cell = next(cell for cell in expand(scenario) if isinstance(cell, Cell) and cell.index == spec.cell)
    orders = Orders(Control())
    body = asyncio.ensure_future(run_cell(in_the_child(cell, spec), scenario, spec, emit, orders))
    async with background(say_alive(emit)), background(obey(orders, body)):
        try:
            await body
        except asyncio.CancelledError:
            emit({"event": "stopped"})
        except (EngineError, HarnessError) as error:
            emit({"event": "failed", "reason": str(error)})


def in_the_child(cell: Cell, spec: CellSpec) -> Cell:
    """The cell as the child has it: its engine's output goes to the cell's log; values that are not stored because they
    may be secret (the parent passed them on in our environment) stand where the stored scenario has asterisks.
    """
    env = {name: os.environ.get(name, value) for name, value in cell.spec.env.items()}
    return replace(cell, spec=replace(cell.spec, log_path=Path(spec.folder) / "log.txt", env=env))


def event_stream() -> Emit:
    """Events go to the original standard output; everything else that is printed goes to the log (standard error)."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    return emit


def main() -> None:
    """Entry point of the child; its exit code says only whether it got to the end."""
    spec = CellSpec(**json.loads(Path(sys.argv[1]).read_text()))
    emit = event_stream()
    with contextlib.suppress(BrokenPipeError):
        event_loop_runner()(execute(spec, emit))
        emit({"event": "ended"})


def event_loop_runner() -> Callable[[Any], Any]:
    """uvloop's where it is installed: it costs the client less than the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    runner: Callable[[Any], Any] = uvloop.run
    return runner


if __name__ == "__main__":
    main()
