"""Judgements of fabricated trials, as a report derives them."""

from __future__ import annotations

from typing import Any

from harness.analysis.facts import facts_of
from harness.analysis.reading import read
from harness.records import Record
from harness.results import steady_and_saturated
from harness.store.manifest import CalibrationEntry
from harness.verdict.reason import Level, Validity
from harness.verdict.validity import judge
from tests.fabricated import FabricatedTrial, trial_of


def judged(
    made: FabricatedTrial, calibration: CalibrationEntry | None = None, tolerance: float | None = None
) -> Validity:
    """Return the validity of a trial from its records and samples."""
    reading = read(made)
    facts = facts_of(made.cell, reading, made.samples()) | steady_and_saturated(reading)
    return judge(made.trial, reading, facts, calibration, tolerance)


def judged_records(records: list[Record], tolerance: float | None = None, **changes: Any) -> Validity:
    """Return the validity of a trial with these records."""
    return judged(trial_of(records, **changes), tolerance=tolerance)


def codes(validity: Validity) -> dict[str, Level]:
    """Return its doubts, the first of each code."""
    return {reason.code: reason.level for reason in reversed(validity.reasons)}


def noted(validity: Validity) -> set[str]:
    """Return the codes of its notes."""
    return {note.code for note in validity.notes}
