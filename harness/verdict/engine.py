"""Remarks on how an engine was used: more requests at once than it generates, and another way to draw tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.analysis.rates import busy_seconds
from harness.store.manifest import TrialEntry
from harness.verdict.reason import Level, Reason
from harness.verdict.thresholds import QUEUED_IN_ENGINE

if TYPE_CHECKING:
    from harness.analysis.reading import Reading


def notes(trial: TrialEntry, reading: Reading) -> Iterator[Reason]:
    """Yield the notes of a trial."""
    yield from _queues(trial, reading)
    yield from _draws_by_itself(trial)


def _queues(trial: TrialEntry, reading: Reading) -> Iterator[Reason]:
    """Whether more requests are in flight than the engine generates at a time: latencies hold their waiting then."""
    slots, users = trial.slots, trial.users
    if not slots or (users is not None and users <= slots):
        return
    window = reading.window
    in_flight = busy_seconds(reading.columns, window) / window.seconds if window.seconds > 0 else 0.0
    many = f"{users} users" if users is not None else f"{in_flight:.3g} requests in flight"
    sentence = f"Requests queue in the engine: {many}, {slots} slot{'s' * (slots > 1)}."
    advice = "Give the engine as many slots, unless the queue is what you measure."
    yield from QUEUED_IN_ENGINE.reasons(in_flight / slots, sentence, advice, note=True)


def _draws_by_itself(trial: TrialEntry) -> Iterator[Reason]:
    """Whether the server refused to be greedy."""
    if trial.start is not None and trial.start.temperature_refused:
        sentence = "The server refuses temperature 0 and used its own: replies are not greedy."
        yield Reason("temperature_refused", Level.VALID, sentence, "Name a `temperature` that every engine takes.")
