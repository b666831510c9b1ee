"""What `harness run` is asked to do: a scenario's cells, or what a stored run lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.drivers.locust.options import driven_by
from harness.errors import UsageError
from harness.run.resume import what_is_left
from harness.scenario.model import Scenario
from harness.scenario.reader import load
from harness.schedule.availability import answers_in_process
from harness.schedule.cells import Cell, Skip
from harness.schedule.estimate import plan_too_large, processes_of
from harness.schedule.matrix import check_runnable, expand
from harness.store.run import find_run, new_run_path, refuse_existing


@dataclass(frozen=True, slots=True)
class Job:
    """One of the two. stored: whether the folder holds a run to go on with; `planned` is what it lacks."""

    scenario: Scenario
    planned: Sequence[Cell | Skip]
    folder: Path
    stored: bool

    def check(self) -> None:
        """Raises RunDirectoryExists if its place is taken, UsageError if nothing can be run, or a plan is too large for
        this machine; of a stored run there may be nothing left.
        """
        if not self.stored:
            refuse_existing(self.folder)
            check_runnable(self.planned)
        check_plans(self.planned)


def check_plans(planned: Sequence[Cell | Skip]) -> None:
    """Raises UsageError, one sentence, for a plan that this machine has not the memory to make."""
    for cell in planned:
        for plan in cell.trials if isinstance(cell, Cell) else ():
            processes = processes_of(plan, served=not answers_in_process(cell.engine))
            if (why := plan_too_large(plan, processes)) is not None:
                raise UsageError(f"load {plan.name} of {cell.id}: {why}")


def new_job(
    path: Path | None,
    out: Path | None,
    sets: Sequence[str] = (),
    labels: Sequence[str] = (),
    only: str | None = None,
    driver: str | None = None,
) -> Job:
    """The cells of a scenario, to be stored in a folder of their own."""
    if path is None:
        raise UsageError("name a scenario file, or a stored run to go on with: --resume RUN")
    wanted = load(path, sets=sets, labels=labels)
    wanted = wanted if driver is None else driven_by(wanted, driver)
    chosen = parse_only(only)
    return Job(wanted, expand(wanted, only=chosen), out or new_run_path(wanted.title), stored=False)


def stored_job(reference: str, given: Mapping[str, object]) -> Job:
    """What a stored run lacks. given: what would contradict the scenario that it holds, by option."""
    wrong = next((name for name, value in given.items() if value), None)
    if wrong is not None:
        raise UsageError(f"--resume goes on with the scenario that the run has stored: leave {wrong} out")
    path = find_run(reference)
    rest = what_is_left(path)
    return Job(rest.scenario, rest.cells, path, stored=True)


def parse_only(text: str | None) -> dict[str, str]:
    """`engine=x,quantization=y|z` as a mapping."""
    pairs = [part.partition("=") for part in text.split(",")] if text else []
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise UsageError(f"--only {text}: write KEY=VALUE, such as engine=llama-server,quantization=q4_0")
    found = {key.strip(): value.strip() for key, _, value in pairs}
    if len(found) < len(pairs):
        raise UsageError(f"--only {text}: give each key once, several values as quantization=q4_0|q8_0")
    return found
