"""Reading of a scenario file, with every problem and its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import Problem, ScenarioError
from harness.scenario.base import as_name
from harness.scenario.checks import (
    conversation_problems,
    cross_problems,
    in_order,
    length_problems,
    loads_by_key,
    name_problems,
    placed,
    problems_of,
    search_problems,
    without_echoes,
)
from harness.scenario.engine_problems import engine_problems
from harness.scenario.engines import CHECKED
from harness.scenario.files.hub import HubPrompts
from harness.scenario.limit_checks import gate_problems, limit_problems
from harness.scenario.loads.kinds import Trace
from harness.scenario.model import Scenario
from harness.scenario.source import Source, read, read_text
from harness.scenario.templates import runnable


def load(
    path: str | Path, *, sets: Sequence[str] = (), labels: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> Scenario:
    """Read a scenario file.

    Args:
        path: File, or the name of a shipped scenario.
        sets: Values `a.b.0.c=value`, applied last.
        labels: Labels `key=value` to add.
        env: Variables for `${VAR}`; None: those of this process.

    Raises:
        ScenarioError: The scenario is wrong; it lists every problem.
    """
    path = runnable(Path(path))
    return _scenario_of(read(path, sets=sets, labels=labels, env=env), path)


def load_text(text: str, name: str, *, sets: Sequence[str] = (), labels: Sequence[str] = ()) -> Scenario:
    """Return the scenario of a text, in whose problems `name` stands for the file. Raises as `load`."""
    return _scenario_of(read_text(text, name, sets=sets, labels=labels, env=None), Path("scenario.yaml"))


def _scenario_of(source: Source, path: Path) -> Scenario:
    """Return the scenario of a tree, checked."""
    problems = [*source.problems]
    scenario: Scenario | None = None
    if source.tree is not None:
        try:
            scenario = Scenario.model_validate(source.tree.plain())
        except ValidationError as error:
            problems += problems_of(error, source.tree, of_scenario=True)
        problems += cross_problems(source.tree)
        if scenario is not None:
            problems += placed(_content_problems(scenario), source.tree)
            problems += [] if problems else placed(engine_problems(scenario), source.tree)
        problems = without_echoes(source.problems, problems)
    if problems or scenario is None:
        raise ScenarioError(in_order(problems))
    if not scenario.name:
        scenario = scenario.model_copy(update={"name": as_name(path.stem) or "scenario"})
    scenario._source = path
    return scenario


def _content_problems(scenario: Scenario) -> list[Problem]:
    """Return the mistakes in prompt files, traces and limits, and between loads and conversations."""
    from harness.scenario.files.prompts import summary  # numpy is heavy, and `harness list` does not need it
    from harness.scenario.files.traces import read_trace

    workloads = [scenario.workload, *(each.workload for each in scenario.classes.values() if each.workload)]
    if problems := list(_wrong_files(summary, [one.prompts for one in workloads])):
        return problems
    problems = [*conversation_problems(scenario), *length_problems(scenario), *name_problems(scenario)]
    problems += [*search_problems(scenario), *limit_problems(scenario), *gate_problems(scenario)]
    traces = [load.file for load in loads_by_key(scenario).values() if isinstance(load, Trace)]
    if traces and scenario.workload.prompts is not None:
        why = "cannot be combined with `kind: trace`, which sets the prompt lengths; leave it out"
        problems.append(Problem(why, key="workload.prompts"))
    return [*problems, *_wrong_files(read_trace, traces)]


def _wrong_files(read_file: Callable[[Any], object], paths: Sequence[Path | HubPrompts | None]) -> Iterator[Problem]:
    distinct = [path for place, path in enumerate(paths) if path not in paths[:place]]
    for path in distinct:
        if isinstance(path, HubPrompts) or (path is not None and path.is_file()):
            try:
                read_file(path)
            except ScenarioError as error:
                yield from error.problems


def with_places(problems: Iterable[Problem], path: str | Path, sets: Sequence[str] = ()) -> list[Problem]:
    """Return problems that were found after reading, each with the place of its key in the file."""
    tree = read(runnable(Path(path)), sets=sets, labels=(), env=None).tree
    return [*problems] if tree is None else placed(problems, tree)


def as_checked(resolved: Mapping[str, Any]) -> Scenario:
    """Return a scenario that another process has checked; this process may lack some of its engines."""
    return Scenario.model_validate(resolved, context={CHECKED: True})


def restore(resolved: Mapping[str, Any], source: Path) -> Scenario:
    """Return a scenario from the output of `Scenario.resolved`, as a manifest stores it.

    Raises:
        ScenarioError: The scenario has another grammar.
    """
    try:
        scenario = Scenario.model_validate(resolved)
    except ValidationError as error:
        details = error.errors(include_url=False)
        found = [Problem(str(one["msg"]), ".".join(map(str, one["loc"])), str(source)) for one in details]
        raise ScenarioError(found) from error
    scenario._source = source
    return scenario
