"""Starting the engine of a cell: how long it takes to load, its first request, what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

import engines
from engines.base import Endpoint, Engine, EngineInfo, InProcessEngine, ServedEngine
from harness.child_process import Emit
from harness.drivers.asyncio_driver import drive
from harness.drivers.base import DriveSettings
from harness.errors import CellSkipped
from harness.file_cache import dropped_share
from harness.load_part import tokenizer_of
from harness.loads import SingleUser
from harness.matrix import Cell, TrialPlan
from harness.memory_check import too_little_memory
from harness.process_gauges import resident_bytes
from harness.process_tree import tree
from harness.records import Record, Status
from harness.scenario import Scenario
from harness.workload import build

LONGEST_LOAD_TO_REPEAT_S = 20.0
LONGEST_DRAIN_S = 30.0
COLD_SHARE = 0.95
FIRST_REQUEST_SEED = 1


@contextlib.asynccontextmanager
async def started_engine(cell: Cell, scenario: Scenario, emit: Emit) -> AsyncIterator[Engine]:
    """The engine, loaded, its start measured and reported; stopped at the end whatever happens.

    A start is measured twice: cold (the weight files dropped from the file cache, and looked whether they are) with the
    first request after it, and warm. Loads that take long are not repeated, and the event says so. What the library of
    an engine in this process takes to be imported is timed once and is in both: a server would import it each time.

    Raises CellSkipped where there is too little memory, LevelUnsupported and other EngineErrors as the engine does.
    """
    engine = engines.create(cell.spec)
    weights = await asyncio.to_thread(engine.prepare)
    emit({"event": "prepared"})
    import_s = await asyncio.to_thread(timed_import, engine)
    if (reason := await asyncio.to_thread(too_little_memory, engine, cell.spec)) is not None:
        raise CellSkipped(reason)
    try:
        dropped = await asyncio.to_thread(dropped_share, weights)
        began_ns = time.monotonic_ns()
        emit(starting(engine))
        load_s, info = await timed_start(engine, import_s)
        pids = engine_pids(engine, info)
        cold = dropped is not None and dropped >= COLD_SHARE
        start: dict[str, Any] = {
            "began_ns": began_ns,
            "ready_ns": time.monotonic_ns(),
            "load_cold": cold,
            "load_dropped_share": dropped,
            "load_warm_s": None,
            "load_note": None,
        }
        start["load_s"] = load_s if pids else None  # a server that runs already was not loaded
        start["import_s"] = import_s
        emit({"event": "started", "engine": describe(engine, info), "start": start})
        start["first_request_ms"] = await first_request(cell, engine)
        start["rss_after_load_bytes"] = resident_bytes(tree(pids)) if pids else None
        if weights:
            if load_s <= LONGEST_LOAD_TO_REPEAT_S or any("load_warm_s" in limit for limit in scenario.limits):
                await engine.stop()
                engine = engines.create(cell.spec)
                emit(starting(engine))
                start["load_warm_s"], info = await timed_start(engine, import_s)
            else:
                start["load_note"] = (
                    f"not repeated warm: a start takes {load_s:.0f} s; a limit on load_warm_s asks for it"
                )
        emit({"event": "started", "engine": describe(engine, info), "start": start})
        yield engine
    finally:
        emit({"event": "stopping"})
        await engine.stop()


def starting(engine: Engine) -> dict[str, Any]:
    """The event that tells where to look for the memory of an engine that is about to start."""
    return {"event": "starting", "in_process": not isinstance(engine, ServedEngine)}


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


def describe(engine: Engine, info: EngineInfo) -> dict[str, Any]:
    """The engine's facts as the manifest keeps them."""
    known = {
        "pids": engine_pids(engine, info),
        "in_process": not isinstance(engine, ServedEngine),
        "options": dict(info.options),
        "libraries": dict(info.libraries),
    }
    return asdict(info) | known


async def first_request(cell: Cell, engine: Engine) -> float | None:
    """Milliseconds of the first request after the start, due to done; None if it did not succeed.

    Its prompt comes from a seed of its own, so that no later prompt finds its beginning in a prefix cache.
    """
    plan = cell.trials[0]
    workload = next((one.workload for one in plan.classes.values() if one.workload is not None), plan.workload)
    one = SingleUser.model_validate({"kind": "single_user", "requests": 1, "timeout": f"{plan.timeout_s}s"})
    words = tokenizer_of(cell.spec.model)
    schedule = build(one, workload, plan.seed ^ FIRST_REQUEST_SEED, tokenizer=words, salt=cell.salt)
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


def settings_of(plan: TrialPlan) -> DriveSettings:
    """How the driver treats the requests of a trial."""
    timeout_s = plan.timeout_s
    return DriveSettings(timeout_ns=round(timeout_s * 1e9), drain_ns=round(min(timeout_s, LONGEST_DRAIN_S) * 1e9))


def target_of(engine: Engine) -> InProcessEngine | Endpoint:
    """What the driver talks to."""
    return engine.endpoint() if isinstance(engine, ServedEngine) else engine  # type: ignore[return-value]
