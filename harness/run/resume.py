"""Going on with a stored run, whatever ended it: what is complete is kept, everything else is measured again.

What was measured of a trial that broke off stays where it is, listed under the trial's `attempts`; the attempt that
counts is written to a folder of its own (`cells/<cell>/attempt-2/<load>`), with the readings taken beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
"""What a cell's entry keeps when trials of it are measured again."""


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left to do of a stored run. cells: those with something to measure, in the order in which they run."""

    scenario: Scenario
    writer: RunWriter
    cells: Sequence[Cell]
    planned: Sequence[Cell | Skip]


def what_is_left(path: Path, env: Mapping[str, str] | None = None) -> Rest:
    """Read a stored run and find what it lacks; nothing is written.

    Raises RunUnreadable, and UsageError with the reason where what it lacks could not be compared with what it has.
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
    told = [_with_secrets(cell, env) if lacking and isinstance(cell, Cell) else cell for cell in planned]
    ids = {cell.id for cell in lacking}
    return Rest(scenario, writer, [cell for cell in told if isinstance(cell, Cell) and cell.id in ids], told)


def begin_session(rest: Rest, command: str) -> None:
    """Note in the manifest who goes on and where, and what is to be measured again."""
    manifest = rest.writer.manifest
    sessions = manifest.sessions or [_first_session(manifest)]
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
        return entry.status != "complete"  # it was skipped, or is there for its quality alone
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
    """Whether cells that are still to be scored would be scored on the same text."""
    if manifest.quality_text != text_hash(scenario.quality):
        assert scenario.quality is not None
        raise UsageError(f"{scenario.quality.text} changed since this run was begun; begin a new run")


def _check_identities(planned: Sequence[Cell | Skip], known: Mapping[str, CellEntry]) -> None:
    """Whether each trial would still measure what it was planned to: files may have changed since."""
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
    """Whether the weights that are needed again are those that were measured."""
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
        return None  # the engine will say it


def _with_secrets(cell: Cell, env: Mapping[str, str] | None) -> Cell:
    """The cell with the values that were not stored because they may be secret, from the environment."""
    values = os.environ if env is None else env
    masked = [name for name, value in cell.spec.env.items() if value == MASKED]
    for name in masked:
        if name not in values:
            raise UsageError(f"the value of {name} under `env` was not stored, since it may be secret: set {name}")
    own = {**cell.spec.env, **{name: values[name] for name in masked}}
    return replace(cell, spec=replace(cell.spec, env=own))


def _begin_attempt(path: Path, cell: Cell, entry: CellEntry) -> None:
    """The cell's entry anew, but for its complete trials; earlier attempts at the others are listed with them."""
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
        found.status, found.reason = "failed", "the run ended in the middle of it, without a word"
    return found


def _folder(cell: Cell, attempt: int) -> str:
    return f"cells/{cell.id}" + (f"/attempt-{attempt}" if attempt > 1 else "")


def _skip(cell: Skip, entry: CellEntry) -> None:
    """A cell that cannot be run any more: what it lacks is failed, or all of it skipped."""
    if entry.status == "complete":
        return
    if any(trial.status == "complete" for trial in entry.trials):
        for trial in entry.trials:
            if trial.status != "complete":
                trial.status, trial.reason = "failed", cell.reason
        entry.status, entry.reason = "failed", cell.reason
    else:
        entry.status, entry.reason, entry.trials = "skipped", cell.reason, []


def _first_session(manifest: Manifest) -> Session:
    """Of a run whose version of this program did not note it."""
    return Session(
        number=1, created_utc=manifest.created_utc, command=manifest.command, provenance=manifest.provenance, cells=[]
    )


def _changes(first: Provenance, session: Session) -> list[str]:
    """What differs between the machines and libraries of two sessions, as notes for the report."""
    second = session.provenance
    found = []
    for before, after, what in (
        (first.must_match.stored(), second.must_match.stored(), "the machine"),
        (first.under_test.libraries, second.under_test.libraries, "what is installed"),
    ):
        differing = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
        found += [
            f"since session {session.number} (resumed {session.created_utc}) {what} differs in {name}: "
            f"{before.get(name)} before, {after.get(name)} then"
            for name in differing
        ]
    return found
