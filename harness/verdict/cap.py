"""Remarks on what a load asked for beside its rate: a cap on the requests in flight, and retries."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.columns import NS_PER_MS
from harness.analysis.retries import retries_of
from harness.analysis.stats import Floats, quantile
from harness.store.manifest import TrialEntry
from harness.verdict.reason import Level, Reason
from harness.verdict.tolerance import number

if TYPE_CHECKING:
    from harness.analysis.reading import Reading


def notes(trial: TrialEntry, reading: Reading) -> Iterator[Reason]:
    """Yield the notes of a trial."""
    yield from _held(trial, reading)
    yield from _sent_again(trial, reading)


def _held(trial: TrialEntry, reading: Reading) -> Iterator[Reason]:
    """Yield what the cap did to an open loop: whose requests waited for a place is closed for that time."""
    rows = reading.columns.measured
    held_ms = rows.times["held"] / NS_PER_MS
    waited = held_ms[held_ms > 0]
    if not len(waited) or trial.max_concurrency is None:
        return
    places = f"one of {trial.max_concurrency} places" if trial.max_concurrency > 1 else "the only place"
    sentence = f"{len(waited)} of {len(rows)} requests waited for {places}; these waited {_ms(waited)} ms at p95."
    ttft = reading.observed["ttft_ms"]
    if ttft.places is not None and len(ttft.values) and math.isfinite(quantile(ttft.values, 0.95)):
        without = ttft.values - np.nan_to_num(held_ms[ttft.places])
        sentence += f" TTFT p95 is {_ms(ttft.values)} ms, {_ms(without)} ms without the wait."
    sentence += " With this cap the load is closed while the server is slower than the rate."
    advice = "Leave `max_concurrency` out, unless your clients have such a limit."
    yield Reason("capped", Level.VALID, sentence, advice, size=len(waited) / len(rows))


def _ms(values: Floats) -> str:
    return number(quantile(values, 0.95))


def _sent_again(trial: TrialEntry, reading: Reading) -> Iterator[Reason]:
    """Yield what retries did: the attempts that failed, and the rate that the server saw."""
    found = retries_of(trial, reading)
    if not found:
        return
    causes = ", ".join(f"{count} after {cause}" for cause, count in found["causes"].items())
    sentence = f"Retried {found['attempts']} times in {found['requests']} requests{f': {causes}' * bool(causes)}."
    sentence += f" The server saw {number(found['seen_rps'])} requests/s, {number(found['due_rps'])} without retries."
    advice = "Latencies hold all attempts; error rates count only requests whose last attempt failed."
    size = found["attempts"] / len(reading.columns)
    yield Reason("retried", Level.VALID, sentence, advice, size=size)
