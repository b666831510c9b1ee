"""Check of two sides before anything runs: what their scenarios say must match."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.comparison.comparison import check_comparable, match
from harness.comparison.differences import differences
from harness.comparison.measured import Measurement, Start
from harness.comparison.sides import Side
from harness.run.entries import cell_entry
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell, Skip
from harness.store.manifest import Manifest


@dataclass(frozen=True, slots=True)
class PlannedSide:
    """A side that is to be measured."""

    name: str
    scenario: Scenario
    cells: Sequence[Cell | Skip]


def check_planned(base: PlannedSide, head: PlannedSide, across: Collection[str]) -> None:
    """Raise UsageError if two sides will not be comparable.

    Args:
        across: Kinds of differences that are meant, see `differences.MUST_MATCH`.
    """
    served = [cell.spec.options.get("served_model") for side in (base, head) for cell in _cells(side)]
    one, other = (_as_planned(side, names_model=all(served)) for side in (base, head))
    matched = match(one, other, across)
    check_comparable(one, other, matched, differences(one, other, matched), across)


def _as_planned(side: PlannedSide, *, names_model: bool) -> Side:
    """Return a side without numbers. What only a run can tell is unknown on both, and does not differ.

    Args:
        names_model: Whether all servers are asked for a model by its name, instead of what they have.
    """
    entries = [(cell, cell_entry(cell)) for cell in _cells(side)]
    manifest = Manifest(scenario=side.scenario.resolved(), cells=[entry for _, entry in entries])
    found = []
    for cell, entry in entries:
        if names_model:
            entry.engine_info.model = cell.spec.options["served_model"]
        for plan, trial in zip(cell.trials, entry.trials, strict=True):
            trial.driver, trial.loop = plan.load.driver, str(plan.load.loop)
            trial.users = plan.load.user_count
            found.append(Measurement((*entry.keys, trial.load), (Start(entry, trial),), {}, {}))
    return Side(side.name, Path(), manifest, tuple(found))


def _cells(side: PlannedSide) -> list[Cell]:
    return [cell for cell in side.cells if isinstance(cell, Cell)]
