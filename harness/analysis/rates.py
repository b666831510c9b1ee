"""Rates and shares over the measurement window, counted by when things happened, not by the request they belong to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.analysis.chunks import ChunkLists, PerRequest
from harness.analysis.columns import NS_PER_S, Columns
from harness.analysis.latencies import good
from harness.analysis.stats import Flags, Floats
from harness.analysis.window import Window
from harness.records import FAILED

MAX_BINS = 240


@dataclass(frozen=True, slots=True)
class Rate:
    """An amount per something."""

    amount: float
    per: float  # seconds of the window, or another amount
    n: int  # requests it is made of
    bins: Floats | None = None  # the amount in equal parts of the window, None if parts have no meaning
    at_least: bool = False  # some amounts are unknown

    @property
    def value(self) -> float:
        """The quotient; NaN for an empty denominator."""
        return self.amount / self.per if self.per > 0 else math.nan


def rates(columns: Columns, window: Window) -> dict[str, Rate]:
    """Return every rate by metric name. `columns` are all requests of all phases (of one class)."""
    rows, columns = window.population(columns), window.load(columns)
    n, per = len(rows), window.seconds
    done_ok = columns.times["done"][columns.ok & window.holds(columns.times["done"])]
    completed = np.histogram(done_ok, window.edges())[0].astype(np.float64)
    tokens, unknown = output_tokens_in(columns, window.edges())
    prompts, prompt_unknown = _prompt_tokens_in(columns, window)
    found = {
        "offered_rps": Rate(float(n), per, n),
        "completed_rps": Rate(float(len(done_ok)), per, n, completed),  # no completed request is known, and 0
        "output_tokens_per_s": Rate(float(tokens.sum()), per, n, tokens, unknown),
        "input_tokens_per_s": Rate(float(prompts.sum()), per, n, prompts, prompt_unknown),
        "mean_concurrency": Rate(busy_seconds(columns, window), per, n),
    }
    prompt = rows.counts["prompt_tokens"]
    taken = np.where(rows.cached, prompt, rows.counts["cached_tokens"])
    known = np.isfinite(taken) & np.isfinite(prompt)
    if known.any():  # else the engine reports nothing about its caches
        found["cached_share"] = Rate(float(taken[known].sum()), float(prompt[known].sum()), int(known.sum()))
    return found


def judged(columns: Columns) -> Columns:
    """Return the requests that can be good or bad: all that the schedule does not cancel."""
    return columns.where(~columns.planned_cancel) if columns.planned_cancel.any() else columns


def shares(columns: Columns, slo: dict[str, float | None]) -> dict[str, Flags]:
    """Return flags per judged request in due order, by metric name; no attainment without limits.

    `columns` are the measured requests.
    """
    columns = judged(columns)
    found = {"error_rate": columns.has_status(FAILED)}
    if any(limit is not None for limit in slo.values()):
        found["attainment"] = good(columns, slo)[0]
    return found


def output_tokens_in(columns: Columns, edges: Floats) -> tuple[Floats, bool]:
    """Return the output tokens that arrived between neighbouring edges, and whether some requests' counts are unknown.

    Counts per chunk are scaled to the request's total; without them its chunks count alike. Without chunks its tokens
    are spread evenly between first and last token, or all arrive at the end of a reply that was not streamed.
    """
    total = columns.counts["output_tokens"]
    if columns.lists is not None:
        arrived = np.histogram(columns.lists.ns, edges, weights=chunk_weights(columns.lists, columns.each, total))[0]
    else:
        known = columns.counted.arrived if columns.counted else ()
        arrived = next(amounts for other, amounts in known if np.array_equal(other, edges))
    whole = (columns.each.sizes == 0) & np.isfinite(total)
    first, last = columns.times["first_token"], columns.times["last_token"]
    spread = whole & (last > first)
    at_once = whole & ~spread & np.isfinite(columns.ended)
    arrived = arrived + np.histogram(columns.ended[at_once], edges, weights=total[at_once])[0]
    if spread.any():
        start, length, amount = first[spread], (last - first)[spread], total[spread]
        until = [float((amount * np.clip((edge - start) / length, 0.0, 1.0)).sum()) for edge in edges]
        arrived = arrived + np.diff(until)
    uncounted = (columns.each.sizes > 0) & ~(columns.each.counted > 0)
    unknown = bool((np.isnan(total) & (uncounted | columns.ok & (columns.each.sizes == 0))).any())
    return arrived.astype(np.float64), unknown


def time_bins(columns: Columns) -> Floats:
    """Return the edges of at most MAX_BINS equal parts of a trial, from 0 to its last event, in nanoseconds.

    There is a single edge if nothing happened.
    """
    last_ns = float(np.nanmax(columns.ended)) if np.isfinite(columns.ended).any() else 0.0
    if last_ns <= 0:
        return np.zeros(1)
    last_s = last_ns / NS_PER_S
    width_s = max(1.0, float(np.ceil(last_s / MAX_BINS))) if last_s > 5 else max(last_s / 20, 1e-3)
    return np.linspace(0.0, last_ns, max(1, round(last_s / width_s)) + 1)


def chunk_weights(lists: ChunkLists, each: PerRequest, total: Floats) -> Floats:
    """Return the tokens of every chunk, scaled to each request's total; 0 where they were not counted."""
    by_count = each.counted > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(np.isfinite(total), total / each.counted, 1.0)
        even = np.nan_to_num(total / each.sizes)
    counted: Floats = lists.tokens * np.repeat(scale, each.sizes)
    if by_count[each.sizes > 0].all():
        return counted
    return np.where(np.repeat(by_count, each.sizes), counted, np.repeat(even, each.sizes))


def _prompt_tokens_in(columns: Columns, window: Window) -> tuple[Floats, bool]:
    first = columns.times["first_token"]
    moment = np.where(np.isfinite(first), first, np.where(columns.ok, columns.times["done"], np.nan))
    inside = window.holds(moment)
    tokens = columns.counts["prompt_tokens"][inside]
    arrived = np.histogram(moment[inside], window.edges(), weights=np.nan_to_num(tokens))[0]
    return arrived.astype(np.float64), bool(np.isnan(tokens).any())


def peak_in_flight(columns: Columns, window: Window) -> int:
    """Return the largest number of requests in flight at one moment of the window."""
    sent, ended = columns.times["sent"], columns.ended
    inside = (sent < window.end_ns) & (ended > window.start_ns)
    times = np.concatenate([np.maximum(sent[inside], window.start_ns), ended[inside]])
    changes = np.repeat([1, -1], int(inside.sum()))
    order = np.lexsort((changes, times))  # what ends at a moment is gone before what is sent then
    return int(np.cumsum(changes[order]).max(initial=0))


def busy_seconds(columns: Columns, window: Window) -> float:
    """Return the seconds that requests were in flight within the window, summed over the requests."""
    return _seconds_within(columns.times["sent"], columns.ended, window)


def seconds_since_due(columns: Columns, window: Window) -> float:
    """Return the same from due: with the time that requests waited to be sent."""
    return _seconds_within(np.where(columns.sent, columns.times["due"], np.nan), columns.ended, window)


def _seconds_within(begun: Floats, ended: Floats, window: Window) -> float:
    inside = np.minimum(ended, window.end_ns) - np.maximum(begun, window.start_ns)
    return float(np.nansum(np.maximum(inside, 0.0))) / NS_PER_S
