"""Schedules for tests, stated as a scenario file states loads and workloads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from harness.scenario.loads.kinds import Load, LoadItem
from harness.scenario.workload import TrafficClass, Workload
from harness.schedule.requests import Schedule, build

SPREAD = {"dist": "lognormal", "median": 100, "p95": 300}


def load_of(**keys: Any) -> Load:
    """A load; the keys are those of the scenario file."""
    load: Load = TypeAdapter(LoadItem).validate_python(keys)
    return load


def workload_of(**keys: Any) -> Workload:
    """A workload; lengths vary unless given."""
    return Workload.model_validate({"prompt_tokens": SPREAD, "output_tokens": SPREAD} | keys)


def schedule_of(seed: int = 1, classes: Mapping[str, TrafficClass] | None = None, **keys: Any) -> Schedule:
    """The schedule of a load over varying lengths."""
    return build(load_of(**keys), workload_of(), seed, classes=classes)


def exact_schedule(output_tokens: int, *, prompt_tokens: int = 16, seed: int = 1, **keys: Any) -> Schedule:
    """The schedule of a load whose requests ask for exactly that many tokens."""
    output = {"dist": "fixed", "value": output_tokens, "exact": True}
    return build(load_of(**keys), workload_of(prompt_tokens=prompt_tokens, output_tokens=output), seed)
