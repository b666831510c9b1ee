"""Validity: which shown numbers of a trial may be off and by how much, from its own records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.analysis.reading import Reading
from harness.store.manifest import CalibrationEntry, TrialEntry
from harness.verdict import cap, client, engine, load, machine, search, steady, stream, tokens
from harness.verdict.reason import Level, Reason, Validity
from harness.verdict.starts import burst_reasons
from harness.verdict.tolerance import Tolerance


def judge(
    trial: TrialEntry,
    reading: Reading,
    facts: dict[str, Any],
    calibration: CalibrationEntry | None = None,
    tolerance: float | None = None,
) -> Validity:
    """Return the validity of a trial.

    Args:
        facts: See `facts.facts_of`; with `steady` (see `steady.steady_facts`).
        calibration: Of the machine, as the run's manifest keeps it.
        tolerance: Share by which a number may be off; None for the default.
    """
    return Validity.of(
        [
            *_doubts(trial, reading, facts, Tolerance.of(tolerance, trial.limits)),
            *_notes(trial, reading, facts, calibration),
        ]
    )


def unmeasured(trial: TrialEntry) -> Validity:
    """Return the validity of a trial that left no records."""
    none = Reason("load_missing", Level.INVALID, "The trial left no records.", "Run it again.", load.OF_REQUESTS)
    return Validity.of(list(load.unfinished(trial)) or [none])


def _doubts(trial: TrialEntry, reading: Reading, facts: dict[str, Any], tolerance: Tolerance) -> Iterator[Reason]:
    """Yield what may change a decision, the load itself first (docs/caveats.md)."""
    columns, rows = reading.columns, reading.columns.measured
    yield from load.missing(trial, reading.frame, columns, trial.client)
    if len(rows):
        yield from load.errors(trial, rows)
        window = (facts.get("telemetry") or {}).get("window") or {}
        yield from client.Client(reading, client.Readings.of(trial.client), window, tolerance).doubts()
        yield from steady.unsteady(reading, facts["steady"], tolerance)
        yield from tokens.token_reasons(trial, reading, facts["tokens"])
        yield from tokens.reuse_reasons(trial, columns)
        yield from tokens.books_reasons(facts)
        yield from stream.not_streamed(reading)
        yield from stream.stalled(reading, tolerance)
        yield from search.doubts(trial, facts.get("saturation"))
    yield from machine.machine_reasons(trial, facts, reading.window.seconds)


def _notes(
    trial: TrialEntry, reading: Reading, facts: dict[str, Any], calibration: CalibrationEntry | None
) -> Iterator[Reason]:
    """Yield what is worth knowing and changes no verdict."""
    if len(reading.columns.measured):
        yield from client.notes(reading.columns.measured, trial.client, calibration)
        yield from stream.bundled(trial.client)
        yield from burst_reasons(reading)
        yield from engine.notes(trial, reading)
        yield from cap.notes(trial, reading)
    yield from machine.notes(facts, reading.window.seconds)
