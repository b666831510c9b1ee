"""Part of a trial that a worker receives, as JSON, and the plan rebuilt from it.

Processes that share a plan do not send it to each other. Each builds it from the scenario and checks the hash before
any connection is opened. A part contains the header values that the scenario may store, and none from variables.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engines.base import Endpoint, EngineError, ModelReference
from engines.models.source import resolve
from engines.models.tokenizer import Tokenizer, tokenizer
from harness.drivers.base import DriveSettings
from harness.errors import TrialFailed
from harness.scenario.reader import as_checked
from harness.schedule.cells import Cell
from harness.schedule.estimate import plan_too_large
from harness.schedule.matrix import cell_at
from harness.schedule.requests import Schedule, build


@dataclass(frozen=True, slots=True)
class PartSpec:
    """Specification of a trial for a worker; JSON-able by `dataclasses.asdict`, without header values."""

    scenario: Mapping[str, Any]
    cell: int
    trial: int
    plan_hash: str
    settings: DriveSettings
    target: Endpoint
    salt: int = 0  # of the prompts
    refusal: str | None = None  # reason for which the server refuses temperature 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", replace(self.target, headers={}))

    def endpoint(self, headers: Mapping[str, str]) -> Endpoint:
        """Return the server's endpoint with these headers."""
        return replace(self.target, headers=headers)

    def own_headers(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of every request, with values from `env`. Raises TrialFailed if a variable is missing."""
        spec = cell_of(self, env).spec
        plain = {str(name): str(value) for name, value in dict(spec.options.get("headers") or {}).items()}
        key = {"Authorization": f"Bearer {spec.api_key}"} if spec.api_key else {}
        return {**plain, **spec.headers, **key}


def cell_of(part: PartSpec, env: Mapping[str, str] | None = None) -> Cell:
    """Return the part's cell. Raises TrialFailed with the reason if it cannot run from here."""
    cell = cell_from(part.scenario, part.cell, env)
    return cell if part.refusal is None else cell.refused(part.refusal)


def cell_from(scenario: Mapping[str, Any], index: int, env: Mapping[str, str] | None = None) -> Cell:
    """Return a cell of a resolved scenario. Raises TrialFailed like `cell_of`."""
    cell = cell_at(as_checked(scenario), index, env)
    if not isinstance(cell, Cell):
        raise TrialFailed(f"the scenario has no configuration {index} on this machine" if cell is None else cell.reason)
    return cell


def rebuild(part: PartSpec, env: Mapping[str, str] | None = None) -> Schedule:
    """Build the part's plan. Raises TrialFailed if it differs from the expected one or cannot be built."""
    try:
        schedule = schedule_of(replace(cell_of(part, env), salt=part.salt), part.trial)
    except EngineError as error:
        raise TrialFailed(f"the plan cannot be built on this machine: {error}") from error
    if schedule.plan_hash != part.plan_hash:
        raise TrialFailed(
            f"the plan built here ({schedule.plan_hash[:12]}) differs from the plan to send ({part.plan_hash[:12]}): "
            "install the same version of harness here, and give it the same files and model"
        )
    return schedule


def schedule_of(cell: Cell, trial: int) -> Schedule:
    """Build the plan of one of a cell's trials.

    Raises EngineError if the model's tokenizer is unavailable, TrialFailed if the machine has too little memory for the
    plan, ScenarioError as `build` does.
    """
    plan = cell.trials[trial]
    if (why := plan_too_large(plan)) is not None:
        raise TrialFailed(why)
    words = tokenizer_of(cell.spec.model)
    return build(plan.load, plan.workload, plan.seed, classes=plan.classes, tokenizer=words, salt=cell.salt)


@functools.cache  # one cell per process; no second download check between its trials
def tokenizer_of(model: ModelReference | None) -> Tokenizer | None:
    """Return the tokenizer of the cell's model, if it is available without the engine."""
    return None if model is None else tokenizer(resolve(model))
