"""Records through the whole of what comes after a driver: written, closed, read again, analysed and judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.records import Record
from harness.results import Results, derive
from harness.run.entries import plan_entry
from harness.schedule.requests import Schedule
from harness.store.manifest import Manifest
from harness.store.run import Run, RunWriter, record_writer
from tests.fabricated import cell_entry, trial_entry

KEY = ("000-tiny-simulated-f16", "000-sustained")


def results_of(path: Path, records: Sequence[Record], schedule: Schedule | None = None, **changes: Any) -> Results:
    """What a run finds out that stored these records as its only trial. changes: of the trial's entry."""
    trial = trial_entry(**{"client": {}, **changes})
    if schedule is not None:
        plan = plan_entry(schedule)
        trial.take(plan, plan.model_fields_set - changes.keys())
    cell = cell_entry(trials=[trial], path="cells/000")
    writer = RunWriter(path, Manifest(name="stored", status="complete", cells=[cell], scenario={}))
    with record_writer(writer.folder(trial.path)) as stream:
        for record in records:
            stream.add(record)
    assert writer.finish_records(path / trial.path) == len(records)
    run = Run.open(path)
    return derive(run.manifest, run.trials(), path)
