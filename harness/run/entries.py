"""Entries of the manifest before the run: of the session and of each cell and trial."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from harness import __version__
from harness.drivers.calibration import store
from harness.prices.price import known_price_of
from harness.records import FORMAT_VERSION, Loop, Phase
from harness.scenario.files.notes import file_notes
from harness.scenario.lengths import Length
from harness.scenario.loads.kinds import OpenOrClosed
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell, Skip, TrialPlan, file_hashes, identity, text_hash
from harness.schedule.requests import Schedule
from harness.schedule.timing import PHASES
from harness.store.manifest import (
    BurstSpans,
    CellEntry,
    EngineEntry,
    Manifest,
    PlannedCounts,
    PlannedWindow,
    Provenance,
    Session,
    StartEntry,
    TrialEntry,
)
from harness.telemetry import provenance

_PENDING: dict[str, Any] = {"status": "pending", "reason": None}
_NOT_BEGUN: dict[str, Any] = dict.fromkeys(("loop", "plan_hash", "window", "planned", "t0_ns", "t0_utc", "client"))


def first_manifest(scenario: Scenario, planned: Sequence[Cell | Skip], command: str) -> Manifest:
    """Return the manifest before the run, with the cells in the order of their numbers."""
    session = session_entry(1, command)
    return Manifest(
        format=FORMAT_VERSION,
        harness_version=__version__,
        name=scenario.title,
        created_utc=session.created_utc,
        status="running",
        labels=dict(scenario.labels),
        command=command,
        scenario=scenario.resolved(),
        provenance=session.provenance,
        price=known_price_of(scenario),
        sessions=[session],
        notes=file_notes(scenario),
        quality_text=text_hash(scenario.quality),
        only_quality=not any(cell.trials for cell in planned if isinstance(cell, Cell)),
        cells=[cell_entry(entry) for entry in sorted(planned, key=lambda one: one.index)],
    )


def session_entry(number: int, command: str) -> Session:
    """Return the entry of a session that begins now."""
    return Session(
        number=number,
        created_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        command=command,
        provenance=Provenance.model_validate(provenance.collect() | {"calibration": store.summary_for_runs()}),
        cells=[],
    )


def cell_entry(cell: Cell | Skip, folder: str | None = None) -> CellEntry:
    """Return a cell's entry. folder: of its results, `cells/<id>` if None."""
    path = folder or f"cells/{cell.id}"
    entry = CellEntry(
        id=cell.id,
        index=cell.index,
        model=cell.model,
        engine=cell.engine,
        level=cell.level,
        variant=cell.variant,
        repetition=cell.repetition,
        path=path,
        engine_info=EngineEntry(),
        start=StartEntry(),
        trials=[],
        **_PENDING,
    )
    if isinstance(cell, Skip):
        entry.status, entry.reason = "skipped", cell.reason
        return entry
    if cell.spec.devices:
        entry.devices = list(cell.spec.devices)
    entry.trials = [trial_entry(cell, plan, path) for plan in cell.trials]
    return entry


def trial_entry(cell: Cell, plan: TrialPlan, folder: str) -> TrialEntry:
    """Return a trial's entry; `folder` is the cell's."""
    means = {name: length.expected_tokens for name, length in plan.load.own_lengths.items()}
    return TrialEntry(
        id=plan.id,
        index=plan.index,
        load=plan.name,
        kind=plan.load.kind,
        bursts=None if plan.load.burst_spans is None else BurstSpans.model_validate(plan.load.burst_spans),
        rate=plan.load.rate if isinstance(plan.load, OpenOrClosed) and plan.load.ramp is None else None,
        max_concurrency=plan.load.cap,
        ramp=getattr(plan.load, "ramp", None) is not None,
        prompt_tokens=means.get("prompt_tokens"),
        output_tokens=means.get("output_tokens"),
        workload={name: _dumped(getattr(plan.workload, name)) for name in plan.load.own_lengths},
        identity=identity(cell, plan),
        files=file_hashes(plan),
        attempt=1,
        path=f"{folder}/{plan.id}",
        seed=plan.seed,
        timeout_s=plan.timeout_s,
        slo=plan.slo.model_dump(),
        class_slo={name: traffic.slo.model_dump() for name, traffic in plan.classes.items() if traffic.slo},
        limits=list(plan.limits),
        **_PENDING,
        **_NOT_BEGUN,
    )


def _dumped(length: Length) -> dict[str, Any]:
    dumped: dict[str, Any] = length.model_dump(mode="json", by_alias=True)
    return dumped


def plan_entry(schedule: Schedule) -> TrialEntry:
    """Return the part of a trial's entry that its plan decides."""
    known = schedule.phases if schedule.loop is Loop.OPEN else None  # conversations: only first turns are known
    phases = {} if known is None else {p: int((known == n).sum()) for n, p in enumerate(PHASES)}
    measured = schedule.measured if schedule.loop is Loop.CLOSED else None
    return TrialEntry(
        loop=str(schedule.loop),
        plan_hash=schedule.plan_hash,
        window=PlannedWindow(start_ns=schedule.window.start_ns, end_ns=schedule.window.end_ns),
        planned=PlannedCounts(
            total=schedule.count, warmup=phases.get(Phase.WARMUP), measure=phases.get(Phase.MEASURE, measured)
        ),
        prompt_length_source=schedule.prompt_sources,
        prompt_files=schedule.prompt_files,
        shares_prompts=schedule.shares_prompts,
        pinned_outputs=schedule.pinned_outputs,
        sampling=schedule.sampling,
        users=schedule.users or None,
    )
