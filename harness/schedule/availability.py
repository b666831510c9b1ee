"""Why a cell cannot be run here, told before anything is started.

Which engine runs which levels on which devices, and what must be installed for it; nothing heavy is imported.
"""

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
from harness.scenario.base import near
from harness.scenario.engines import EngineBlock
from harness.scenario.model import Scenario
from harness.scenario.workload import SERVER
from harness.schedule.combinations import Combination
from harness.schedule.devices import absent, kinds_here
from harness.schedule.interpreter import cannot_run_trials

ENGINES_WITHOUT_LORA = ("http", "simulated")


def refusal(scenario: Scenario, one: Combination, spec: EngineSpec, secrets: Mapping[str, str]) -> str | None:
    """Why a cell cannot be run here, in one sentence; None where nothing speaks against it."""
    return (
        variable_missing(one, secrets)
        or _no_engine(one.block)
        or _no_level(one)
        or _no_device(one)
        or _no_adapter(one)
        or _no_priority(scenario, one.block, spec)
        or _no_sampling(scenario, one.block, spec)
        or _no_wire(scenario, one.block)
    )


def variable_missing(one: Combination, secrets: Mapping[str, str]) -> str | None:
    """Which of the environment variables that requests need is not set."""
    for name in one.block.variables():
        if name not in secrets:
            return f"the environment variable {name}, which the scenario names, is not set"
    return None


def answers_in_process(engine: str) -> bool:
    """Whether an engine generates inside the process of its cell."""
    return hasattr(engine_class(engine), "generate")


def _no_engine(block: EngineBlock) -> str | None:
    """What is not installed: the adapter, the interpreter, or the library."""
    try:
        engine_class(block.engine)
    except EngineError as error:
        return str(error)
    python = None if block.python is None else os.path.expanduser(block.python)
    if python is not None and answers_in_process(block.engine) and (why := cannot_run_trials(python)) is not None:
        return why
    if python is not None and shutil.which(python) is None:
        return f"`python` names {python}, which is not an interpreter"
    return missing_library(block.engine, python)


def _no_level(one: Combination) -> str | None:
    block, levels = one.block, engine_class(one.block.engine).levels()
    if one.level is None:
        return None
    if levels and one.level.level not in levels:
        return f"{block.engine} has no level `{one.level.level}`; {near(one.level.level, levels)}"
    if block.engine == "http" and one.level.model is None:
        return (
            f"whoever starts the server decides its level, so `{one.level.level}` would change nothing; "
            "leave `quantization` out, or give each level a `model` of its own"
        )
    return None


def _no_device(one: Combination) -> str | None:
    """Why the level cannot be computed where the engine may compute."""
    block = one.block
    if (gone := absent(block.devices)) is not None:
        return gone
    devices = getattr(engine_class(block.engine), "devices", None)
    if devices is None or one.level is None:
        return None
    needed, here = devices(one.level.level), kinds_here(block.devices, {**os.environ, **block.env})
    if here & set(needed):
        return None
    why = "a GPU, and none can be used here" if "cuda" in needed else f"{' or '.join(needed)}, which is not here"
    return f"{block.engine} needs {why}, for `{one.level.level}`"


def _no_adapter(one: Combination) -> str | None:
    if one.model is None or one.model.lora is None or one.block.engine not in ENGINES_WITHOUT_LORA:
        return None
    return f"{one.block.engine} takes no adapter: leave out `lora`, and name the model by what serves it"


def _no_priority(scenario: Scenario, block: EngineBlock, spec: EngineSpec) -> str | None:
    """Why the classes cannot have their priorities; None where they have none, or the server can be told."""
    loads = scenario.load if block.load is None else block.load
    named = [name for name, one in scenario.classes.items() if one.priority is not None]
    if not named or not any(load.mixes_classes for load in loads):
        return None
    if block.engine == "http":
        dialect = str(spec.options.get("dialect", DEFAULT_DIALECT))
        if dialect not in DIALECTS or getattr(dialect_of(dialect), "takes_priority", False):
            return None
    return f"{block.engine} takes no priority with a request; leave `classes.{named[0]}.priority` out"


def _no_sampling(scenario: Scenario, block: EngineBlock, spec: EngineSpec) -> str | None:
    """Why the dialect cannot ask for tokens to be drawn so; None where it can."""
    workloads = [scenario.workload, *(one.workload for one in scenario.classes.values() if one.workload is not None)]
    asked = dict.fromkeys(name for workload in workloads for name in workload.sampling.as_options())
    dialect = str(spec.options.get("dialect", DEFAULT_DIALECT))
    if block.engine != "http" and any(workload.sampling.temperature == SERVER for workload in workloads):
        return f"`temperature: {SERVER}` is for `engine: http`: {block.engine} is started here; give it a temperature"
    if block.engine != "http" or not asked or dialect not in DIALECTS:
        return None
    carried = getattr(dialect_of(dialect), "sampling", tuple(asked))
    return next((f"{dialect} {cannot_carry(name)}" for name in asked if name not in carried), None)


def _no_wire(scenario: Scenario, block: EngineBlock) -> str | None:
    """Why neither Locust nor several processes can send the load; None where they need not, or where they can."""
    loads = scenario.load if block.load is None else block.load
    if any(load.driver == "locust" for load in loads) and hasattr(engine_class(block.engine), "generate"):
        return f"{block.engine} answers inside the client's process, where Locust cannot run: leave out `driver`"
    several = next((load.workers for load in loads if load.workers not in ("auto", 1)), None)
    if several and hasattr(engine_class(block.engine), "generate"):
        return f"{block.engine} answers inside the client's process, which cannot be {several}: leave out `workers`"
    return None


CPU_AND_GPU = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Support:
    """What is known of one engine.

    where: "in process" or "server".   levels: level to the devices that it can run on; empty where they are the
    server's.   missing: what is not installed and how to install it, None where nothing is.   broken: why the adapter
    itself cannot be used.
    """

    name: str
    where: str = "server"
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: str | None = None
    broken: str | None = None

    def by_device(self) -> dict[str, list[str]]:
        """Devices, such as "cpu, cuda", to the levels that run on just these."""
        found: dict[str, list[str]] = {}
        for level, devices in self.levels.items():
            found.setdefault(", ".join(devices), []).append(level)
        return found


def support_of(name: str) -> Support:
    """What is known of an engine here."""
    try:
        adapter = engines.engine_class(name)
    except EngineError as error:
        return Support(name, broken=str(error))
    devices = getattr(adapter, "devices", None)
    levels = {level: CPU_AND_GPU if devices is None else tuple(devices(level)) for level in adapter.levels()}
    where = "in process" if hasattr(adapter, "generate") else "server"
    return Support(name, where, levels, engines.missing_library(name))


def supported() -> list[Support]:
    """All engines that a scenario can name, by name."""
    return [support_of(name) for name in sorted(engines.names())]
