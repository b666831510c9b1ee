"""Job of `harness run`: the cells of a scenario, or the incomplete ones of a stored run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.locust.options import driven_by
from harness.errors import UsageError
from harness.run.resume import what_is_left
from harness.scenario.model import Scenario
from harness.schedule.availability import answers_in_process
from harness.schedule.cells import Cell, Skip
from harness.schedule.estimate import check_budget, plan_too_large, processes_of
from harness.schedule.matrix import check_runnable, expand
from harness.store.baselines import is_kept
from harness.store.run import find_run, new_run_path, refuse_existing


@dataclass(frozen=True, slots=True)
class Job:
    """Cells to execute."""

    scenario: Scenario
    planned: Sequence[Cell | Skip]
    folder: Path
    stored: bool  # the folder holds a run, `planned` its incomplete cells
    notes: tuple[str, ...] = ()  # remarks for the reader of its report

    def check(self, *, consent: bool) -> None:
        """Raise RunDirectoryExists if the folder exists, UsageError if no cell can run or a plan is too large.

        A stored run may have no cell left.

        Args:
            consent: Load on another machine is allowed without a budget.
        """
        if not self.stored:
            refuse_existing(self.folder)
            check_runnable(self.planned)
        check_plans(self.planned)
        check_budget(self.scenario, self.planned, consent=consent)


def check_plans(planned: Sequence[Cell | Skip]) -> None:
    """Raise UsageError for a plan that needs more memory than this machine has."""
    for cell in planned:
        for plan in cell.trials if isinstance(cell, Cell) else ():
            processes = processes_of(plan, served=not answers_in_process(cell.engine))
            if (why := plan_too_large(plan, processes)) is not None:
                raise UsageError(f"load {plan.name} of {cell.id}: {why}")


def new_job(scenario: Scenario, out: Path | None, only: str | None = None, driver: str | None = None) -> Job:
    """Return the job of a scenario, in a folder of its own."""
    scenario = scenario if driver is None else driven_by(scenario, driver)
    cells = expand(scenario, only=parse_only(only))
    return Job(scenario, cells, out or new_run_path(scenario.title), stored=False)


def stored_job(reference: str, given: Mapping[str, object]) -> Job:
    """Return the job of a stored run. given: values by option, which would contradict its stored scenario."""
    wrong = next((name for name, value in given.items() if value), None)
    if wrong is not None:
        raise UsageError(f"--resume goes on with the scenario that the run has stored: leave {wrong} out")
    path = find_run(reference)
    if is_kept(path):
        raise UsageError(f"{path} is a baseline, which stays as it is: resume the run that it was copied from")
    rest = what_is_left(path)
    return Job(rest.scenario, rest.cells, path, stored=True)


def parse_only(text: str | None) -> dict[str, str]:
    """Parse `engine=x,quantization=y|z`."""
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    if any(not sign for _, sign, _ in pairs[1:]) and pairs[0][1]:
        meant = re.sub(r",(?=[^=,]*(,|$))", "|", text or "")
        raise UsageError(f"--only {text}: separate several values by `|`, in quotes: --only '{meant}'")
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise UsageError(f"--only {text}: write KEY=VALUE, such as engine=llama-server,quantization=q4_0")
    found = {key.strip(): value.strip() for key, _, value in pairs}
    if len(found) < len(pairs):
        raise UsageError(f"--only {text}: give each key once, several values as quantization=q4_0|q8_0")
    return found
