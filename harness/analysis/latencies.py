"""Latencies: the observations of each distribution, from the columns of the measured requests.

A request that timed out or did not finish is censored: it counts as +inf for order statistics, and `bounds` holds how
long it had lasted. Requests without the event (no token, not streamed, failed before) are left out of that metric. So
are requests that the schedule cancels, whether or not it came to that: it does if they are slow, so that the completed
ones are the fast ones. First tokens that were seen count if each of them had one.

Latencies begin at `Columns.start`, those with `_service` in their name at sent.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.analysis.chunks import ChunkLists, PerRequest
from harness.analysis.columns import NS_PER_MS, REPORTED, Columns
from harness.analysis.distributions import Distribution, Observations
from harness.analysis.lateness import lag_ns
from harness.analysis.stats import Flags, Floats, Ints
from harness.records import FAILED


def observe(columns: Columns) -> dict[str, Observations]:
    """Return every distribution of the measured requests, by metric name; empty ones if nothing was observed.

    Distributions of single gaps are absent if there were too many chunks to keep (see `columns.counted`).
    """
    start, sent = columns.start, columns.times["sent"]
    end, lists = _end_of_reply(columns), columns.lists
    tpot = _tpot(columns, columns.shown_tokens - 1)
    own_ms = lag_ns(columns) / NS_PER_MS
    return {
        "ttft_ms": _until(columns, "first_token", start),
        "ttft_service_ms": _until(columns, "first_token", sent),
        "ttfo_ms": _until(columns, "first_answer", start),
        "ttfo_service_ms": _until(columns, "first_answer", sent),
        "ttfb_ms": _plain((columns.times["first_byte"] - sent) / NS_PER_MS, _offered(columns, "first_byte")),
        "tpot_ms": tpot,
        "tpot_adj_ms": _tpot(columns, _after_first_chunk(columns)),
        "stall_max_ms": _longest_gap(columns),
        "e2e_ms": _ended(columns, end, start),
        "e2e_service_ms": _ended(columns, end, sent),
        "e2e_close_ms": _ended(columns, columns.times["done"], start),
        "norm_latency_ms": _normalised(columns, end),
        "send_lag_ms": _plain(own_ms, ~columns.closed),
        "client_turnaround_ms": _plain(own_ms, columns.closed),
        "held_ms": _plain(columns.times["held"] / NS_PER_MS, np.ones(len(columns), dtype=np.bool_)),
        "output_tokens_per_s_per_user": _speeds(tpot),
        **{name: _plain(columns.reported[name], columns.ok) for name in REPORTED},
    } | ({} if lists is None else {"icl_ms": _gaps(columns, lists), "itl_ms": _token_gaps(columns, lists)})


def distributions(columns: Columns, observed: dict[str, Observations]) -> dict[str, Distribution]:
    """Return every distribution of the measured requests, those counted in one pass among them."""
    return {**observed, **(columns.counted.gaps if columns.counted else {})}


def of_each(columns: Columns) -> dict[str, Floats]:
    """Return ttft_ms, tpot_ms and e2e_ms of each request, shape (n,), NaN if it has none or is cancelled."""
    start = columns.start
    whole = columns.ok & ~columns.planned_cancel
    ttft = np.where(_offered(columns, "first_token"), columns.times["first_token"] - start, np.nan) / NS_PER_MS
    e2e = np.where(whole, _end_of_reply(columns) - start, np.nan) / NS_PER_MS
    tpot = np.where(whole, _tpot_of_each(columns, columns.shown_tokens - 1), np.nan)
    return {"ttft_ms": ttft, "tpot_ms": tpot, "e2e_ms": e2e}


def origin(columns: Columns) -> str:
    """Return where the latencies of a trial begin, in words."""
    closed = columns.closed
    if closed.all() and len(closed):
        return "from sent"
    later = "sent" if np.isnan(columns.times["held"]).all() else "sent or the wait for a place"
    return f"from due (first turns), from {later} (later turns)" if closed.any() else "from due"


def good(columns: Columns, slo: dict[str, float | None]) -> tuple[Flags, int]:
    """Return which requests met every limit of the SLO, and how many successful ones had no tpot to check.

    Limits: ttft_ms, tpot_ms, e2e_ms, stall_ms. A request that lacks the first token, the end or the chunks that a limit
    needs has not met it; one without a tpot (fewer than two tokens) has.
    """
    tpot = _tpot_of_each(columns, columns.shown_tokens - 1)
    never = np.zeros(len(columns), dtype=np.bool_)
    flags = columns.ok.copy()
    for name, value, passes_unseen in (
        ("ttft_ms", (columns.times["first_token"] - columns.start) / NS_PER_MS, never),
        ("e2e_ms", (_end_of_reply(columns) - columns.start) / NS_PER_MS, never),
        ("tpot_ms", tpot, np.isnan(tpot)),
        ("stall_ms", columns.each.longest_ns / NS_PER_MS, columns.each.sizes == 1),
    ):
        limit = slo.get(name)
        if limit is not None:
            with np.errstate(invalid="ignore"):
                flags &= (value <= limit) | passes_unseen
    unchecked = int((np.isnan(tpot) & columns.ok).sum()) if slo.get("tpot_ms") is not None else 0
    return flags, unchecked


def _offered(columns: Columns, event: str) -> Flags:
    """Return the requests that may show a time before the end.

    Requests that the schedule cancels are among them if each of them had got so far.
    """
    seen = np.isfinite(columns.times[event])
    failed = columns.has_status(FAILED) & ~columns.censored
    return ~columns.planned_cancel | (seen | failed)[columns.planned_cancel].all()


def _plain(each: Floats, rows: Flags) -> Observations:
    places = np.flatnonzero(rows & np.isfinite(each))
    values = each[places]
    return Observations(values, values, places=places)


def _with_censored(nanoseconds: Floats, known: Flags, at_least: Floats, censored: Flags) -> Observations:
    """Return known values and censored ones, in the order of the requests."""
    places = np.flatnonzero(known | censored)
    bounds = np.where(censored, at_least, nanoseconds)[places] / NS_PER_MS
    values = np.where(censored[places], np.inf, bounds) if censored.any() else bounds
    return Observations(values, bounds, places=places)


def _until(columns: Columns, event: str, start: Floats) -> Observations:
    """Return times to a first event, also of requests that failed or timed out after it."""
    at = columns.times[event]
    offered = _offered(columns, event) & np.isfinite(start)
    known = offered & np.isfinite(at)
    censored = offered & columns.censored & ~np.isfinite(at)
    return _with_censored(at - start, known, columns.ended - start, censored)


def _end_of_reply(columns: Columns) -> Floats:
    """Return the time of the last token; the end of the response if the reply was not streamed."""
    last = columns.times["last_token"]
    return np.where(np.isfinite(columns.times["first_token"]) & np.isfinite(last), last, columns.times["done"])


def _ended(columns: Columns, end: Floats, start: Floats) -> Observations:
    whole = ~columns.planned_cancel & np.isfinite(start)
    known = whole & columns.ok & np.isfinite(end)
    return _with_censored(end - start, known, columns.ended - start, whole & columns.censored)


def _last_token(columns: Columns) -> Floats:
    """Return the time of the last token, the one that ends a reply included.

    That token has no text, but most servers count it: it came with the final event. A reply that was cut at its length
    has no such token, nor has one whose counted tokens had all come before.
    """
    last = columns.times["last_token"]
    with_text = np.fmax(columns.each.sizes, columns.each.counted)
    unseen = columns.ended_by_itself & (columns.shown_tokens > with_text)
    return np.where(unseen, np.fmax(last, columns.times["finish"]), last)


def _after_first_chunk(columns: Columns) -> Floats:
    """Return the tokens after the first chunk, which may have been counted with the reasoning before it."""
    first = columns.each.first
    holds_reasoning = first > np.nan_to_num(columns.counts["reasoning_tokens"], nan=np.inf)
    return np.where(holds_reasoning, columns.counts["output_tokens"], columns.shown_tokens) - first


def _tpot_of_each(columns: Columns, divisor: Floats) -> Floats:
    """Return (last - first) / divisor in ms, NaN for a request without at least two chunks and tokens.

    Also NaN if all tokens have one time: they came in one read, and no server needs 0 ms for a token.
    """
    later = columns.times["last_token"] > columns.times["first_token"]
    several = np.where(columns.each.sizes > 0, columns.each.sizes >= 2, later)
    span = _last_token(columns) - columns.times["first_token"]
    with np.errstate(invalid="ignore"):
        enough = several & (columns.shown_tokens >= 2) & (divisor >= 1) & (span > 0)
    return np.where(enough, span / np.where(enough, divisor, 1.0), np.nan) / NS_PER_MS


def _tpot(columns: Columns, divisor: Floats) -> Observations:
    """Return times per output token. The bound of a censored request assumes a complete reply when it ended."""
    each = _tpot_of_each(columns, divisor) * NS_PER_MS
    first = columns.times["first_token"]
    seen = np.nan_to_num(columns.counts["output_tokens"], nan=1.0)
    most = np.fmax(columns.counts["requested_output_tokens"], seen + 1)
    at_least = (columns.ended - first) / np.maximum(most - 1, 1)
    whole = ~columns.planned_cancel
    known, censored = whole & columns.ok & np.isfinite(each), whole & columns.censored & np.isfinite(first)
    return _with_censored(each, known, at_least, censored)


def _longest_gap(columns: Columns) -> Observations:
    longest = columns.each.longest_ns
    since_last = columns.ended - columns.times["last_token"]
    whole = ~columns.planned_cancel
    known, censored = whole & columns.ok & np.isfinite(longest), whole & columns.censored & np.isfinite(since_last)
    return _with_censored(longest, known, np.fmax(longest, since_last), censored)


def chosen_for_gaps(columns: Columns) -> Flags:
    """Return whose gaps count: successful and censored requests, without those that the schedule cancels."""
    return (columns.ok | columns.censored) & ~columns.planned_cancel


def cut_off_waits(columns: Columns) -> Floats:
    """Return the last, censored gap of each request that timed out, in nanoseconds; NaN for the others."""
    since_last = columns.ended - columns.times["last_token"]
    return np.where(columns.censored & (columns.each.sizes > 0), since_last, np.nan)


def _gaps(columns: Columns, lists: ChunkLists) -> Observations:
    """Return all gaps between chunks, with those that were cut off."""
    chosen = chosen_for_gaps(columns)
    lists, waits = lists.where(chosen), cut_off_waits(columns)[chosen]
    cut_off = np.isfinite(waits)
    places = np.cumsum(lists.gap_counts)[cut_off]
    gaps = lists.gaps_ns.astype(np.float64)
    values = np.insert(gaps, places, np.inf) / NS_PER_MS
    bounds = np.insert(gaps, places, waits[cut_off]) / NS_PER_MS if cut_off.any() else values
    return Observations(values, bounds, lists.gap_counts + cut_off, owners=np.flatnonzero(chosen))


def chosen_for_token_gaps(ok: Flags, each: PerRequest) -> Flags:
    """Return whose gaps per token count: successful requests with a token count for every chunk."""
    chosen: Flags = ok & (each.sizes > 0) & (each.known == each.sizes)
    return chosen


def token_gaps(lists: ChunkLists) -> tuple[Floats, Ints, Ints]:
    """Return gaps per token in nanoseconds, the number of tokens of each, and the number of gaps of each request."""
    bearing = lists.gap_tokens >= 1
    tokens = lists.gap_tokens[bearing].astype(np.int64)
    request = np.repeat(np.arange(len(lists.sizes)), lists.gap_counts)[bearing]
    gaps = lists.gaps_ns[bearing] if bearing.all() else _until_tokens(lists, bearing, request)
    return gaps / tokens, tokens, np.bincount(request, minlength=len(lists.sizes)).astype(np.int64)


def _until_tokens(lists: ChunkLists, bearing: Flags, request: Ints) -> Floats:
    """Return the gaps that bear tokens, each with the gaps before it that bear none."""
    elapsed = np.concatenate(([0.0], np.cumsum(lists.gaps_ns, dtype=np.float64)))
    ends = elapsed[1:][bearing]
    begins = elapsed[(np.cumsum(lists.gap_counts) - lists.gap_counts)[request]]
    same = np.flatnonzero(request[1:] == request[:-1]) + 1
    begins[same] = ends[same - 1]
    found: Floats = ends - begins
    return found


def _token_gaps(columns: Columns, lists: ChunkLists) -> Observations:
    """Return gaps spread over the tokens that ended them."""
    rows = chosen_for_token_gaps(columns.ok & ~columns.planned_cancel, columns.each)
    gaps, tokens, of_request = token_gaps(lists.where(rows))
    values = np.repeat(gaps, tokens) / NS_PER_MS
    ends = np.concatenate(([0], np.cumsum(tokens)))[np.concatenate(([0], np.cumsum(of_request)))]
    return Observations(values, values, np.diff(ends), owners=np.flatnonzero(rows))


def _normalised(columns: Columns, end: Floats) -> Observations:
    """Return latencies per output token. The bound of a censored request assumes a complete reply when it ended."""
    start, tokens = columns.start, columns.counts["output_tokens"]
    whole = ~columns.planned_cancel & np.isfinite(start)
    known = whole & columns.ok & np.isfinite(end) & (tokens >= 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = (end - start) / tokens
    at_least = (columns.ended - start) / np.fmax(columns.counts["requested_output_tokens"], np.fmax(tokens, 1.0))
    return _with_censored(each, known, at_least, whole & columns.censored)


def _speeds(tpot: Observations) -> Observations:
    """Return 1000 / tpot. The speed of a censored request is at most that of its bound: it enters as 0."""
    with np.errstate(divide="ignore"):
        speeds = 1000.0 / tpot.values
    found = _plain(speeds, np.isfinite(speeds))
    return found if tpot.places is None else replace(found, places=tpot.places[found.places])
