"""Retries of a trial: the attempts that failed before others, and the rate of requests that the server saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.store.manifest import TrialEntry

if TYPE_CHECKING:
    from harness.analysis.reading import Reading


def retries_of(trial: TrialEntry, reading: Reading) -> dict[str, Any]:
    """Return the retries of a trial, JSON-able; empty if there were none.

    Of all requests: `attempts` (failed ones with another after them), `requests` (sent again), `causes` (attempts by
    cause, the most frequent first), `failed` (see `Attempts.by_cause`; empty if their times were not stored). Of the
    requests due in the window, each second of it: `due_rps`, and `seen_rps` with their retries.
    """
    columns, window = reading.columns, reading.window
    again = columns.retries
    if not again.any():
        return {}
    causes = {} if trial.client is None else trial.client.retried
    population = window.population(columns)
    due = len(population)
    seconds = window.seconds if window.seconds > 0 else np.nan
    return {
        "attempts": int(again.sum()),
        "requests": int((again > 0).sum()),
        "causes": dict(sorted(causes.items(), key=lambda one: -one[1])),
        "failed": reading.attempts.by_cause(),
        "due_rps": due / seconds,
        "seen_rps": (due + float(population.retries.sum())) / seconds,
    }
