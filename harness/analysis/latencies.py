"""Latencies: the observations each distribution is made of, out of the columns of the measured requests.

A request that timed out or did not finish is censored: it counts as +inf for order statistics, and its `bounds` entry
keeps how long it had lasted. Requests without the event (no token, not streamed, failed before) are left out of that
metric. So are those that the plan gives up, whether or not it came to that: it does where they are slow, so that the
others of them are the fast ones. First tokens that were seen count where each of them was.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.analysis.chunks import ChunkLists, PerRequest
from harness.analysis.columns import Columns, Flags, Floats, Ints
from harness.records import FAILED

NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True)
class Observations:
    """One metric's observations in due order. values: +inf where censored.   bounds: the same, with the least value
    there.

    clusters: for observations that come several to a request, how many each request gave; None for one each.
    """

    values: Floats
    bounds: Floats
    clusters: Ints | None = None


def observe(columns: Columns) -> dict[str, Observations]:
    """Every distribution of the measured requests, by metric name; empty ones where nothing was observed.

    Those of single gaps are missing where there were too many chunks to keep: they are in `columns.counted`.
    """
    from_due, from_sent = columns.times["due"], columns.times["sent"]
    end = _end_of_reply(columns)
    tpot = _tpot(columns, columns.shown_tokens - 1)
    lists = columns.lists
    return {
        "ttft_ms": _until(columns, "first_token", from_due),
        "ttft_service_ms": _until(columns, "first_token", from_sent),
        "ttfo_ms": _until(columns, "first_answer", from_due),
        "ttfo_service_ms": _until(columns, "first_answer", from_sent),
        "ttfb_ms": _plain(columns.times["first_byte"] - from_sent, _offered(columns, "first_byte")),
        "tpot_ms": tpot,
        "tpot_adj_ms": _tpot(columns, _after_first_chunk(columns)),
        "stall_max_ms": _longest_gap(columns),
        "e2e_ms": _ended(columns, end, from_due),
        "e2e_service_ms": _ended(columns, end, from_sent),
        "e2e_close_ms": _ended(columns, columns.times["done"], from_due),
        "norm_latency_ms": _normalised(columns, end),
        "send_lag_ms": _plain(_own_lag(columns), np.isfinite(from_sent)),
        "output_tokens_per_s_per_user": _speeds(tpot),
        **{name: _stated(columns, name) for name in ("reported_total_ms", "reported_memory_peak_bytes")},
    } | ({} if lists is None else {"icl_ms": _gaps(columns, lists), "itl_ms": _token_gaps(columns, lists)})


def of_each(columns: Columns) -> dict[str, Floats]:
    """ttft_ms, tpot_ms and e2e_ms of each request, shape (n,), NaN where it has none: not that far, or cancelled."""
    due = columns.times["due"]
    whole = columns.ok & ~columns.given_up
    ttft = np.where(_offered(columns, "first_token"), columns.times["first_token"] - due, np.nan) / NS_PER_MS
    e2e = np.where(whole, _end_of_reply(columns) - due, np.nan) / NS_PER_MS
    tpot = np.where(whole, _tpot_of_each(columns, columns.shown_tokens - 1), np.nan)
    return {"ttft_ms": ttft, "tpot_ms": tpot, "e2e_ms": e2e}


def good(columns: Columns, slo: dict[str, float | None]) -> tuple[Flags, int]:
    """Which requests succeeded within every limit (ttft_ms, tpot_ms, e2e_ms, stall_ms), and for how many tpot passed
    unseen.

    A request that lacks the first token, the end or the chunks that a limit needs has not met it; one without a tpot
    (fewer than two tokens) has.
    """
    ttft = (columns.times["first_token"] - columns.times["due"]) / NS_PER_MS
    e2e = (_end_of_reply(columns) - columns.times["due"]) / NS_PER_MS
    tpot = _tpot_of_each(columns, columns.shown_tokens - 1)
    stall = columns.each.longest_ns / NS_PER_MS
    alone = columns.each.sizes == 1
    flags = columns.ok.copy()
    vacuous = 0
    for limit, value, passes_unseen in (
        (slo.get("ttft_ms"), ttft, np.zeros(len(columns), dtype=np.bool_)),
        (slo.get("e2e_ms"), e2e, np.zeros(len(columns), dtype=np.bool_)),
        (slo.get("tpot_ms"), tpot, np.isnan(tpot)),
        (slo.get("stall_ms"), stall, alone),
    ):
        if limit is None:
            continue
        with np.errstate(invalid="ignore"):
            flags &= (value <= limit) | passes_unseen
        vacuous = int((passes_unseen & columns.ok).sum()) if value is tpot else vacuous
    return flags, vacuous


def _offered(columns: Columns, event: str) -> Flags:
    """All that may show a time before the end: everything but what the plan gives up, and that too where each of them
    had got so far.
    """
    seen = np.isfinite(columns.times[event])
    failed = columns.has_status(FAILED) & ~columns.censored
    return ~columns.given_up | (seen | failed)[columns.given_up].all()


def _own_lag(columns: Columns) -> Floats:
    """Due until sent, less what the other side took to accept the connection and the request."""
    return columns.times["sent"] - columns.times["due"] - np.nan_to_num(columns.times["accepting"])


def _plain(nanoseconds: Floats, rows: Flags) -> Observations:
    values = nanoseconds[rows & np.isfinite(nanoseconds)] / NS_PER_MS
    return Observations(values, values)


def _with_censored(nanoseconds: Floats, known: Flags, at_least: Floats, censored: Flags) -> Observations:
    """Known values and censored ones, in the order of the requests."""
    rows = known | censored
    bounds = np.where(censored, at_least, nanoseconds)[rows] / NS_PER_MS
    if not censored.any():
        return Observations(bounds, bounds)
    return Observations(np.where(censored[rows], np.inf, bounds), bounds)


def _until(columns: Columns, event: str, start: Floats) -> Observations:
    """Time to a first event: seen also in requests that failed or timed out after it."""
    at = columns.times[event]
    offered = _offered(columns, event) & np.isfinite(start)
    known = offered & np.isfinite(at)
    censored = offered & columns.censored & ~np.isfinite(at)
    return _with_censored(at - start, known, columns.ended - start, censored)


def _end_of_reply(columns: Columns) -> Floats:
    """The last token; the end of the response where the reply was not streamed."""
    last = columns.times["last_token"]
    return np.where(np.isfinite(columns.times["first_token"]) & np.isfinite(last), last, columns.times["done"])


def _ended(columns: Columns, end: Floats, start: Floats) -> Observations:
    whole = ~columns.given_up & np.isfinite(start)
    known = whole & columns.ok & np.isfinite(end)
    return _with_censored(end - start, known, columns.ended - start, whole & columns.censored)


def _last_token(columns: Columns) -> Floats:
    """When the last token was there. The token that ends a reply has no text, but most servers count it: it came with
    the event that said so. A reply that was cut at its length has no such token, nor has one of which every token that
    was counted had come before.
    """
    last = columns.times["last_token"]
    with_text = np.fmax(columns.each.sizes, columns.each.counted)
    unseen = columns.ended_by_itself & (columns.shown_tokens > with_text)
    return np.where(unseen, np.fmax(last, columns.times["finish"]), last)


def _several_chunks(columns: Columns) -> Flags:
    """At least two token-bearing chunks; without the lists, a last token later than the first shows it."""
    later = columns.times["last_token"] > columns.times["first_token"]
    return np.where(columns.each.sizes > 0, columns.each.sizes >= 2, later)


def _after_first_chunk(columns: Columns) -> Floats:
    """Tokens behind the first chunk, which may have been counted with the reasoning before it."""
    first = columns.each.first
    holds_reasoning = first > np.nan_to_num(columns.counts["reasoning_tokens"], nan=np.inf)
    return np.where(holds_reasoning, columns.counts["output_tokens"], columns.shown_tokens) - first


def _tpot_of_each(columns: Columns, divisor: Floats) -> Floats:
    """(last - first) / divisor in ms, NaN where a request has none."""
    enough = _several_chunks(columns) & (columns.shown_tokens >= 2) & (divisor >= 1)
    span = _last_token(columns) - columns.times["first_token"]
    return np.where(enough, span / np.where(enough, divisor, 1.0), np.nan) / NS_PER_MS


def _tpot(columns: Columns, divisor: Floats) -> Observations:
    """A censored request that had begun could at best have produced all it was asked for at the moment it was given
    up.
    """
    each = _tpot_of_each(columns, divisor) * NS_PER_MS
    first = columns.times["first_token"]
    seen = np.nan_to_num(columns.counts["output_tokens"], nan=1.0)
    most = np.fmax(columns.counts["requested_output_tokens"], seen + 1)
    at_least = (columns.ended - first) / np.maximum(most - 1, 1)
    whole = ~columns.given_up
    known, censored = whole & columns.ok & np.isfinite(each), whole & columns.censored & np.isfinite(first)
    return _with_censored(each, known, at_least, censored)


def _longest_gap(columns: Columns) -> Observations:
    longest = columns.each.longest_ns
    since_last = columns.ended - columns.times["last_token"]
    whole = ~columns.given_up
    censored = whole & columns.censored & np.isfinite(since_last)
    known = whole & columns.ok & np.isfinite(longest)
    return _with_censored(longest, known, np.fmax(longest, since_last), censored)


def chosen_for_gaps(columns: Columns) -> Flags:
    """Whose gaps count: successful requests, and those that lasted too long; none that the plan gives up."""
    return (columns.ok | columns.censored) & ~columns.given_up


def cut_off_waits(columns: Columns) -> Floats:
    """The wait that a time-out cut off, in nanoseconds: the last, censored gap of its request; NaN for the others."""
    since_last = columns.ended - columns.times["last_token"]
    return np.where(columns.censored & (columns.each.sizes > 0), since_last, np.nan)


def _gaps(columns: Columns, lists: ChunkLists) -> Observations:
    """All gaps between chunks, with those that were cut off."""
    chosen = chosen_for_gaps(columns)
    lists, waits = lists.where(chosen), cut_off_waits(columns)[chosen]
    cut_off = np.isfinite(waits)
    places = np.cumsum(lists.gap_counts)[cut_off]
    gaps = lists.gaps_ns.astype(np.float64)
    values = np.insert(gaps, places, np.inf) / NS_PER_MS
    bounds = np.insert(gaps, places, waits[cut_off]) / NS_PER_MS if cut_off.any() else values
    return Observations(values, bounds, lists.gap_counts + cut_off)


def chosen_for_token_gaps(ok: Flags, each: PerRequest) -> Flags:
    """Whose gaps per token count: successful requests whose every chunk has a count."""
    chosen: Flags = ok & (each.sizes > 0) & (each.known == each.sizes)
    return chosen


def token_gaps(lists: ChunkLists) -> tuple[Floats, Ints, Ints]:
    """Gaps per token in nanoseconds, how many tokens each was spread over, and how many of these gaps each request
    has.
    """
    bearing = lists.gap_tokens >= 1
    tokens = lists.gap_tokens[bearing].astype(np.int64)
    request = np.repeat(np.arange(len(lists.sizes)), lists.gap_counts)[bearing]
    gaps = lists.gaps_ns[bearing] if bearing.all() else _until_tokens(lists, bearing, request)
    return gaps / tokens, tokens, np.bincount(request, minlength=len(lists.sizes)).astype(np.int64)


def _until_tokens(lists: ChunkLists, bearing: Flags, request: Ints) -> Floats:
    """The gaps that bear tokens, each with those before it that bear none."""
    elapsed = np.concatenate(([0.0], np.cumsum(lists.gaps_ns, dtype=np.float64)))
    ends = elapsed[1:][bearing]
    begins = elapsed[(np.cumsum(lists.gap_counts) - lists.gap_counts)[request]]
    same = np.concatenate(([False], request[1:] == request[:-1])) if len(request) else np.empty(0, dtype=np.bool_)
    begins[same] = ends[:-1][same[1:]] if len(request) else ends
    found: Floats = ends - begins
    return found


def _token_gaps(columns: Columns, lists: ChunkLists) -> Observations:
    """Gaps spread over the tokens that ended them."""
    chosen = lists.where(chosen_for_token_gaps(columns.ok & ~columns.given_up, columns.each))
    gaps, tokens, of_request = token_gaps(chosen)
    values = np.repeat(gaps, tokens) / NS_PER_MS
    ends = np.concatenate(([0], np.cumsum(tokens)))[np.concatenate(([0], np.cumsum(of_request)))]
    return Observations(values, values, np.diff(ends))


def _normalised(columns: Columns, end: Floats) -> Observations:
    """A censored request could at best have produced all it was asked for at the moment it was given up."""
    due, tokens = columns.times["due"], columns.counts["output_tokens"]
    whole = ~columns.given_up & np.isfinite(due)
    known = whole & columns.ok & np.isfinite(end) & (tokens >= 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        each = (end - due) / tokens
    at_least = (columns.ended - due) / np.fmax(columns.counts["requested_output_tokens"], np.fmax(tokens, 1.0))
    return _with_censored(each, known, at_least, whole & columns.censored)


def _stated(columns: Columns, name: str) -> Observations:
    """What the server says of the requests that succeeded, where it says anything."""
    values = columns.reported.get(name, np.empty(0))
    values = values[columns.ok & np.isfinite(values)] if len(values) else values
    return Observations(values, values)


def _speeds(tpot: Observations) -> Observations:
    """1000 / tpot; a censored request was slower than its bound, so its speed is at most that: it enters with 0."""
    with np.errstate(divide="ignore"):
        values = 1000.0 / tpot.values
    finite = values[np.isfinite(values)]
    return Observations(finite, finite)
