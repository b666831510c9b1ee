"""Start the engine of a cell and measure the start; check before whether its memory is free.

An engine that does not fit takes minutes to fail, and may take the machine with it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import asdict, replace
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
from harness.scenario.loads.kinds import Sustained
from harness.scenario.model import Scenario
from harness.scenario.workload import TrafficClass, Workload
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
LONGEST_LOAD_TO_REPEAT_S = 20.0
LONGEST_DRAIN_S = 30.0
FIRST_REQUEST_SEED = 1
WARM_UP_SEED = 2
WARM_UP_TOKENS = 16
MOST_TOGETHER = 8
REFUSALS = (400, 422)


def too_little_memory(engine: Engine, spec: EngineSpec) -> str | None:
    """Return a sentence if a prepared engine needs more memory than is free; None if it fits or that is unknown."""
    needed, free = needed_and_free(engine, spec)
    if needed is None or free is None or needed.bytes <= free:
        return None
    parts = ", ".join(f"{PARTS.get(name, name)} {format_bytes(count)}" for name, count in needed.parts.items() if count)
    where = "here" if needed.device == CPU else "on the GPUs"
    return f"needs at least {format_bytes(needed.bytes)} ({parts}); {format_bytes(free)} is free {where}"


def needed_and_free(engine: Engine, spec: EngineSpec) -> tuple[MemoryEstimate | None, int | None]:
    """Return the memory that a prepared engine needs, and the free bytes where it needs them; None if unknown."""
    needed = engine.memory_needed() if isinstance(engine, EstimatingEngine) else None
    return needed, None if needed is None else free_bytes(needed, spec)


def needs(engine: Engine, spec: EngineSpec) -> dict[str, Any] | None:
    """Return the memory that a prepared engine needs, what is free, and where; None if any is unknown."""
    needed, free = needed_and_free(engine, spec)
    if needed is None or free is None:
        return None
    where = CPU if needed.device == CPU else ",".join(map(str, spec.devices)) or "gpus"
    return {"bytes": needed.bytes, "free": free, "where": where}


def free_bytes(needed: MemoryEstimate, spec: EngineSpec) -> int | None:
    """Return the free memory on the device of an estimate, None if unknown."""
    if needed.device == CPU:
        return free_memory_bytes()
    try:
        named = [int(one) for one in spec.devices] if spec.devices else visible_gpus({**os.environ, **spec.env})
        gpus, _ = find_gpus()
        return None if gpus is None or named == () else gpus.free_bytes(named or ())
    except (RuntimeError, ValueError):
        return None


Turn = Callable[[Engine], Awaitable[None]]
"""Waits until a prepared engine may start."""


async def at_once(_: Engine) -> None:
    """Do not wait: no other engine is up."""


@contextlib.asynccontextmanager
async def started_engine(
    cell: Cell, scenario: Scenario, emit: Emit, turn: Turn = at_once
) -> AsyncIterator[tuple[Engine, Cell]]:
    """Start the engine and measure the start; yield it with the cell as its server takes it; stop it at the end.

    A start is measured twice: cold (weight files dropped from the page cache) with the first request after it, and
    warm. Long loads are not repeated; the event reports that. The import of an engine's library in this process is
    timed once and is part of both, as a server imports it each time.

    Args:
        turn: Waits until the prepared engine may start.

    Raises:
        CellSkipped: Too little memory is free.
        EngineError: As the engine, LevelUnsupported included.
    """
    engine = engines.create(cell.spec)
    weights = await aside(engine.prepare)
    emit({"event": "prepared"})
    import_s = await aside(lambda: timed_import(engine))
    await turn(engine)
    if (reason := await aside(lambda: too_little_memory(engine, cell.spec))) is not None:
        raise CellSkipped(reason)
    try:
        start = start_entry(await aside(lambda: dropped_share(weights)), import_s)
        emit(starting(engine))
        load_s, info = await timed_start(engine, import_s)
        start.ready_ns = time.monotonic_ns()
        pids = engine_pids(engine, info)
        start.load_s = load_s if pids else None  # None: the server ran already
        emit(started_event(engine, info, start))
        start.first_request_ms, cell = await first_request(cell, engine)
        start.temperature_refused, start.warm_up = cell.refusal, 1
        start.rss_after_load_bytes = resident_bytes(tree(pids)) if pids else None
        if weights:
            if load_s <= LONGEST_LOAD_TO_REPEAT_S or any("load_warm_s" in limit for limit in scenario.limits):
                await engine.stop()
                engine = engines.create(cell.spec)
                await aside(engine.prepare)  # not timed
                emit(starting(engine))
                start.load_warm_s, info = await timed_start(engine, import_s)
                start.warm_up = 0
            else:
                start.load_note = f"not repeated warm: a start takes {load_s:.0f} s; a limit on load_warm_s requests it"
            start.warm_up += await warm_up(cell, engine, start.warm_up)
        emit(started_event(engine, info, start))
        yield engine, cell
    finally:
        emit({"event": "stopping"})
        await engine.stop()


def starting(engine: Engine) -> dict[str, Any]:
    """Return the event of a start, with the place of the engine's memory."""
    return {"event": "starting", "in_process": not isinstance(engine, ServedEngine)}


def started_event(engine: Engine, info: EngineInfo, start: StartEntry) -> dict[str, Any]:
    """Return the event with the engine's facts and its start."""
    return {"event": "started", "engine": describe(engine, info).stored(), "start": start.stored()}


def start_entry(dropped: float | None, import_s: float | None) -> StartEntry:
    """Return the entry of a start that begins now. dropped: share of the weights that left the page cache."""
    return StartEntry(
        began_ns=time.monotonic_ns(),
        load_cold=dropped is not None and dropped >= COLD_SHARE.value,
        load_dropped_share=dropped,
        load_warm_s=None,
        load_note=None,
        import_s=import_s,
    )


def timed_import(engine: Engine) -> float | None:
    """Return the seconds of importing the engine's library here; None if it is not needed or fails."""
    import_library = getattr(engine, "import_library", None)
    if import_library is None:
        return None
    began = time.monotonic_ns()
    try:
        import_library()
    except Exception:  # the start raises it again
        return None
    return (time.monotonic_ns() - began) / 1e9


async def timed_start(engine: Engine, import_s: float | None) -> tuple[float, EngineInfo]:
    """Start an engine; return the seconds until it is ready, `import_s` included, and its facts."""
    began = time.monotonic_ns()
    info = await engine.start()
    return (import_s or 0.0) + (time.monotonic_ns() - began) / 1e9, info


def engine_pids(engine: Engine, info: EngineInfo) -> list[int]:
    """Return the processes of the engine: this one for an engine in process, none for a remote server."""
    return list(info.pids) if isinstance(engine, ServedEngine) else [os.getpid()]


def describe(engine: Engine, info: EngineInfo) -> EngineEntry:
    """Return the engine's facts for the manifest. Raises EngineError for a wrong type."""
    known = {"pids": engine_pids(engine, info), "in_process": not isinstance(engine, ServedEngine)}
    try:
        return EngineEntry.model_validate(asdict(info) | known)
    except ValidationError as error:
        first = error.errors()[0]
        raise EngineError(f"{info.name} reports {first['loc'][0]}={first['input']!r}: {first['msg']}") from None


async def first_request(cell: Cell, engine: Engine) -> tuple[float | None, Cell]:
    """Return the milliseconds of the first request, due to done (None if it failed), and the cell.

    The cell omits the temperature if the server refuses temperature 0 and takes the same request without it.
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
    """Send a request like those of the cell's loads, greedy if any of them is; return its record."""
    every = [workload for plan in cell.trials for workload in plan.workloads]
    workload = next((one for one in every if one.sampling.temperature == 0), every[0])
    records = await send_unmeasured(cell, engine, workload, FIRST_REQUEST_SEED)
    return next((record for record in records if record.request == 0), None)


def refused_temperature(record: Record | None) -> str | None:
    """Return the message of a server that refused a request for its temperature, else None."""
    if record is None or record.http_status not in REFUSALS:
        return None
    return record.error if "temperature" in (record.error or "").lower() else None


async def warm_up(cell: Cell, engine: Engine, answered: int) -> int:
    """Send short unmeasured requests to a new instance: one, then as many at once as the loads. Return the successes.

    Prompts are generated: those of a file would be in a cache when they are measured.

    Args:
        answered: Requests that the instance has answered.
    """
    like = cell.trials[0].workloads[0]
    length = FixedLength(value=WARM_UP_TOKENS, exact=like.output_tokens.exact)
    plain = {"prompts": None, "prefix": None, "repeat": None, "turns": None, "cancel": None, "output_tokens": length}
    users = (plan.load.user_count or MOST_TOGETHER for plan in cell.trials)  # an open loop has none
    together = min(MOST_TOGETHER, max(users))
    rounds = [1] * (answered == 0) + [together] * (together > 1)
    found: list[Record] = []
    for number, count in enumerate(rounds):
        found += await send_unmeasured(cell, engine, like.model_copy(update=plain), WARM_UP_SEED + number, count)
    return sum(record.status == Status.OK for record in found)


async def send_unmeasured(cell: Cell, engine: Engine, workload: Workload, seed: int, users: int = 1) -> list[Record]:
    """Send one request for each of some users; return the records of all until these have ended.

    The seed differs from the loads', so that no measured prompt has its beginning in a prefix cache.
    """
    plan, timeout = cell.trials[0], f"{cell.trials[0].timeout_s}s"
    load = Sustained.model_validate({"kind": "sustained", "users": users, "requests": users, "timeout": timeout})
    schedule = build(load, workload, plan.seed ^ seed, tokenizer=tokenizer_of(cell.spec.model), salt=cell.salt)
    records: list[Record] = []
    await drive(schedule, target_of(engine), settings_of(plan), records.append)
    return records


def settings_of(plan: TrialPlan) -> DriveSettings:
    """Return the settings of the driver for a trial."""
    timeout_s = plan.timeout_s
    return DriveSettings(timeout_ns=round(timeout_s * 1e9), drain_ns=round(min(timeout_s, LONGEST_DRAIN_S) * 1e9))


def target_of(engine: Engine, classes: Mapping[str, TrafficClass] | None = None) -> InProcessEngine | Endpoint:
    """Return the target of the driver.

    Args:
        classes: Those of the load, which may have their own model, headers and fields of the body.
    """
    if not isinstance(engine, ServedEngine):
        return engine  # type: ignore[return-value]
    own = {name: wire for name, one in (classes or {}).items() if (wire := one.on_the_wire)}
    return replace(engine.endpoint(), classes=own)
