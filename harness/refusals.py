"""Why a cell cannot be run here, told before anything is started."""

from __future__ import annotations

from collections.abc import Mapping

from engines import engine_class
from engines.base import EngineError, EngineSpec
from engines.dialects import DIALECTS
from engines.dialects import get as dialect_of
from engines.http import DEFAULT_DIALECT
from harness.combinations import Combination
from harness.engine_section import EngineBlock
from harness.scenario import Scenario
from harness.scenario_problems import near


def refusal(scenario: Scenario, one: Combination, spec: EngineSpec, secrets: Mapping[str, str]) -> str | None:
    """Why a cell cannot be run here, in one sentence; None where nothing speaks against it."""
    return _cannot(one, spec, secrets) or _no_priority(scenario, one.block, spec) or _no_wire(scenario, one.block)


def _cannot(one: Combination, spec: EngineSpec, secrets: Mapping[str, str]) -> str | None:
    block = one.block
    for name in block.variables():
        if name not in secrets:
            return f"the environment variable {name}, which the scenario names, is not set"
    try:
        levels = engine_class(block.engine).levels()
    except EngineError as error:
        return str(error)
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


def _no_priority(scenario: Scenario, block: EngineBlock, spec: EngineSpec) -> str | None:
    """Why the classes cannot have their priorities; None where they have none, or the server can be told."""
    loads = scenario.load if block.load is None else block.load
    named = [name for name, one in scenario.classes.items() if one.priority is not None]
    if not named or not any(load.kind == "mixed" for load in loads):
        return None
    if block.engine == "http":
        dialect = str(spec.options.get("dialect", DEFAULT_DIALECT))
        if dialect not in DIALECTS or getattr(dialect_of(dialect), "takes_priority", False):
            return None
    return f"{block.engine} takes no priority with a request; leave `classes.{named[0]}.priority` out"


def _no_wire(scenario: Scenario, block: EngineBlock) -> str | None:
    """Why neither Locust nor several processes can send the load; None where they need not, or where they can."""
    loads = scenario.load if block.load is None else block.load
    if any(load.driver == "locust" for load in loads) and hasattr(engine_class(block.engine), "generate"):
        return f"{block.engine} answers inside the client's process, where Locust cannot run: leave out `driver`"
    several = next((load.workers for load in loads if load.workers not in ("auto", 1)), None)
    if several and hasattr(engine_class(block.engine), "generate"):
        return f"{block.engine} answers inside the client's process, which cannot be {several}: leave out `workers`"
    return None
