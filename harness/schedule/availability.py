"""Availability of cells and engines on this machine, checked before anything is started or any heavy library loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field

import engines
from engines import engine_class, missing_library
from engines.base import EngineError, EngineSpec
from engines.dialects import DIALECTS
from engines.dialects import get as dialect_of
from engines.dialects.base import cannot_carry
from engines.http.engine import DEFAULT_DIALECT
from harness.scenario.engine_problems import lacking_level
from harness.scenario.engines import EngineBlock
from harness.scenario.model import Scenario
from harness.scenario.workload import SERVER
from harness.schedule.cells import Combination
from harness.schedule.devices import absent, kinds_here
from harness.schedule.interpreter import cannot_run_trials

ENGINES_WITHOUT_LORA = ("http", "simulated")


def refusal(scenario: Scenario, one: Combination, spec: EngineSpec, secrets: Mapping[str, str]) -> str | None:
    """Return the reason in one sentence if a cell cannot be run here, else None."""
    return (
        variable_missing(one, secrets)
        or _no_engine(one.block)
        or (None if one.level is None else lacking_level(one.block, one.level))
        or _no_device(one)
        or _no_adapter(one)
        or _no_priority(scenario, one.block, spec)
        or _no_sampling(scenario, one.block, spec)
        or _no_wire(scenario, one.block)
    )


def variable_missing(one: Combination, secrets: Mapping[str, str]) -> str | None:
    """Return a sentence for the first environment variable that requests need and that is not set, or empty."""
    lacking = lacking_variable(one, secrets)
    if lacking is None:
        return None
    is_what = "empty" if lacking in secrets else "not set"
    return f"the environment variable {lacking}, which the scenario names, is {is_what}"


def lacking_variable(one: Combination, secrets: Mapping[str, str]) -> str | None:
    """Return the first environment variable that requests need and that has no value. Blanks alone are none."""
    return next((name for name in one.block.variables() if not secrets.get(name, "").strip()), None)


def answers_in_process(engine: str) -> bool:
    """Return True if an engine generates inside the process of its cell."""
    return hasattr(engine_class(engine), "generate")


def _no_engine(block: EngineBlock) -> str | None:
    """Return a sentence if the adapter, the interpreter or the library is not installed."""
    try:
        engine_class(block.engine)
    except EngineError as error:
        return str(error)
    if block.python is None:
        return missing_library(block.engine, None)
    python = os.path.expanduser(block.python)
    if answers_in_process(block.engine) and (why := cannot_run_trials(python)) is not None:
        return why
    if shutil.which(python) is None:
        return f"`python` names {python}, which is not an interpreter"
    return missing_library(block.engine, python)


def _no_device(one: Combination) -> str | None:
    """Return a sentence if the engine's devices cannot compute the level."""
    block = one.block
    if (gone := absent(block.devices)) is not None:
        return gone
    devices = getattr(engine_class(block.engine), "devices", None)
    if devices is None or one.level is None:
        return None
    needed, here = devices(one.level.level), kinds_here(block.devices, {**os.environ, **block.env})
    if here & set(needed):
        return None
    why = "a GPU, and none is available" if "cuda" in needed else f"{' or '.join(needed)}, which is not available"
    return f"{block.engine} needs {why}, for `{one.level.level}`"


def _no_adapter(one: Combination) -> str | None:
    if one.model is None or one.model.lora is None or one.block.engine not in ENGINES_WITHOUT_LORA:
        return None
    return f"{one.block.engine} loads no adapter; remove `lora`, and write the served name as `model`"


def _no_priority(scenario: Scenario, block: EngineBlock, spec: EngineSpec) -> str | None:
    """Return a sentence if classes have priorities that the engine cannot send."""
    loads = scenario.load if block.load is None else block.load
    named = [name for name, one in scenario.classes.items() if one.priority is not None]
    if not named or not any(load.mixes_classes for load in loads):
        return None
    if block.engine == "http":
        dialect = str(spec.options.get("dialect", DEFAULT_DIALECT))
        if dialect not in DIALECTS or getattr(dialect_of(dialect), "takes_priority", False):
            return None
    return f"{block.engine} accepts no priority of a request; remove `classes.{named[0]}.priority`"


def _no_sampling(scenario: Scenario, block: EngineBlock, spec: EngineSpec) -> str | None:
    """Return a sentence if the dialect cannot carry the sampling keys."""
    workloads = [scenario.workload, *(one.workload for one in scenario.classes.values() if one.workload is not None)]
    wanted = dict.fromkeys(name for workload in workloads for name in workload.sampling.as_options())
    dialect = str(spec.options.get("dialect", DEFAULT_DIALECT))
    if block.engine != "http" and any(workload.sampling.temperature == SERVER for workload in workloads):
        return f"`temperature: {SERVER}` is only for `engine: http`, not for {block.engine}; write a number"
    if block.engine != "http" or not wanted or dialect not in DIALECTS:
        return None
    carried = getattr(dialect_of(dialect), "sampling", tuple(wanted))
    return next((f"{dialect} {cannot_carry(name)}" for name in wanted if name not in carried), None)


def _no_wire(scenario: Scenario, block: EngineBlock) -> str | None:
    """Return a sentence if Locust, several workers or retries are requested for an engine in process."""
    if not answers_in_process(block.engine):
        return None
    loads = scenario.load if block.load is None else block.load
    inside = f"{block.engine} runs inside the process of the load generator"
    if any(load.driver == "locust" for load in loads):
        return f"{inside}, without Locust; remove `driver`"
    if any(load.retries is not None and load.retries.times for load in loads):
        return f"{inside}, where no request is refused; remove `retries`"
    several = next((load.workers for load in loads if load.workers not in ("auto", 1)), None)
    return f"{inside}, not in {several}; remove `workers`" if several else None


@dataclass(frozen=True, slots=True)
class Support:
    """Support of an engine on this machine.

    Attributes:
        where: "in process" or "server".
        levels: Levels with the devices that can run them; empty if the server decides them.
        missing: Library that is not installed, and how to install it; None if nothing is missing.
        broken: Reason why the adapter itself cannot be used.
    """

    name: str
    where: str = "server"
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: str | None = None
    broken: str | None = None

    def by_device(self) -> dict[str, list[str]]:
        """Return the levels by the devices that run them, such as "cpu, cuda"."""
        found: dict[str, list[str]] = {}
        for level, devices in self.levels.items():
            found.setdefault(", ".join(devices), []).append(level)
        return found


def support_of(name: str) -> Support:
    """Return the support of an engine."""
    try:
        adapter = engines.engine_class(name)
    except EngineError as error:
        return Support(name, broken=str(error))
    devices = getattr(adapter, "devices", None)
    levels = {level: ("cpu", "cuda") if devices is None else tuple(devices(level)) for level in adapter.levels()}
    return Support(name, "in process" if answers_in_process(name) else "server", levels, engines.missing_library(name))


def supported() -> list[Support]:
    """Return the support of all engines, by name."""
    return [support_of(name) for name in sorted(engines.names())]
