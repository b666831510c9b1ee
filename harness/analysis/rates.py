"""Rates and shares over the measuring window: counted by when things happened, not by which request they belong to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.analysis.chunks import ChunkLists, PerRequest
from harness.analysis.columns import Columns, Flags, Floats
from harness.analysis.latencies import good
from harness.analysis.window import NS_PER_S, Window
from harness.records import FAILED, Status

MAX_BINS = 240


@dataclass(frozen=True, slots=True)
class Rate:
    """An amount per something. bins: the amount in equal parts of the window, None where parts make no sense.

    per: seconds of the window, or the denominator.   n: requests it is made of.   at_least: some amounts are unknown.
    """

    amount: float
    per: float
    n: int
    bins: Floats | None = None
    at_least: bool = False

    @property
    def value(self) -> float:
        """amount / per; NaN for an empty denominator."""
        return self.amount / self.per if self.per > 0 else math.nan


def rates(columns: Columns, window: Window) -> dict[str, Rate]:
    """Every rate, by metric name: amounts of the window over its length.

    columns: all requests of all phases (of one class).
    """
    rows, columns = window.population(columns), window.load(columns)
    done_ok = columns.times["done"][columns.ok & window.holds(columns.times["done"])]
    tokens, unknown = output_tokens_in(columns, window.edges())
    prompts, prompt_unknown = _prompt_tokens_in(columns, window)
    found = {
        "offered_rps": Rate(float(len(rows)), window.seconds, len(rows)),
        "completed_rps": Rate(
            float(len(done_ok)),
            window.seconds,
            len(rows),  # none completed is known, and 0
            np.histogram(done_ok, window.edges())[0].astype(np.float64),
        ),
        "output_tokens_per_s": Rate(float(tokens.sum()), window.seconds, len(rows), tokens, unknown),
        "input_tokens_per_s": Rate(float(prompts.sum()), window.seconds, len(rows), prompts, prompt_unknown),
        "mean_concurrency": Rate(busy_seconds(columns, window), window.seconds, len(rows)),
    }
    cached = _cached(rows)
    return found | ({"cached_share": cached} if cached is not None else {})


def judged(columns: Columns) -> Columns:
    """The requests that can be good or bad: all but those that the plan gives up, whether or not it came to that."""
    return columns.where(~columns.given_up) if columns.given_up.any() else columns


def shares(columns: Columns, slo: dict[str, float | None]) -> dict[str, Flags]:
    """Flags per judged request in due order, by metric name; no attainment without limits.

    columns: measured requests.
    """
    columns = judged(columns)
    found = {"error_rate": columns.has_status(FAILED)}
    if any(limit is not None for limit in slo.values()):
        found["attainment"] = good(columns, slo)[0]
    return found


def output_tokens_in(columns: Columns, edges: Floats) -> tuple[Floats, bool]:
    """Output tokens that arrived between neighbouring edges, and whether some requests' counts are unknown.

    Counts per chunk are scaled to the request's total; without them its chunks count alike; without chunks its tokens
    are spread evenly between first and last token, or all arrive at the end of a reply that was not streamed.
    """
    total = columns.counts["output_tokens"]
    arrived = _arrived(columns, edges)
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
    """Edges of equal parts of a trial for a plot over time, from 0 to its last event, at most MAX_BINS parts, in
    nanoseconds; a single one where nothing happened.
    """
    last_ns = float(np.nanmax(columns.ended)) if np.isfinite(columns.ended).any() else 0.0
    if last_ns <= 0:
        return np.zeros(1)
    last_s = last_ns / NS_PER_S
    width_s = max(1.0, float(np.ceil(last_s / MAX_BINS))) if last_s > 5 else max(last_s / 20, 1e-3)
    return np.linspace(0.0, last_ns, max(1, round(last_s / width_s)) + 1)


def _arrived(columns: Columns, edges: Floats) -> Floats:
    """Tokens of chunks between neighbouring edges."""
    if columns.lists is not None:
        weights = chunk_weights(columns.lists, columns.each, columns.counts["output_tokens"])
        return np.histogram(columns.lists.ns, edges, weights=weights)[0]
    known = columns.counted.arrived if columns.counted else ()
    return next(amounts for other, amounts in known if np.array_equal(other, edges))


def chunk_weights(lists: ChunkLists, each: PerRequest, total: Floats) -> Floats:
    """Tokens of every chunk, scaled to each request's total; 0 where nobody counted."""
    by_count = each.counted > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(np.isfinite(total), total / each.counted, 1.0)
        even = np.nan_to_num(total / each.sizes)
    if by_count[each.sizes > 0].all():
        weights: Floats = lists.tokens * np.repeat(scale, each.sizes)
        return weights
    counted = lists.tokens * np.repeat(scale, each.sizes)
    return np.where(np.repeat(by_count, each.sizes), counted, np.repeat(even, each.sizes))


def _prompt_tokens_in(columns: Columns, window: Window) -> tuple[Floats, bool]:
    first = columns.times["first_token"]
    moment = np.where(np.isfinite(first), first, np.where(columns.ok, columns.times["done"], np.nan))
    inside = window.holds(moment)
    tokens = columns.counts["prompt_tokens"][inside]
    arrived = np.histogram(moment[inside], window.edges(), weights=np.nan_to_num(tokens))[0]
    return arrived.astype(np.float64), bool(np.isnan(tokens).any())


def busy_seconds(columns: Columns, window: Window) -> float:
    """Seconds that requests were in flight within the window, all of them together."""
    sent = columns.times["sent"]
    inside = np.minimum(columns.ended, window.end_ns) - np.maximum(sent, window.start_ns)
    return float(np.nansum(np.maximum(inside, 0.0))) / NS_PER_S


def _cached(rows: Columns) -> Rate | None:
    """None when the engine says nothing about its caches."""
    prompt = rows.counts["prompt_tokens"]
    taken = np.where(rows.cached, prompt, rows.counts["cached_tokens"])
    known = np.isfinite(taken) & np.isfinite(prompt)
    if not known.any():
        return None
    return Rate(float(taken[known].sum()), float(prompt[known].sum()), int(known.sum()))


def counts(columns: Columns) -> dict[str, int]:
    """How many measured requests ended in each way, zero ones left out."""
    return {status.value: n for status in Status if (n := int(columns.has_status([status]).sum()))}
