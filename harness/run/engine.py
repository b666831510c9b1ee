"""Starting the engine of a cell: how long it takes to load, its first request, what it says of itself.

Whether what an engine will need is free, asked before it is started.

One that does not fit takes minutes to fail, and may take the machine with it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

import engines
from engines.base import (
    Endpoint,
    Engine,
    EngineError,
    EngineInfo,
    EngineSpec,
    EstimatingEngine,
    InProcessEngine,
    MemoryEstimate,
    ServedEngine,
)
from harness.drivers.base import DriveSettings
from harness.drivers.drive import drive
from harness.drivers.workers.part import tokenizer_of
from harness.errors import CellSkipped
from harness.processes import Emit, aside
from harness.records import Record, Status
from harness.scenario.lengths import FixedLength
from harness.scenario.loads import Sustained
from harness.scenario.model import Scenario
from harness.scenario.workload import Workload
from harness.schedule.cells import Cell, TrialPlan
from harness.schedule.devices import CPU, visible_gpus
from harness.schedule.requests import build
from harness.store.manifest import EngineEntry, StartEntry
from harness.telemetry.cgroup import free_memory_bytes
from harness.telemetry.file_cache import dropped_share
from harness.telemetry.gpus import find_gpus
from harness.telemetry.processes import resident_bytes, tree
from harness.units import format_bytes
from harness.verdict.thresholds import COLD_SHARE

PARTS = {"weights": "weights", "kv_cache": "KV cache", "runtime": "runtime"}


def too_little_memory(engine: Engine, spec: EngineSpec) -> str | None:
    """What the engine needs and what is free, in one sentence, where that is too little; None where it is enough, or
    where one of the two is not known. For an engine that was prepared and not yet started.
    """
    needed = engine.memory_needed() if isinstance(engine, EstimatingEngine) else None
    free = None if needed is None else free_bytes(needed, spec)
    if needed is None or free is None or needed.bytes <= free:
        return None
    parts = ", ".join(f"{PARTS.get(name, name)} {format_bytes(count)}" for name, count in needed.parts.items() if count)
    where = "here" if needed.device == CPU else "on the GPUs"
    return f"needs at least {format_bytes(needed.bytes)} ({parts}); {format_bytes(free)} is free {where}"


def free_bytes(needed: MemoryEstimate, spec: EngineSpec) -> int | None:
    """Memory that is free on the device of an estimate; None where that cannot be read."""
    if needed.device == CPU:
        return free_memory_bytes()
    try:
        named = [int(one) for one in spec.devices] if spec.devices else visible_gpus({**os.environ, **spec.env})
        gpus, _ = find_gpus()
        return None if gpus is None or named == () else gpus.free_bytes(named or ())
    except (RuntimeError, ValueError):
        return None  # which GPUs, or what is free on them, cannot be told


LONGEST_LOAD_TO_REPEAT_S = 20.0
LONGEST_DRAIN_S = 30.0
FIRST_REQUEST_SEED = 1
WARM_UP_SEED = 2
WARM_UP_TOKENS = 16
MOST_TOGETHER = 8
REFUSALS = (400, 422)


@contextlib.asynccontextmanager
async def started_engine(cell: Cell, scenario: Scenario, emit: Emit) -> AsyncIterator[tuple[Engine, Cell]]:
    """The engine, loaded, its start measured and reported, and the cell as its server takes it; the engine is stopped
    at the end whatever happens.

    A start is measured twice: cold (the weight files dropped from the file cache, and looked whether they are) with the
    first request after it, and warm. Loads that take long are not repeated, and the event says so. What the library of
    an engine in this process takes to be imported is timed once and is in both: a server would import it each time.
    No instance is measured with the first request that it ever gets.

    Raises CellSkipped where there is too little memory, LevelUnsupported and other EngineErrors as the engine does.
    """
    engine = engines.create(cell.spec)
    weights = await aside(engine.prepare)
    emit({"event": "prepared"})
    import_s = await aside(lambda: timed_import(engine))
    if (reason := await aside(lambda: too_little_memory(engine, cell.spec))) is not None:
        raise CellSkipped(reason)
    try:
        start = start_entry(await aside(lambda: dropped_share(weights)), import_s)
        emit(starting(engine))
        load_s, info = await timed_start(engine, import_s)
        start.ready_ns = time.monotonic_ns()
        pids = engine_pids(engine, info)
        start.load_s = load_s if pids else None  # a server that runs already was not loaded
        emit(started_event(engine, info, start))
        start.first_request_ms, cell = await first_request(cell, engine)
        start.temperature_refused, start.warm_up = cell.refusal, 1
        start.rss_after_load_bytes = resident_bytes(tree(pids)) if pids else None
        if weights:
            if load_s <= LONGEST_LOAD_TO_REPEAT_S or any("load_warm_s" in limit for limit in scenario.limits):
                await engine.stop()
                engine = engines.create(cell.spec)
                await aside(engine.prepare)  # of a start only loading is timed, the second time too
                emit(starting(engine))
                start.load_warm_s, info = await timed_start(engine, import_s)
                start.warm_up = 0
            else:
                start.load_note = f"not repeated warm: a start takes {load_s:.0f} s; a limit on load_warm_s asks for it"
            start.warm_up += await warm_up(cell, engine, start.warm_up)
        emit(started_event(engine, info, start))
        yield engine, cell
    finally:
        emit({"event": "stopping"})
        await engine.stop()


def starting(engine: Engine) -> dict[str, Any]:
    """The event that tells where to look for the memory of an engine that is about to start."""
    return {"event": "starting", "in_process": not isinstance(engine, ServedEngine)}


def started_event(engine: Engine, info: EngineInfo, start: StartEntry) -> dict[str, Any]:
    """Return the event that tells what the engine is, and how it started."""
    return {"event": "started", "engine": describe(engine, info).stored(), "start": start.stored()}


def start_entry(dropped: float | None, import_s: float | None) -> StartEntry:
    """Return what is known of a start that begins now. dropped: the share of the weights that the file cache forgot."""
    return StartEntry(
        began_ns=time.monotonic_ns(),
        load_cold=dropped is not None and dropped >= COLD_SHARE.value,
        load_dropped_share=dropped,
        load_warm_s=None,
        load_note=None,
        import_s=import_s,
    )


def timed_import(engine: Engine) -> float | None:
    """Seconds in which the engine's library is imported into this process; None where it is not needed here, or cannot
    be imported.
    """
    import_library = getattr(engine, "import_library", None)
    if import_library is None:
        return None
    began = time.monotonic_ns()
    try:
        import_library()
    except Exception:  # whatever it is, the start meets it again, and says so
        return None
    return (time.monotonic_ns() - began) / 1e9


async def timed_start(engine: Engine, import_s: float | None) -> tuple[float, EngineInfo]:
    """Start an engine; seconds until it can take a request, import_s among them, and what it says of itself."""
    began = time.monotonic_ns()
    info = await engine.start()
    return (import_s or 0.0) + (time.monotonic_ns() - began) / 1e9, info


def engine_pids(engine: Engine, info: EngineInfo) -> list[int]:
    """The processes whose memory is the engine's: this one where it runs in here, none where the server is not ours."""
    return list(info.pids) if isinstance(engine, ServedEngine) else [os.getpid()]


def describe(engine: Engine, info: EngineInfo) -> EngineEntry:
    """Return the engine's facts as the manifest keeps them. Raises EngineError where they are none that can be kept."""
    known = {"pids": engine_pids(engine, info), "in_process": not isinstance(engine, ServedEngine)}
    try:
        return EngineEntry.model_validate(asdict(info) | known)
    except ValidationError as error:
        first = error.errors()[0]
        raise EngineError(f"{info.name} says of itself {first['loc'][0]}={first['input']!r}: {first['msg']}") from None


async def first_request(cell: Cell, engine: Engine) -> tuple[float | None, Cell]:
    """Milliseconds of the first request after the start, due to done; None if it did not succeed. And the cell: another
    where the server refuses temperature 0, but takes the same request without.
    """
    record = await one_request(cell, engine)
    if isinstance(engine, ServedEngine) and (words := refused_temperature(record)) is not None:
        without = cell.refused(words)
        again = await one_request(without, engine)
        if again is not None and again.status == Status.OK:
            record, cell = again, without
    if record is None or record.status != Status.OK or record.done_ns is None or record.due_ns is None:
        return None, cell
    return (record.done_ns - record.due_ns) / 1e6, cell


async def one_request(cell: Cell, engine: Engine) -> Record | None:
    """What became of a request like those of the cell's loads, greedy if any of them is."""
    every = [workload for plan in cell.trials for workload in plan.workloads]
    workload = next((one for one in every if one.sampling.temperature == 0), every[0])
    records = await asked(cell, engine, workload, FIRST_REQUEST_SEED)
    return next((record for record in records if record.request == 0), None)


def refused_temperature(record: Record | None) -> str | None:
    """What a server said that refused a request for its temperature; None where it did not."""
    said = (record and record.error) or ""
    refused = record is not None and record.http_status in REFUSALS and "temperature" in said.lower()
    return said if refused else None


async def warm_up(cell: Cell, engine: Engine, answered: int) -> int:
    """Send a fresh instance short requests that nobody measures: one alone, then as many together as the loads will
    have in flight. How many succeeded.

    answered: the requests that it has answered. Prompts are made up, for those of a file would be in a cache when they
    are measured.
    """
    like = cell.trials[0].workloads[0]
    length = FixedLength(value=WARM_UP_TOKENS, exact=like.output_tokens.exact)
    plain = {"prompts": None, "prefix": None, "repeat": None, "turns": None, "cancel": None, "output_tokens": length}
    together = min(MOST_TOGETHER, max(most_at_once(plan) for plan in cell.trials))
    rounds = [1] * (answered == 0) + [together] * (together > 1)
    found: list[Record] = []
    for number, users in enumerate(rounds):
        found += await asked(cell, engine, like.model_copy(update=plain), WARM_UP_SEED + number, users)
    return sum(record.status == Status.OK for record in found)


def most_at_once(plan: TrialPlan) -> int:
    """How many requests a load may have in flight; of an open loop nobody knows."""
    users = plan.load.user_count
    return MOST_TOGETHER if users is None else users


async def asked(cell: Cell, engine: Engine, workload: Workload, seed: int, users: int = 1) -> list[Record]:
    """Requests that are measured by nobody, one for each of some users, and what these send until all have ended.

    Their prompts come from a seed of their own, so that no later prompt finds its beginning in a prefix cache.
    """
    plan = cell.trials[0]
    asks = {"kind": "sustained", "users": users, "requests": users, "timeout": f"{plan.timeout_s}s"}
    words = tokenizer_of(cell.spec.model)
    load = Sustained.model_validate(asks)
    schedule = build(load, workload, plan.seed ^ seed, tokenizer=words, salt=cell.salt)
    records: list[Record] = []
    await drive(schedule, target_of(engine), settings_of(plan), records.append)
    return records


def settings_of(plan: TrialPlan) -> DriveSettings:
    """How the driver treats the requests of a trial."""
    timeout_s = plan.timeout_s
    return DriveSettings(timeout_ns=round(timeout_s * 1e9), drain_ns=round(min(timeout_s, LONGEST_DRAIN_S) * 1e9))


def target_of(engine: Engine) -> InProcessEngine | Endpoint:
    """What the driver talks to."""
    return engine.endpoint() if isinstance(engine, ServedEngine) else engine  # type: ignore[return-value]
