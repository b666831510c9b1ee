"""`harness validate`: check scenario files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Labels, Sets
from harness.cli.output import say
from harness.errors import Problem, ScenarioError, UsageError

if TYPE_CHECKING:
    from harness.scenario.model import Scenario
    from harness.schedule.cells import Cell, Skip


def validate(
    scenarios: Annotated[list[Path], typer.Argument(help="Scenario files or shipped names.", show_default=False)],
    sets: Sets = [],  # noqa: B006
    labels: Labels = [],  # noqa: B006
) -> None:
    """Check scenario files; report every problem with its place and the fix."""
    problems = [problem for path in scenarios for problem in _checked(path, sets, labels)]
    if problems:
        raise ScenarioError(problems)


def _checked(path: Path, sets: Sequence[str], labels: Sequence[str]) -> Sequence[Problem]:
    """Return the problems of a file; print that it is fine if there are none, and remarks."""
    from harness.scenario.reader import load, with_places
    from harness.schedule.matrix import expand

    try:
        scenario = load(path, sets=sets, labels=labels)
    except ScenarioError as error:
        return error.problems
    try:
        planned = expand(scenario)
    except UsageError as error:
        return [Problem(str(error), file=str(path))]
    problems = with_places(_plan_problems(scenario, planned), path, sets)
    if not problems:
        print(f"{path}: fine")
    for line in _remarks(scenario, planned):
        say(f"{path}: {line}")
    return problems


def _plan_problems(scenario: Scenario, planned: Sequence[Cell | Skip]) -> Iterator[Problem]:
    """Yield the problems with which a run would end or skip a configuration: missing levels, too small a budget."""
    from harness.scenario.engine_problems import level_problems
    from harness.schedule.estimate import estimate, over_budget

    yield from level_problems(scenario)
    for why in over_budget(scenario, estimate(planned)):
        yield Problem(why, "budget")


def _remarks(scenario: Scenario, planned: Sequence[Cell | Skip]) -> Iterator[str]:
    """Yield what files and keys do not mean, and what may change until the run: loads, servers, variables."""
    from harness.scenario.engine_problems import without_effect
    from harness.scenario.files.notes import file_notes
    from harness.schedule.reachable import silent_servers
    from harness.verdict.forecast import foretold_of

    yield from file_notes(scenario)
    yield from without_effect(scenario)
    yield from foretold_of(scenario)
    yield from dict.fromkeys(silent_servers(planned).values())
    for name in scenario.variables_not_set():
        yield f"the environment variable {name} is not set, or empty; `harness run` will need it"
