"""What a trial measures, as one number: equal ones need not be measured again."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from harness.scenario.loads import Trace
from harness.scenario.quality import Quality
from harness.scenario.workload import TrafficClass
from harness.schedule.cells import Cell, TrialPlan


def identity(cell: Cell, plan: TrialPlan, model_hash: str | None = None) -> str:
    """SHA-256 over everything that decides what a trial measures: equal ones need not be run again."""
    facts = {
        "model": None if cell.spec.model is None else [cell.spec.model.name, cell.spec.model.revision],
        "model_hash": model_hash,
        "engine": cell.engine,
        "level": cell.level,
        "variant": cell.variant,
        "options": cell.spec.options,
        "python": cell.spec.python,
        "load": _json(plan.load),
        "workload": _json(plan.workload),
        "classes": {name: [one.weight, _json(one.workload), *_priority(one)] for name, one in plan.classes.items()},
        "seed": plan.seed,
        "repetition": cell.repetition,
    }
    if cell.spec.devices:
        facts["devices"] = cell.spec.devices
    if cell.spec.model is not None and cell.spec.model.lora:
        facts["lora"] = cell.spec.model.lora
    contents = file_hashes(plan)
    facts |= {"files": contents} if contents else {}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _priority(one: TrafficClass) -> list[int]:
    return [] if one.priority is None else [one.priority]


def file_hashes(plan: TrialPlan) -> dict[str, str | None]:
    """SHA-256 of the files that give prompts and traces; None for one that is no longer there."""
    workloads = [plan.workload, *(one.workload for one in plan.classes.values() if one.workload is not None)]
    paths = [one.prompts for one in workloads if one.prompts is not None]
    paths += [plan.load.file] if isinstance(plan.load, Trace) else []
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None for path in paths}


def text_hash(quality: Quality | None) -> str | None:
    """SHA-256 of the file that is scored; None where it is the shipped one, or no longer there."""
    path = None if quality is None else quality.text
    return None if path is None or not path.is_file() else hashlib.sha256(path.read_bytes()).hexdigest()


def _json(model: Any) -> Any:
    return None if model is None else model.model_dump(mode="json", by_alias=True, exclude={"slo", "limits", "name"})
