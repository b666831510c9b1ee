"""Candidates of a tuning: the scenario as it is, and with each combination of the values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import ScenarioError, UsageError
from harness.scenario.engines import EngineBlock
from harness.scenario.loads.kinds import Load, load_names
from harness.scenario.loads.saturate import Saturate
from harness.scenario.model import Scenario
from harness.scenario.reader import restore
from harness.schedule.cells import Cell, Skip, combinations, slug
from harness.schedule.matrix import expand
from harness.tuning.axes import EXAMPLE, Axis, Kind, label, settings, with_flag

DEFAULTS = 0
"""Number of the candidate that is the scenario as it is."""
Read = Callable[[Sequence[str]], Scenario]
"""Reads the scenario with further `--set`s. Raises ScenarioError if it is wrong with them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings to be tried.

    Attributes:
        number: Place in the plan; DEFAULTS for the scenario as it is.
        given: Values by their keys, as written; none for the defaults.
        scenario: Scenario with them; None if it is wrong.
        why_not: Why it is; "" if it is not.
    """

    number: int
    given: Mapping[str, str] = field(default_factory=dict)
    scenario: Scenario | None = None
    why_not: str = ""

    @property
    def name(self) -> str:
        """Name for people."""
        return label(self.given) if self.given else "defaults"

    @property
    def folder(self) -> str:
        """Name of its folder in a round."""
        return f"{self.number:02}-{slug(self.name)}"

    def stored(self) -> dict[str, Any]:
        """Return what a plan stores of it; values of secrets are masked."""
        resolved = None if self.scenario is None else self.scenario.resolved()
        return {"given": dict(self.given), "scenario": resolved, "why_not": self.why_not}


def restored(stored: Sequence[Mapping[str, Any]], source: Path) -> list[Candidate]:
    """Return the candidates of a stored plan. Raises ScenarioError if a scenario has another grammar."""
    return [
        Candidate(
            number,
            one["given"],
            None if one["scenario"] is None else restore(one["scenario"], source),
            one["why_not"],
        )
        for number, one in enumerate(stored)
    ]


@dataclass(frozen=True, slots=True)
class Target:
    """Engine block of the scenario whose keys change, and its variant, if one was chosen."""

    scenario: Scenario
    cell: Cell | Skip
    number: int
    variant: str | None

    @property
    def block(self) -> EngineBlock:
        return self.scenario.engines[self.number]

    @property
    def command(self) -> str | None:
        """Command that starts the server; None without one."""
        of_variant = None if self.variant is None else self.block.variants[self.variant]
        if of_variant is not None and (of_variant.command or of_variant.url):
            return of_variant.command
        return self.block.command

    def sets(self, axes: Sequence[Axis], given: Mapping[str, str]) -> list[str]:
        """Return the `--set`s of some settings."""
        found, command = [], self.command
        for axis in axes:
            value = given[axis.key]
            if axis.kind is Kind.FLAG:
                assert command is not None  # `check_axes` saw to it
                command = with_flag(command, axis.name, value)
            elif axis.kind is Kind.VARIABLE:
                found.append(f"{self._own}.env.{axis.name}={value}")
            else:
                found.append(f"{self._options}.{axis.name}={value}")
        if command != self.command:
            found.append(f"{self._command}={json.dumps(command)}")
        return found

    @property
    def _own(self) -> str:
        return f"engines.{self.number}"

    @property
    def _options(self) -> str:
        """Path of the options; those of a variant stand in it."""
        return f"{self._own}.options" if self.variant is None else f"{self._own}.variants.{self.variant}"

    @property
    def _command(self) -> str:
        of_variant = self.variant is not None and self.block.variants[self.variant].command is not None
        return f"{self._own}.variants.{self.variant}.command" if of_variant else f"{self._own}.command"


def target_of(scenario: Scenario, only: Mapping[str, str]) -> Target:
    """Return what is tuned. Raises UsageError unless it is one configuration that runs one load."""
    planned = expand(scenario, only=only)
    if len(planned) > 1:
        names = ", ".join(cell.id for cell in planned[:4]) + (", ..." if len(planned) > 4 else "")
        raise UsageError(f"one configuration is tuned, and there are {len(planned)}: {names}; choose one with --only")
    (cell,) = planned
    one = combinations(scenario)[cell.index]
    number = next(place for place, block in enumerate(scenario.engines) if block is one.block)
    return Target(scenario, cell, number, one.variant)


def check_axes(target: Target, axes: Sequence[Axis]) -> None:
    """Raise UsageError for an axis that the engine has no use for."""
    block = target.block
    for axis in axes:
        if axis.kind is Kind.FLAG and target.command is None:
            instead = f"write {EXAMPLE}" if block.engine != "http" else "name its `command` in the scenario"
            raise UsageError(f"--over {axis.key}: engine `{block.engine}` has no command here; {instead}")
        if axis.kind is not Kind.FLAG and block.engine == "http" and target.command is None:
            raise UsageError(f"--over {axis.key}: the server runs already; name the `command` that starts it")
        if axis.kind is Kind.OPTION and block.engine == "http":
            flag = "--over --parallel=1,2"
            raise UsageError(f"--over {axis.key}: a server by command has flags, not options; write {flag}")


def one_start(scenario: Scenario, name: str | None) -> Scenario:
    """Return a scenario of one start under one load. Raises UsageError if it is not clear which.

    Args:
        name: Name of the load; None for the only one.
    """
    every = [*(block.load for block in scenario.engines if block.load is not None), scenario.load]
    names = list(dict.fromkeys(one for loads in every for one in load_names(loads)))
    if name is not None and name not in names:
        raise UsageError(f"--load {name}: the scenario has no such load; it has {', '.join(names)}")
    if name is None and any(len(loads) > 1 for loads in every):
        raise UsageError(f"one load is tuned for, and there are {', '.join(names)}; choose one with --load NAME")
    blocks = tuple(block.model_copy(update={"load": _chosen(block.load, name)}) for block in scenario.engines)
    once = {"load": _chosen(scenario.load, name) or (), "engines": blocks, "repetitions": 1, "compare": None}
    chosen = scenario.model_copy(update=once)
    loads = [load for block in chosen.engines for load in block.load or chosen.load]
    if any(isinstance(load, Saturate) for load in loads):
        raise UsageError("a search for the largest rate has a load of its own each time; name a load of one rate")
    return chosen


def _chosen(loads: Sequence[Load] | None, name: str | None) -> tuple[Load, ...] | None:
    if loads is None or name is None:
        return None if loads is None else tuple(loads)
    return tuple(load for load, own in zip(loads, load_names(loads), strict=True) if own == name) or None


def candidates(target: Target, axes: Sequence[Axis], read: Read) -> list[Candidate]:
    """Return the defaults, then every combination that is not the same as they are.

    Raises UsageError for a value that is wrong by itself. One that is wrong beside others only is a candidate that
    cannot be tried.
    """
    check_axes(target, axes)
    for axis in axes:
        for value in axis.values:
            try:
                read(target.sets([axis], {axis.key: value}))
            except ScenarioError as error:
                raise UsageError(f"--over {axis.key}={value}: {error.problems[0].message}") from error
    found = [Candidate(DEFAULTS, {}, target.scenario)]
    for given in settings(axes):
        try:
            one = Candidate(len(found), given, read(target.sets(axes, given)))
        except ScenarioError as error:
            one = Candidate(len(found), given, None, error.problems[0].message)
        if one.scenario != target.scenario:
            found.append(one)
    return found
