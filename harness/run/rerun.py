"""Repeat a stored run: the scenario and seed that it stored, and what differs on this machine from then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import __version__
from harness.errors import ScenarioError, UsageError
from harness.run.entries import cell_entry
from harness.run.resume import provenance_changes, with_secrets
from harness.scenario.model import Scenario
from harness.scenario.reader import restore
from harness.schedule.cells import Cell, Skip, text_hash
from harness.schedule.matrix import check_variables, expand
from harness.store.manifest import Manifest, Provenance
from harness.store.run import MANIFEST, Run
from harness.telemetry import provenance


@dataclass(frozen=True, slots=True)
class Repeat:
    """Run to make again.

    Attributes:
        planned: The configurations of the stored run, with the same seeds.
        notes: What differs from then, in sentences.
    """

    scenario: Scenario
    planned: Sequence[Cell | Skip]
    original: Manifest
    notes: tuple[str, ...]


def repeat(path: Path, env: Mapping[str, str] | None = None) -> Repeat:
    """Read what a stored run measured, and plan the same; write nothing.

    Raises RunUnreadable, UsageError for a scenario of another grammar, and if files or secrets are missing.
    """
    original = Run.open(path).manifest
    scenario = _restored(original, path)
    known = {entry.id for entry in original.cells}
    planned = [cell for cell in expand(scenario, env=env) if cell.id in known]
    if not planned:
        raise UsageError(f"{path}: its configurations are unknown to this version of harness; use that which made it")
    check_variables(planned)
    if original.only_quality:
        planned = [replace(cell, trials=()) if isinstance(cell, Cell) else cell for cell in planned]
    planned = [with_secrets(cell, env) if isinstance(cell, Cell) else cell for cell in planned]
    now = Provenance.model_validate(provenance.collect())
    notes = (f"repeats {path}, begun {original.created_utc}", *_differing(original, now, planned))
    if original.quality_text != text_hash(scenario.quality):
        notes += ("the text for quality changed since then: the figures of quality differ",)
    return Repeat(scenario, planned, original, notes)


def _restored(original: Manifest, path: Path) -> Scenario:
    try:
        return restore(original.scenario, path / MANIFEST)
    except ScenarioError as error:
        made_by = f"harness {original.harness_version} made it, and its scenario has keys of that time"
        raise UsageError(f"{path}: {made_by} ({error.problems[0]}); its command was: {original.command}") from error


def other_plans(original: Manifest, again: Manifest) -> list[str]:
    """Return the trials whose plan differs from that of the original, as cell and trial."""
    before = {(cell.id, trial.id): trial.plan_hash for cell, trial in original.trials()}
    return [
        f"{cell.id}/{trial.id}"
        for cell, trial in again.trials()
        if trial.plan_hash is not None and before.get((cell.id, trial.id)) not in (None, trial.plan_hash)
    ]


def _differing(original: Manifest, now: Provenance, planned: Sequence[Cell | Skip]) -> Iterator[str]:
    """Yield what differs from then: version, machine, libraries, files and configurations that cannot run."""
    if original.harness_version != __version__:
        yield f"harness {original.harness_version} then, {__version__} now: it may measure otherwise"
    for what, name, before, after in provenance_changes(original.provenance, now):
        yield f"{what} differs in {name}: {before} then, {after} now"
    yield from _changed_files(original, planned)
    skipped = {entry.id for entry in original.cells if entry.status == "skipped"}
    for cell in planned:
        if isinstance(cell, Skip) and cell.id not in skipped:
            yield f"{cell.id} cannot run now: {cell.reason}"
        elif isinstance(cell, Cell) and cell.id in skipped:
            yield f"{cell.id} was skipped then, and runs now"


def _changed_files(original: Manifest, planned: Sequence[Cell | Skip]) -> Iterator[str]:
    """Yield a sentence for each file that changed. Raises UsageError for one that is missing."""
    stored: dict[str, str | None] = {}
    for _, trial in original.trials():
        stored |= trial.files
    found: dict[str, str | None] = {}
    for cell in planned:
        for trial in cell_entry(cell).trials if isinstance(cell, Cell) else ():
            found |= trial.files
    for name, digest in found.items():
        if digest is None:
            raise UsageError(f"{name} is missing: the run cannot be repeated without it")
        if name in stored and stored[name] != digest:
            yield f"{name} changed since then: its requests differ"
