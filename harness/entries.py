"""The manifest before anything has run: an entry for each cell and trial."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from harness import __version__, bursts, calibration, provenance
from harness.matrix import Cell, Skip, TrialPlan, identity
from harness.scenario import Scenario


def first_manifest(scenario: Scenario, planned: Sequence[Cell | Skip], command: str) -> dict[str, Any]:
    """The manifest before anything has run."""
    return {
        "harness_version": __version__,
        "name": scenario.title,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "status": "running",
        "labels": dict(scenario.labels),
        "command": command,
        "scenario": scenario.resolved(),
        "provenance": provenance.collect() | {"calibration": calibration.summary_for_runs()},
        "notes": [],
        "cells": [cell_entry(entry) for entry in planned],
    }


def cell_entry(cell: Cell | Skip) -> dict[str, Any]:
    """A cell's part of the manifest."""
    entry: dict[str, Any] = {
        "id": cell.id,
        "index": cell.index,
        "model": cell.model,
        "engine": cell.engine,
        "level": cell.level,
        "variant": cell.variant,
        "repetition": cell.repetition,
        "status": "pending",
        "reason": None,
        "engine_info": {},
        "start": {},
        "trials": [],
    }
    if isinstance(cell, Skip):
        return entry | {"status": "skipped", "reason": cell.reason}
    entry["trials"] = [trial_entry(cell, plan) for plan in cell.trials]
    return entry


def trial_entry(cell: Cell, plan: TrialPlan) -> dict[str, Any]:
    """A trial's part of the manifest."""
    return {
        "id": plan.id,
        "index": plan.index,
        "load": plan.name,
        "kind": plan.load.kind,
        "bursts": bursts.spans_of(plan.load),
        "identity": identity(cell, plan),
        "status": "pending",
        "reason": None,
        "path": f"cells/{cell.id}/{plan.id}",
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
