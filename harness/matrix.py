"""From a scenario to what will be run: every model x engine x level x variant x repetition, and the loads of each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from engines.addresses import is_loopback
from engines.base import EngineSpec
from harness.cells import Cell, Skip, TrialPlan, slug
from harness.combinations import Combination, combinations
from harness.engine_section import Variant
from harness.errors import UsageError
from harness.identity import identity
from harness.refusals import refusal
from harness.scenario import Scenario
from harness.selection import chosen
from harness.strict_model import listed
from harness.trial_plans import trial_plans, trial_seed


def expand(
    scenario: Scenario, *, only: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
) -> list[Cell | Skip]:
    """Every cell of a scenario in the order in which they run; those that cannot run as Skip.

    only: patterns by `model`, `engine`, `quantization`, `variant` or `repetition`, such as {"quantization": "q4_*"};
    a cell stays if it fits all. Numbers and seeds stay those of the whole matrix.
    env: where secrets are looked up by name.
    Raises UsageError if no cell fits, for an unknown key, or if two cells could not be told apart.
    """
    secrets = os.environ if env is None else env
    planned = [_cell_or_skip(scenario, one, index, secrets) for index, one in enumerate(combinations(scenario))]
    return planned if not only else chosen(planned, only)


def check_runnable(planned: Sequence[Cell | Skip]) -> None:
    """Whether this can be run: raises UsageError with the reasons if every cell is skipped, or one lacks its key."""
    lacking = [cell for cell in planned if isinstance(cell, Skip) and cell.variable is not None]
    if lacking:
        raise UsageError(f"{lacking[0].id} cannot be run: {lacking[0].reason}; set it, or leave the engine out")
    if not any(isinstance(cell, Cell) for cell in planned):
        reasons = dict.fromkeys(cell.reason for cell in planned if isinstance(cell, Skip))
        raise UsageError(f"nothing of this scenario can be run: {'; '.join(reasons)}")


def needs_the_machine(planned: Sequence[Cell | Skip]) -> bool:
    """Whether another run here would disturb this one: not if it only loads servers elsewhere, or a simulation."""
    return any(isinstance(cell, Cell) and cell.scope == "server" and cell.engine != "simulated" for cell in planned)


def _cell_or_skip(scenario: Scenario, one: Combination, index: int, secrets: Mapping[str, str]) -> Cell | Skip:
    level = None if one.level is None else one.level.level
    model, engine = one.model_name, one.block.engine
    cell_id = _cell_id(scenario, one, index)
    spec = _engine_spec(one, secrets)
    reason = refusal(scenario, one, spec, secrets)
    if reason is not None:
        variable = next((name for name in one.block.variables() if name not in secrets), None)
        return Skip(index, cell_id, model, engine, level, one.shown_variant, one.repetition, reason, variable)
    elsewhere = engine == "http" and not all(is_loopback(url) for url in listed(spec.options.get("url") or ()))
    scope = "client" if elsewhere else "server"
    trials = tuple(trial_plans(scenario, one))
    return Cell(index, cell_id, model, engine, level, one.shown_variant, one.repetition, spec, trials, scope)


def _cell_id(scenario: Scenario, one: Combination, index: int) -> str:
    model = "" if one.model_name is None else one.model_name.rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    parts = [model, one.block.engine, one.level.level if one.level else "", one.shown_variant or ""]
    parts += [f"r{one.repetition}"] if scenario.repetitions > 1 else []
    return "-".join([f"{index:03d}", *(slug(part) for part in parts if part)])


def _engine_spec(one: Combination, secrets: Mapping[str, str]) -> EngineSpec:
    block = one.block
    variant = Variant() if one.variant is None else block.variants[one.variant]
    options: dict[str, Any] = {**block.options, **block.http_options(), **variant.merged_options()}
    # A variant that says where the server is replaces whatever the block says about it.
    if variant.url is not None:
        options.pop("command", None)
    elif variant.command is not None:
        options.pop("url", None)
    return EngineSpec(
        engine=block.engine,
        model=one.reference,
        level=None if one.level is None else one.level.level,
        options=options,
        python=None if block.python is None else os.path.expanduser(block.python),
        env=dict(block.env),
        headers={header: secrets[name] for header, name in block.headers_env.items() if name in secrets},
        api_key=None if block.api_key_env is None else secrets.get(block.api_key_env),
    )


__all__ = [
    "Cell",
    "Skip",
    "TrialPlan",
    "check_runnable",
    "expand",
    "identity",
    "needs_the_machine",
    "slug",
    "trial_seed",
]
