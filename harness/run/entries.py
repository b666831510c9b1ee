"""The manifest before anything has run: an entry for each cell and trial."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from harness import __version__
from harness.drivers.calibration import store
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell, Skip, TrialPlan, file_hashes, identity, text_hash
from harness.telemetry import provenance


def first_manifest(scenario: Scenario, planned: Sequence[Cell | Skip], command: str) -> dict[str, Any]:
    """The manifest before anything has run; cells in the order of their numbers, whatever that of running them."""
    session = session_entry(1, command)
    return {
        "harness_version": __version__,
        "name": scenario.title,
        "created_utc": session["created_utc"],
        "status": "running",
        "labels": dict(scenario.labels),
        "command": command,
        "scenario": scenario.resolved(),
        "provenance": session["provenance"],
        "sessions": [session],
        "notes": [],
        "quality_text": text_hash(scenario.quality),
        "only_quality": not any(cell.trials for cell in planned if isinstance(cell, Cell)),
        "cells": [cell_entry(entry) for entry in sorted(planned, key=lambda one: one.index)],
    }


def session_entry(number: int, command: str) -> dict[str, Any]:
    """A stretch of the run, from when it was begun or resumed. cells: the ids of those that ran in it, in order."""
    return {
        "number": number,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "provenance": provenance.collect() | {"calibration": store.summary_for_runs()},
        "cells": [],
    }


def cell_entry(cell: Cell | Skip, folder: str | None = None) -> dict[str, Any]:
    """A cell's part of the manifest. folder: where its results go, where that is not `cells/<id>`."""
    path = folder or f"cells/{cell.id}"
    entry: dict[str, Any] = {
        "id": cell.id,
        "index": cell.index,
        "model": cell.model,
        "engine": cell.engine,
        "level": cell.level,
        "variant": cell.variant,
        "repetition": cell.repetition,
        "path": path,
        "status": "pending",
        "reason": None,
        "engine_info": {},
        "start": {},
        "trials": [],
    }
    if isinstance(cell, Skip):
        return entry | {"status": "skipped", "reason": cell.reason}
    if cell.spec.devices:
        entry["devices"] = list(cell.spec.devices)
    entry["trials"] = [trial_entry(cell, plan, path) for plan in cell.trials]
    return entry


def trial_entry(cell: Cell, plan: TrialPlan, folder: str) -> dict[str, Any]:
    """A trial's part of the manifest."""
    return {
        "id": plan.id,
        "index": plan.index,
        "load": plan.name,
        "kind": plan.load.kind,
        "bursts": plan.load.burst_spans,
        "ramp": getattr(plan.load, "ramp", None) is not None,
        "identity": identity(cell, plan),
        "files": file_hashes(plan),
        "attempt": 1,
        "status": "pending",
        "reason": None,
        "path": f"{folder}/{plan.id}",
        "seed": plan.seed,
        "timeout_s": plan.timeout_s,
        "slo": plan.slo.model_dump(),
        "class_slo": {name: traffic.slo.model_dump() for name, traffic in plan.classes.items() if traffic.slo},
        "limits": list(plan.limits),
        "loop": None,
        "plan_hash": None,
        "window": None,
        "planned": None,
        "t0_ns": None,
        "t0_utc": None,
        "client": None,
    }
