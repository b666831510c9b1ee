"""Resume a stored run: complete trials are kept, all others are measured again.

The records of an incomplete trial stay in place, listed under its `attempts`. The new attempt has a folder of its own
(`cells/<cell>/attempt-2/<load>`), with its readings beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.base import EngineError, ModelReference
from engines.models.source import content_hash, resolve
from harness import __version__
from harness.errors import UsageError
from harness.run.entries import cell_entry, session_entry
from harness.scenario.model import Scenario
from harness.scenario.reader import restore
from harness.schedule.cells import Cell, Skip, text_hash
from harness.schedule.matrix import check_variables, expand
from harness.store.manifest import Attempt, CellEntry, Manifest, Provenance, Session, TrialEntry
from harness.store.run import MANIFEST, RunWriter, is_complete

MASKED = "***"
KEPT = {"engine_info", "start", "quality", "unread"}
"""Keys that a cell's entry keeps when trials are measured again."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Rest of a stored run."""

    scenario: Scenario
    writer: RunWriter
    cells: Sequence[Cell]  # incomplete ones, in the order in which they run
    planned: Sequence[Cell | Skip]


def what_is_left(path: Path, env: Mapping[str, str] | None = None) -> Rest:
    """Read a stored run and find its incomplete cells; write nothing.

    Raises RunUnreadable, or UsageError if new measurements could not be compared with the stored ones.
    """
    writer = RunWriter.reopen(path)
    manifest = writer.manifest
    scenario = restore(manifest.scenario, path / MANIFEST)
    known = {entry.id: entry for entry in manifest.cells}
    planned = [cell for cell in expand(scenario, env=env) if cell.id in known]
    if manifest.only_quality:
        planned = [replace(cell, trials=()) if isinstance(cell, Cell) else cell for cell in planned]
    check_variables([cell for cell in planned if known[cell.id].status != "complete"])
    lacking = [cell for cell in planned if isinstance(cell, Cell) and _lacks(path, known[cell.id])]
    if lacking:
        _check_version(manifest)
        _check_text(manifest, scenario)
        _check_identities(planned, known)
        _check_models(planned, known, {cell.spec.model for cell in lacking if cell.spec.model is not None})
    planned = [with_secrets(cell, env) if lacking and isinstance(cell, Cell) else cell for cell in planned]
    ids = {cell.id for cell in lacking}
    return Rest(scenario, writer, [cell for cell in planned if isinstance(cell, Cell) and cell.id in ids], planned)


def begin_session(rest: Rest, command: str) -> None:
    """Add a session to the manifest, and an attempt to each cell that is measured again."""
    manifest = rest.writer.manifest
    of_run = {name: getattr(manifest, name) for name in ("created_utc", "command", "provenance")}
    sessions = manifest.sessions or [Session(number=1, cells=[], **of_run)]  # older versions stored none
    manifest.sessions = [*sessions, session_entry(len(sessions) + 1, command)]
    manifest.notes += _changes(sessions[0].provenance, manifest.sessions[-1])
    manifest.status = "running"
    known = {entry.id: entry for entry in manifest.cells}
    for cell in rest.cells:
        _begin_attempt(rest.writer.path, cell, known[cell.id])
    for one in rest.planned:
        if isinstance(one, Skip):
            _skip(one, known[one.id])
    rest.writer.save()


def _lacks(path: Path, entry: CellEntry) -> bool:
    if not entry.trials:
        return entry.status != "complete"  # skipped, or planned for its quality alone
    scored = entry.quality is None or entry.quality.status in ("complete", "skipped")
    return not scored or not all(is_complete(path, trial) for trial in entry.trials)


def _check_version(manifest: Manifest) -> None:
    made_by = manifest.harness_version
    if made_by != __version__:
        raise UsageError(
            f"this run was begun by harness {made_by} and this is {__version__}, which may measure otherwise: "
            "resume it with that version, or begin a new run"
        )


def _check_text(manifest: Manifest, scenario: Scenario) -> None:
    """Raise UsageError if the text for quality has changed."""
    if manifest.quality_text != text_hash(scenario.quality):
        assert scenario.quality is not None
        raise UsageError(f"{scenario.quality.text} changed since this run was begun; begin a new run")


def _check_identities(planned: Sequence[Cell | Skip], known: Mapping[str, CellEntry]) -> None:
    """Raise UsageError if a trial would measure something else than planned, such as changed files."""
    for cell in planned:
        if isinstance(cell, Skip):
            continue
        planned_entries = {trial.id: trial for trial in cell_entry(cell).trials}
        for stored in known[cell.id].trials:
            now = planned_entries.get(stored.id, TrialEntry())
            if now.identity == stored.identity:
                continue
            changed = [name for name, digest in stored.files.items() if now.files.get(name) != digest]
            what = f"{', '.join(changed)} changed" if changed else "what it would measure changed"
            raise UsageError(f"{cell.id}/{stored.id}: {what} since this run was begun; begin a new run")


def _check_models(planned: Sequence[Cell | Skip], known: Mapping[str, CellEntry], needed: set[ModelReference]) -> None:
    """Raise UsageError if the weights that are needed again have changed."""
    hashes: dict[ModelReference, str | None] = {}
    for cell in planned:
        measured = known[cell.id].engine_info.model_hash
        if isinstance(cell, Skip) or cell.spec.model not in needed or measured is None:
            continue
        if cell.spec.model not in hashes:
            hashes[cell.spec.model] = _hash(cell.spec.model)
        if hashes[cell.spec.model] not in (None, measured):
            raise UsageError(f"the weights of {cell.spec.model.name} changed since this run was begun; begin a new run")


def _hash(model: ModelReference) -> str | None:
    try:
        return content_hash(resolve(model))
    except EngineError:
        return None  # the engine will report it


def with_secrets(cell: Cell, env: Mapping[str, str] | None) -> Cell:
    """Return the cell with its secret values, which are not stored, from the environment."""
    values = os.environ if env is None else env
    masked = [name for name, value in cell.spec.env.items() if value == MASKED]
    for name in masked:
        if name not in values:
            raise UsageError(f"the value of {name} under `env` was not stored, since it may be secret: set {name}")
    own = {**cell.spec.env, **{name: values[name] for name in masked}}
    return replace(cell, spec=replace(cell.spec, env=own))


def _begin_attempt(path: Path, cell: Cell, entry: CellEntry) -> None:
    """Replace the cell's entry, except for complete trials; the others list their earlier attempts."""
    number = 1
    while (path / _folder(cell, number)).exists():
        number += 1
    fresh = cell_entry(cell, _folder(cell, number))
    before = {trial.id: trial for trial in entry.trials}
    for place, trial in enumerate(fresh.trials):
        old = before.get(trial.id)
        if old is not None and is_complete(path, old):
            fresh.trials[place] = old
            continue
        attempts = [] if old is None else list(old.attempts)
        if old is not None and old.t0_ns is not None:
            attempts.append(_attempt(old))
        trial.attempt, trial.attempts = number, attempts
    fresh.attempt = number
    entry.take(fresh, fresh.model_fields_set - (KEPT & entry.model_fields_set))


def _attempt(trial: TrialEntry) -> Attempt:
    found = Attempt(attempt=1, session=1)
    found.take(Attempt.model_validate(trial.model_dump(include=set(Attempt.model_fields), exclude_unset=True)))
    if found.status in ("running", "pending"):
        found.status, found.reason = "failed", "the run ended in the middle of it"
    return found


def _folder(cell: Cell, attempt: int) -> str:
    return f"cells/{cell.id}" + (f"/attempt-{attempt}" if attempt > 1 else "")


def _skip(cell: Skip, entry: CellEntry) -> None:
    """Mark a cell that cannot run any more as skipped, or its incomplete trials as failed."""
    if entry.status == "complete":
        return
    if any(trial.status == "complete" for trial in entry.trials):
        for trial in entry.trials:
            if trial.status != "complete":
                trial.status, trial.reason = "failed", cell.reason
        entry.status, entry.reason = "failed", cell.reason
    else:
        entry.status, entry.reason, entry.trials = "skipped", cell.reason, []


def _changes(first: Provenance, session: Session) -> list[str]:
    """Return notes on the differences between the machines and libraries of two sessions."""
    return [
        f"since session {session.number} (resumed {session.created_utc}) {what} differs in {name}: "
        f"{before} before, {after} then"
        for what, name, before, after in provenance_changes(first, session.provenance)
    ]


def provenance_changes(first: Provenance, second: Provenance) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield the differences between machines and libraries: which of the two, the fact, its value before and after."""
    for before, after, what in (
        (first.must_match.stored(), second.must_match.stored(), "the machine"),
        (first.under_test.libraries, second.under_test.libraries, "what is installed"),
    ):
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                yield what, name, before.get(name), after.get(name)
