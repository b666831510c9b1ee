"""`harness validate`: check scenario files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Sets
from harness.cli.output import say
from harness.errors import Problem, ScenarioError


def validate(
    scenarios: Annotated[list[Path], typer.Argument(help="Scenario files or shipped names.", show_default=False)],
    sets: Sets = [],  # noqa: B006
) -> None:
    """Check scenario files; report every problem with its place and the fix."""
    from harness.scenario.reader import load
    from harness.schedule.availability import missing_levels
    from harness.verdict.forecast import foretold_of

    problems: list[Problem] = []
    for path in scenarios:
        try:
            checked = load(path, sets=sets)
        except ScenarioError as error:
            problems += error.problems
            continue
        print(f"{path}: fine")
        for line in foretold_of(checked):
            say(f"{path}: {line}")
        for line in missing_levels(checked):
            say(f"{path}: a level will be skipped: {line}")
        for name in checked.variables_not_set():
            say(f"{path}: the environment variable {name} is not set; `harness run` will need it")
    if problems:
        raise ScenarioError(problems)
