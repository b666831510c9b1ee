"""Bursts and spikes: how the service took each, and how long it needed to recover."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness.analysis import stats
from harness.analysis.columns import NS_PER_S, Columns
from harness.analysis.reading import Reading
from harness.analysis.stats import Floats
from harness.records import FAILED, Phase, Status
from harness.store.manifest import BurstSpans

MOST_LISTED = 1_000
BAND = 0.975
LEAST_BEFORE = 20
LEAST_FOR_MEAN = 8
WINDOWS = 3
LONGEST_WINDOW_NS = 10 * NS_PER_S
_WINDOWS_OF_THE_CALM = 10


@dataclass(frozen=True, slots=True)
class Taken:
    """A burst, in s: start_s from T0, the others from the end of the burst.

    A time is None if it did not pass before the next burst or the end of the trial, which cuts off what still runs.
    """

    start_s: float
    length_s: float
    requests: int  # due in it
    errors: int
    backlog_before: int  # requests due and not yet ended at its start
    backlog_peak: int  # the most of them before the next burst
    drained_s: float | None  # until no more of them were open than before
    recovered_s: float | None  # until WINDOWS in a row had a median TTFT below quantile BAND of before


def bursts_of(reading: Reading) -> dict[str, Any] | None:
    """Return the bursts of a trial within its window, JSON-able; None for a trial without bursts.

    taken: see `Taken`, the first MOST_LISTED.   drained_s: geometric mean over all of them with its 95 % interval
    [value, low, high], None if some were not drained or there are fewer than LEAST_FOR_MEAN.
    """
    spans = reading.trial.bursts
    columns = reading.columns
    if spans is None or not len(columns.measured):
        return None
    sent = columns.where(columns.sent & np.isfinite(columns.times["due"]))
    taken = list(_each(sent, spans, reading.window.end_ns))
    return {"taken": [asdict(one) for one in taken[:MOST_LISTED]], "drained_s": _mean_of([t.drained_s for t in taken])}


def _each(columns: Columns, spans: BurstSpans, window_end_ns: float) -> Iterator[Taken]:
    first_s, length_s, every_s = spans.first_s, spans.length_s, spans.every_s
    # Requests cut off at the end of the trial have not ended, and are no errors.
    cut_off = columns.has_status([Status.UNFINISHED]) & columns.in_phase(Phase.COOLDOWN)
    due, ended = columns.times["due"], np.sort(np.where(cut_off, np.inf, columns.ended))
    failed = columns.has_status(FAILED) & ~cut_off
    number = 0
    while number == 0 or every_s:
        start = (first_s + number * (every_s or 0.0)) * NS_PER_S
        end = start + length_s * NS_PER_S
        if end > window_end_ns and every_s:
            return
        until = start + every_s * NS_PER_S if every_s else math.inf
        low, high = np.searchsorted(due, [start, max(end, start + 1)])
        calm_since = -math.inf if every_s is None else start - (every_s - length_s) / 2 * NS_PER_S
        before = _usual_backlog(due, ended, calm_since, start)
        inside = due[(due >= start) & (due < until)]
        yield Taken(
            start_s=start / NS_PER_S,
            length_s=length_s,
            requests=int(high - low),
            errors=int(failed[low:high].sum()),
            backlog_before=before,
            backlog_peak=int(_backlog(due, ended, inside).max()) if len(inside) else 0,
            drained_s=_drained(due, ended, end, until, before),
            recovered_s=_recovered(columns, (calm_since, start), (end, until)),
        )
        number += 1


def _backlog(due: Floats, ended: Floats, at: Floats) -> Floats:
    """Count the requests due and not yet ended at these moments."""
    opened = np.searchsorted(due, at, side="right") - np.searchsorted(ended, at, side="right")
    return opened.astype(np.float64)


def _usual_backlog(due: Floats, ended: Floats, since: float, start: float) -> int:
    inside = due[(due >= since) & (due < start)]
    if len(inside) < LEAST_BEFORE:
        return int(np.searchsorted(due, start) - np.searchsorted(ended, start))
    return int(stats.quantile(_backlog(due, ended, inside), BAND))


def _drained(due: Floats, ended: Floats, end: float, until: float, before: int) -> float | None:
    """Return the first end of a request after the burst with which no more are open than before it."""
    moments = np.concatenate(([end], ended[(ended >= end) & (ended < until) & np.isfinite(ended)]))
    low = np.flatnonzero(_backlog(due, ended, moments) <= before)
    return float((moments[low[0]] - end) / NS_PER_S) if len(low) else None


def _recovered(columns: Columns, calm: tuple[float, float], rest: tuple[float, float]) -> float | None:
    """Return the time to recover. `calm` and `rest` are the (start, end) of the times before and after the burst."""
    due, ttft = columns.times["due"], columns.times["first_token"] - columns.start
    ttft = np.where(columns.censored & ~np.isfinite(ttft), np.inf, ttft)
    before = ttft[(due >= calm[0]) & (due < calm[1]) & ~np.isnan(ttft)]
    after = (due >= rest[0]) & (due < rest[1]) & ~np.isnan(ttft)
    if len(before) < LEAST_BEFORE or not after.any():
        return None
    band = stats.quantile(before, BAND)
    last = rest[1] if math.isfinite(rest[1]) else float(due[after].max()) + 1
    width = min(LONGEST_WINDOW_NS, (last - rest[0]) / _WINDOWS_OF_THE_CALM)
    bins = ((due[after] - rest[0]) // width).astype(np.int64)
    good = np.zeros(int(bins.max()) + 1, dtype=np.bool_)
    starts = np.flatnonzero(np.diff(bins, prepend=-1))
    for number, values in zip(bins[starts], np.split(ttft[after], starts[1:]), strict=True):
        good[number] = stats.quantile(values, 0.5) <= band
    in_a_row = np.convolve(good, np.ones(WINDOWS, dtype=np.int64), mode="valid") == WINDOWS
    return float(np.argmax(in_a_row) * width / NS_PER_S) if in_a_row.any() else None


def _mean_of(drained: list[float | None]) -> list[float] | None:
    """Return the geometric mean and its interval: times to recover are skewed."""
    known = [value for value in drained if value is not None and value > 0]
    if len(known) < max(len(drained), LEAST_FOR_MEAN):
        return None
    found = stats.t_interval(np.log(known))
    return [float(np.exp(value)) for value in (found.value, found.low, found.high)]
