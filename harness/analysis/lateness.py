"""Lateness: what the load generator's delays do to each latency, from the records alone.

Two mechanisms make a latency too large. A request leaves late, which is in latencies from due. Or the first token is
read late, together with later ones: one read has one kernel stamp, that of its last packet. Then the first token came
up to (k - 1) times per output token earlier, for k chunks in the read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from harness.analysis.columns import NS_PER_MS, NS_PER_S, Columns
from harness.analysis.stats import Flags, Floats, Ints, quantile
from harness.records import READ_LATE_NS

READ_COLUMNS = ("chunk_read", "chunk_lag_ns")


@dataclass(frozen=True, slots=True)
class FirstReads:
    """Reads that brought the first tokens, shape (n,)."""

    together: Ints  # chunks that came in the read, 0 if none were kept
    waited_ms: Floats  # time that it waited in the kernel, NaN if unknown

    def where(self, rows: Flags) -> FirstReads:
        return FirstReads(self.together[rows], self.waited_ms[rows])

    @property
    def late(self) -> Flags:
        """Which first tokens were read late, together with later ones."""
        with np.errstate(invalid="ignore"):
            late: Flags = (self.together > 1) & (self.waited_ms > READ_LATE_NS / NS_PER_MS)
        return late


def first_reads(batches: Iterable[pa.RecordBatch], order: Ints) -> FirstReads:
    """Return the first reads in an order of the rows. The batches have READ_COLUMNS of all of them."""
    found = [_of_batch(batch) for batch in batches]
    together = np.concatenate([*(one.together for one in found), np.empty(0, dtype=np.int64)])
    waited_ms = np.concatenate([*(one.waited_ms for one in found), np.empty(0)])
    return FirstReads(together[order], waited_ms[order])


def _of_batch(batch: pa.RecordBatch) -> FirstReads:
    reads, lags = (batch.column(name) for name in READ_COLUMNS)
    sizes, lag_sizes = (one.value_lengths().fill_null(0).to_numpy().astype(np.int64) for one in (reads, lags))
    numbers, waits = (one.flatten().to_numpy(zero_copy_only=False) for one in (reads, lags))
    together, waited_ms = np.zeros(len(sizes), dtype=np.int64), np.full(len(sizes), np.nan)
    starts = np.cumsum(sizes) - sizes
    if (filled := sizes > 0).any():
        same = numbers == np.repeat(numbers[starts[filled]], sizes[filled])
        together[filled] = np.add.reduceat(same.astype(np.int64), starts[filled])
    some = lag_sizes > 0
    waited_ms[some] = waits[(np.cumsum(lag_sizes) - lag_sizes)[some]] / NS_PER_MS
    return FirstReads(together, waited_ms)


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """Times to the first token in ms, shape (n,) each; +inf for requests that timed out or never ended without one."""

    shown: Floats  # from where ttft_ms counts
    from_sent: Floats  # without the load generator's lag
    earliest: Floats  # the same, if the first token came as early as it may have
    least: Floats  # the same without the time in which the server accepted it: a late load generator measures that, too

    @classmethod
    def of(cls, rows: Columns, reads: FirstReads, tpot_ms: float) -> FirstTokens:
        """Take the measured requests; `tpot_ms` is their median time per output token, NaN unknown."""
        first = rows.times["first_token"]
        seen = np.isfinite(first) & np.isfinite(rows.times["sent"]) & ~rows.planned_cancel
        shown = (first - rows.start)[seen] / NS_PER_MS
        from_sent = shown - late_start_ns(rows)[seen] / NS_PER_MS
        reads = reads.where(seen)
        before = np.where(reads.late, (reads.together - 1) * np.nan_to_num(tpot_ms), 0.0)
        accepting = np.where(rows.closed, 0.0, np.nan_to_num(rows.times["accepting"]))[seen] / NS_PER_MS
        earliest = np.maximum(from_sent - before, 0.0)
        never = np.full(int((rows.censored & ~np.isfinite(first) & ~rows.planned_cancel).sum()), np.inf)
        found = (shown, from_sent, earliest, np.maximum(earliest - accepting, 0.0))
        return cls(*(np.append(one, never) for one in found))


def corrected_tpot(rows: Columns, reads: FirstReads, tpot: Floats, tpot_ms: float) -> Floats:
    """Return the time per output token in ms of each request if its first token came as early as it may have.

    `tpot` has a value per row, NaN without one.
    """
    divisor = np.maximum(rows.shown_tokens - 1, 1)
    more = np.where(reads.late, (reads.together - 1) * np.nan_to_num(tpot_ms) / divisor, 0.0)
    found: Floats = tpot + more
    return found


def turnaround(rows: Columns) -> tuple[float, float]:
    """Return the mean turnaround in ms, and as a share of the mean cycle of a user or conversation; NaN without any.

    A cycle is a request's wait for a place, its time in flight, the planned pause, and the turnaround.
    """
    closed = rows.closed & np.isfinite(rows.times["sent"]) & np.isfinite(rows.ended)
    if not closed.any():
        return float("nan"), float("nan")
    own = float(lag_ns(rows)[closed].mean())
    in_flight = (rows.ended - rows.times["sent"] + np.nan_to_num(rows.times["held"]))[closed].mean()
    cycle = float(in_flight + np.nan_to_num(rows.times["think"])[closed].mean()) + own
    return own / NS_PER_MS, own / cycle if cycle > 0 else float("nan")


def place_turnaround(rows: Columns) -> tuple[float, float]:
    """Return the mean lag in ms of requests that had waited for a place, and the share of time it left places empty.

    NaN without any. The share is that of a place's cycle, and of the requests that waited.
    """
    waited = (rows.times["held"] > 0) & np.isfinite(rows.times["sent"]) & np.isfinite(rows.ended)
    if not waited.any():
        return float("nan"), float("nan")
    own = float(lag_ns(rows)[waited].mean())
    cycle = own + float((rows.ended - rows.times["sent"])[waited].mean())
    return own / NS_PER_MS, own / cycle * float(waited.mean()) if cycle > 0 else float("nan")


def lag_ns(rows: Columns) -> Floats:
    """Return sent - due of each request, without its wait for a place and the time of the server to accept it."""
    not_ours = np.nan_to_num(rows.times["held"]) + np.nan_to_num(rows.times["accepting"])
    lag: Floats = rows.times["sent"] - rows.times["due"] - not_ours
    return lag


def late_start_ns(rows: Columns) -> Floats:
    """Return the load generator's part of each latency: its lag, 0 where latencies count from sent."""
    late: Floats = np.where(rows.closed, 0.0, lag_ns(rows))
    return late


def moved_share(rows: Columns, part_s: float, least: int) -> float:
    """Return the largest share of the open requests due in one part of the plan that were sent after it.

    Parts with fewer than `least` such requests count as kept. The wait for a place under a cap does not count.
    """
    plain = rows.times | {"sent": rows.times["sent"] - np.nan_to_num(rows.times["held"])}
    due, sent = (plain[name][~rows.closed] / NS_PER_S for name in ("due", "sent"))
    known = np.isfinite(due) & np.isfinite(sent)
    if not known.any():
        return 0.0
    bins = (due[known] // part_s).astype(np.int64)
    first = int(bins.min())
    planned = np.bincount(bins - first)
    late = np.bincount(bins - first, weights=sent[known] // part_s > bins)
    return float(np.where(late >= least, late / np.maximum(planned, 1), 0.0).max())


@dataclass(frozen=True, slots=True)
class Silence:
    """Longest time in which no token of any reply came."""

    start_ns: float
    seconds: float
    typical_s: float  # 99.9th percentile of the times without any token while a request waited
    in_flight: int  # requests that waited through half of it or more


def longest_silence(rows: Columns) -> Silence | None:
    """Return the longest silence of a trial's measured requests; None for fewer than 50 tokens."""
    first, last = rows.times["first_token"], rows.times["last_token"]
    arrivals = rows.lists.ns if rows.lists is not None else np.concatenate([first, last])
    arrivals = np.sort(arrivals[np.isfinite(arrivals)].astype(np.float64))
    if len(arrivals) < 50:
        return None
    gaps = np.diff(arrivals)
    at = int(gaps.argmax())
    begin, end = float(arrivals[at]), float(arrivals[at + 1])
    waiting = int(((rows.times["sent"] < (begin + end) / 2) & (rows.ended > end)).sum())
    sent, ended = (np.sort(one[np.isfinite(one)]) for one in (rows.times["sent"], rows.ended))
    idle = np.searchsorted(sent, arrivals[:-1]) <= np.searchsorted(ended, arrivals[1:], side="left")
    busy = gaps[~idle] if not idle.all() else gaps
    return Silence(begin, (end - begin) / NS_PER_S, quantile(busy, 0.999) / NS_PER_S, waiting)
