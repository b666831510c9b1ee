"""Time stamps: the clocks, and the path from a request's trace to its record. No other module stamps time."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engines.base import TOKEN_BEARING, Chunk, ChunkKind, Usage
from engines.dialects.base import Pieces, ReadChunk
from harness.records import Clock, Loop, Record, Status, TokenSource
from harness.schedule.requests import Row

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
_TOKENS = attrgetter("tokens")
_STAMP_BYTES = 48  # struct scm_timestamping: three of struct timespec, the first by software
_OFFSETS = 4096
_UNUSABLE_NS = 1 << 61  # an arrival in the far future
_NEVER_NS = 1 << 62
_STEP_NS = 5_000  # greater difference of two successive readings: a step of a clock, or an interruption
_SECONDS_NANOSECONDS = struct.Struct("qq").unpack_from

T = TypeVar("T")
Int64 = NDArray[np.int64]
NowNs = Callable[[], int]


def clock_of(loop: asyncio.AbstractEventLoop) -> NowNs:
    """Return the monotonic clock of a loop in nanoseconds: the system's, or the loop's own if its time is virtual."""
    now_ns: NowNs = getattr(loop, "time_ns", time.monotonic_ns)
    return now_ns


class StampClock:
    """Conversion of the kernel's receive stamps (CLOCK_REALTIME) to monotonic time, after the fact.

    `sample` reads both clocks, before each round of reads. A trace stores the kernel's stamp and the monotonic time
    after the read. `arrivals` converts many at once, each with the clock offset in force at its read.

    A stamp is rejected if it lies before the previous arrival or after its read. A stamp read while the wall clock was
    stepped, or in the round after that, is rejected too: packets from before the step carry the old clock. A rejected
    arrival is the time of its read, with unknown lag.
    """

    def __init__(self, monotonic_ns: NowNs = time.monotonic_ns, wall_ns: NowNs = time.time_ns) -> None:
        self._monotonic_ns, self._wall_ns = monotonic_ns, wall_ns
        self._offset_ns = self._measured()
        self._offsets: list[_Offset] = [_Offset(0, self._offset_ns)]
        self._sampled_ns = monotonic_ns()
        self._stepped = False  # at the last sample

    def sample(self) -> None:
        """Check whether the wall clock still runs at the known offset."""
        wall_ns = self._wall_ns()
        now_ns = self._monotonic_ns()
        if self._stepped:
            self._stepped = False
            self._offsets[-1].settled_ns = now_ns
        if not -_STEP_NS < now_ns - wall_ns - self._offset_ns < _STEP_NS:
            self._change()
        self._sampled_ns = now_ns

    def arrival(self, stamp: bytes, read_ns: int, earliest_ns: int) -> tuple[int, int]:
        """Return the arrival of a read's last packet, and its wait until the read (-1 if unknown)."""
        offset = next((o for o in reversed(self._offsets) if o.since_ns <= read_ns), self._offsets[0])
        if len(stamp) == _STAMP_BYTES and offset.settled_ns <= read_ns <= offset.trusted_ns:
            seconds, nanoseconds = _SECONDS_NANOSECONDS(stamp)
            arrival_ns = seconds * NS_PER_S + nanoseconds + offset.ns
            if max(earliest_ns, offset.stepped_ns) <= arrival_ns <= read_ns:
                return arrival_ns, read_ns - arrival_ns
        return read_ns, -1

    def arrivals(self, stamps: Sequence[bytes], read_ns: Sequence[int], earliest_ns: int) -> tuple[Int64, Int64]:
        """Return arrivals and lags of the reads of one reply, in order. No arrival lies before `earliest_ns`."""
        joined, reads = b"".join(stamps), np.array(read_ns, dtype=np.int64)
        if len(reads) and len(joined) == _STAMP_BYTES * len(reads):
            at = np.frombuffer(joined, dtype=np.int64).reshape(len(reads), -1)
            offset_ns, stepped_ns = self._offsets_of(reads)
            arrivals = at[:, 0] * NS_PER_S + at[:, 1] + offset_ns
            lags = reads - arrivals
            fits = arrivals[0] >= max(earliest_ns, stepped_ns) and lags.min() >= 0
            if fits and not (arrivals[1:] < arrivals[:-1]).any():
                return arrivals, lags
        listed = []
        for stamp, at_ns in zip(stamps, read_ns, strict=True):
            listed.append(self.arrival(stamp, at_ns, earliest_ns))
            earliest_ns = listed[-1][0]
        both = np.array(listed, dtype=np.int64).reshape(-1, 2)
        return both[:, 0], both[:, 1]

    def _offsets_of(self, read_ns: Int64) -> tuple[Int64 | int, int]:
        """Return the clock offset at each read, and the time before which no packet can have arrived by it.

        An offset is replaced by one that makes the stamp unusable where none is known. After a step among the reads,
        the caller checks read by read.
        """
        last = self._offsets[-1]
        if read_ns[0] >= max(last.since_ns, last.settled_ns):
            return last.ns, last.stepped_ns
        first = next((i for i, o in enumerate(reversed(self._offsets)) if o.since_ns <= read_ns[0]), len(self._offsets))
        offsets = self._offsets[-first - 1 :]
        index = np.maximum(np.searchsorted([o.since_ns for o in offsets], read_ns, "right") - 1, 0)
        stepped_ns = max(o.stepped_ns for o in offsets)
        trusted_ns = np.array([o.trusted_ns for o in offsets])[index]
        usable = (read_ns <= trusted_ns) & (read_ns >= np.array([o.settled_ns for o in offsets])[index])
        return np.where(usable, np.array([o.ns for o in offsets])[index], _UNUSABLE_NS), stepped_ns

    def last_arrival(self, trace: Trace) -> int:
        """Return the arrival of a reply's last read, before all are converted."""
        earliest_ns = trace.earliest_ns
        for stamp, read_ns in zip(trace.stamps[-2:], trace.read_ns[-2:], strict=True):
            earliest_ns, _ = self.arrival(stamp, read_ns, earliest_ns)
        return earliest_ns

    def resolve(self, trace: Trace) -> None:
        """Convert the stamps of a reply that has ended."""
        trace.arrivals, trace.lags = self.arrivals(trace.stamps, trace.read_ns, trace.earliest_ns)
        trace.stamps.clear()
        trace.read_ns.clear()
        if trace.done_ns is not None and len(trace.arrivals):
            trace.done_ns = max(trace.done_ns, int(trace.arrivals[-1]))

    def _change(self) -> None:
        """Handle a changed offset: drift, a step, or an interrupted reading."""
        before_ns, offset_ns = self._offset_ns, self._measured()
        if -_STEP_NS < offset_ns - before_ns < _STEP_NS:
            return
        self._offset_ns = offset_ns
        since_ns = self._monotonic_ns()
        if abs(offset_ns - before_ns) >= NS_PER_MS:  # stepped at an unknown time since the last sample
            self._stepped = True
            self._offsets[-1].trusted_ns = self._sampled_ns
            self._offsets.append(_Offset(since_ns, offset_ns, settled_ns=_NEVER_NS, stepped_ns=since_ns))
        else:
            self._offsets.append(replace(self._offsets[-1], since_ns=since_ns, ns=offset_ns))
        if len(self._offsets) > _OFFSETS:
            del self._offsets[: _OFFSETS // 2]

    def _measured(self) -> int:
        """Measure monotonic minus wall time; best of five, because a reading may be interrupted."""
        readings = []
        for _ in range(5):
            before_ns, wall_ns = self._monotonic_ns(), self._wall_ns()
            width_ns = self._monotonic_ns() - before_ns
            readings.append((width_ns, before_ns + width_ns // 2 - wall_ns))
        return min(readings, key=itemgetter(0))[1]


@dataclass(slots=True)
class _Offset:
    """Monotonic minus wall time since a moment."""

    since_ns: int
    ns: int
    trusted_ns: int = _NEVER_NS  # later reads may carry stamps of the clock after the next step
    settled_ns: int = 0  # earlier reads may carry stamps of the clock before this step
    stepped_ns: int = 0  # earlier arrivals carry stamps of the clock before this step; 0 without a step


@dataclass(frozen=True, slots=True)
class Attempt:
    """Attempt at a request that was followed by another; times are monotonic and absolute, `end` is its failure."""

    sent_ns: int | None
    done_ns: int | None
    end: str


@dataclass(slots=True)
class Trace:
    """Notes about one request while it runs; times are monotonic and absolute."""

    row: Row
    due_ns: int
    phase: str
    held_ns: int | None = None  # time from due until a place was free; None without a cap
    dispatched_ns: int | None = None
    connected_ns: int | None = None
    sent_ns: int | None = None
    accepting_ns: int | None = None  # time that the other side took to accept the connection and the request
    resends: int = 0
    attempts: list[Attempt] = field(default_factory=list)  # that failed, each with another after it
    attempt_sent_ns: int | None = None  # when the latest attempt was sent
    done_ns: int | None = None
    connection_reused: bool | None = None
    earliest_ns: int = 0  # lower limit of every arrival
    stamps: list[bytes] = field(default_factory=list)  # kernel's stamp of each read, not converted
    read_ns: list[int] = field(default_factory=list)  # time after each read
    arrivals: Sequence[int] | Int64 = ()  # converted stamps
    lags: Sequence[int] | Int64 = ()  # read minus arrival; -1: stamped by the loop
    headers_read: int | None = None  # index of the read that completed the headers
    first_body_read: int | None = None  # index of the first read with a part of the body
    backend: str | None = None  # URL of the server, if there are several

    @property
    def retries(self) -> int:
        """How often it was sent again after a failure."""
        return len(self.attempts)

    def stamp(self, read: int | None) -> int | None:
        """Return the arrival of a read, if there is one."""
        return None if read is None else int(self.arrivals[read])


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of a request, and the pieces of its reply."""

    status: Status
    error: str | None = None
    http_status: int | None = None
    chunks: Sequence[ReadChunk] = ()
    streamed: bool = True  # the reply came piece by piece, so the times of its pieces are meaningful
    unreadable: int = 0  # events that were skipped
    impossible: int = 0  # token counts that cannot be true and are treated as unknown


def build_record(
    trace: Trace,
    outcome: Outcome,
    t0_ns: int,
    loop: Loop,
    *,
    chunks: bool,
    text: bool,
    count: Callable[[str], int] | None = None,
) -> Record:
    """Build the record of one request, its times as offsets from T0. A reply that was not streamed has no token times.

    `chunks` and `text` keep the chunk lists and the generated text. `count` is the model's own tokenizer, for replies
    without a token count.
    """
    record = _without_pieces(trace, outcome, t0_ns, loop)
    if len(trace.arrivals):
        record.clock = Clock.LOOP if np.min(trace.lags) < 0 else Clock.KERNEL
    if trace.attempts:
        _add_attempts(record, trace, t0_ns)
    _add_pieces(record, outcome, trace, t0_ns, keep_chunks=chunks)
    if count is not None and record.token_source in (None, TokenSource.CHUNKS):
        _count_text(record, generated_text(outcome), count)
    if text:
        record.text = generated_text(outcome)
    return record


def _without_pieces(trace: Trace, outcome: Outcome, t0_ns: int, loop: Loop) -> Record:
    """Fill the fields of plan, times and status."""
    row = trace.row
    return Record(
        request=row.request,
        class_name=row.class_name,
        session=row.session,
        turn=row.turn,
        user=row.user,
        phase=trace.phase,
        loop=loop,
        after=row.after,
        think_ns=row.think_ns if loop is Loop.CLOSED else None,
        repeats=row.repeats,
        planned_cancel_ns=row.cancel_ns,
        due_ns=trace.due_ns - t0_ns,
        held_ns=trace.held_ns,
        dispatched_ns=_since(t0_ns, trace.dispatched_ns),
        connected_ns=_since(t0_ns, trace.connected_ns),
        sent_ns=_since(t0_ns, trace.sent_ns),
        accepting_ns=trace.accepting_ns,
        resends=trace.resends,
        retries=trace.retries,
        headers_ns=_since(t0_ns, trace.stamp(trace.headers_read)),
        first_byte_ns=_since(t0_ns, trace.stamp(trace.first_body_read)),
        done_ns=_since(t0_ns, trace.done_ns),
        status=outcome.status,
        http_status=outcome.http_status,
        error=outcome.error,
        requested_prompt_tokens=row.prompt_tokens,
        requested_output_tokens=row.output_tokens,
        connection_reused=trace.connection_reused,
        backend=trace.backend,
    )


def _add_attempts(record: Record, trace: Trace, t0_ns: int) -> None:
    """Fill the lists of attempts, which end with the one whose outcome the record has."""
    attempts = [*trace.attempts, Attempt(trace.attempt_sent_ns, trace.done_ns, record.status)]
    record.attempt_sent_ns = [_since(t0_ns, one.sent_ns) for one in attempts]
    record.attempt_done_ns = [_since(t0_ns, one.done_ns) for one in attempts]
    record.attempt_end = [one.end for one in attempts]


def _count_text(record: Record, text: str, count: Callable[[str], int]) -> None:
    """Set token counts by the model's own tokenizer; the prompt's count is the planned one, by the same tokenizer."""
    if text:
        record.output_tokens, record.token_source = count(text), TokenSource.TOKENIZER
        if record.prompt_tokens is None and not record.turn:  # a later turn's prompt contains the conversation
            record.prompt_tokens = record.requested_prompt_tokens


def generated_text(outcome: Outcome) -> str:
    """Return all generated text."""
    return "".join([chunk.text for chunk in Pieces.of(outcome.chunks).chunks if chunk.kind in TOKEN_BEARING])


def _add_pieces(record: Record, outcome: Outcome, trace: Trace, t0_ns: int, *, keep_chunks: bool) -> None:
    """Fill token times, token counts and chunk lists."""
    pieces = Pieces.of(outcome.chunks)
    bearing = bearing_tokens(pieces.kinds)
    chunks, kinds = _picked(pieces.chunks, bearing), _picked(pieces.kinds, bearing)
    usage = _add_extras(record, _informative(pieces.chunks, bearing)) if len(chunks) < len(pieces) else None
    if record.finish_reason is not None and outcome.streamed:
        finish_read = next(read for read, chunk in reversed(pieces) if chunk.finish_reason is not None)
        record.finish_ns = int(trace.arrivals[finish_read]) - t0_ns
    tokens = list(map(_TOKENS, chunks))
    _count_tokens(record, usage, tokens, streamed=outcome.streamed)
    if not chunks or not outcome.streamed:
        return
    all_reads = np.array(pieces.reads)
    reads = all_reads[bearing]
    times_ns = (np.asarray(trace.arrivals, dtype=np.int64)[reads] - t0_ns).tolist()
    record.first_token_ns, record.last_token_ns = times_ns[0], times_ns[-1]
    record.first_answer_ns = next(
        (at for at, kind in zip(times_ns, kinds, strict=True) if kind is not ChunkKind.REASONING), None
    )
    if keep_chunks:
        record.chunk_ns, record.chunk_tokens, record.chunk_kind = times_ns, tokens, kinds
        record.chunk_read = reads.tolist()
        if record.clock == Clock.KERNEL:
            record.chunk_lag_ns = np.asarray(trace.lags)[reads].tolist()
        record.chunk_merged = merged(all_reads, reads, pieces.joined)


def bearing_tokens(kinds: list[ChunkKind]) -> slice | list[int]:
    """Return the places of token-bearing pieces. Fast for the usual case: one run of one kind."""
    if ChunkKind.CONTENT in kinds:
        first, count = kinds.index(ChunkKind.CONTENT), kinds.count(ChunkKind.CONTENT)
        others = kinds[:first] + kinds[first + count :]
        if TOKEN_BEARING.isdisjoint(others):  # so the run is uninterrupted
            return slice(first, first + count)
    return [at for at, kind in enumerate(kinds) if kind in TOKEN_BEARING]


def _informative(chunks: list[Chunk], bearing: slice | list[int]) -> list[Chunk]:
    """Return the pieces that may hold more than text: all but the inner ones of a run of text."""
    if not isinstance(bearing, slice):
        return chunks
    return chunks[: bearing.start + 1] + chunks[bearing.stop - 1 :]


def _picked(values: list[T], places: slice | list[int]) -> list[T]:
    return values[places] if isinstance(places, slice) else list(map(values.__getitem__, places))


def merged(all_reads: Int64, reads: Int64, joined: Sequence[int] = ()) -> list[bool]:
    """Return, for each token-bearing chunk, whether it may carry the time of a later packet.

    The kernel stamps a read with its last packet and does not report their number. A read that completes one event has
    the right stamp for it. A read that completes several events may have held several packets, so all its chunks count
    as merged. The count is too high for servers that send several events at once, never too low.

    `all_reads` includes the reads of chunks without tokens. `joined` lists the chunks that came in one event with the
    chunk before them.
    """
    events = np.bincount(all_reads)
    if joined:
        events -= np.bincount(all_reads[joined], minlength=len(events))
    listed: list[bool] = (events[reads] > 1).tolist()
    return listed


def _add_extras(record: Record, chunks: Sequence[Chunk]) -> Usage | None:
    """Store the fields of chunks without tokens; return the usage."""
    usage = None
    for chunk in chunks:
        if chunk.finish_reason is not None:
            record.finish_reason = chunk.finish_reason
        if chunk.usage is not None:
            usage = chunk.usage if usage is None else _both(usage, chunk.usage)
        if chunk.cached is not None:
            record.cached = chunk.cached
        if chunk.backend is not None:
            record.backend = chunk.backend
        if chunk.reported is not None:
            _add_reported(record, chunk.reported)
    return usage


def _add_reported(record: Record, reported: Mapping[str, float]) -> None:
    """Store the server's own figures."""
    record.reported_total_ms = reported.get("total_ms", record.reported_total_ms)
    record.reported_prompt_ms = reported.get("prompt_ms", record.reported_prompt_ms)
    record.reported_generation_ms = reported.get("generation_ms", record.reported_generation_ms)
    record.reported_memory_peak_bytes = reported.get("memory_peak_bytes", record.reported_memory_peak_bytes)


def _both(before: Usage, usage: Usage) -> Usage:
    """Merge two statements of usage: the later one wins where it has a value."""
    return Usage(
        usage.prompt_tokens or before.prompt_tokens or usage.prompt_tokens,
        usage.output_tokens or before.output_tokens or usage.output_tokens,
        usage.reasoning_tokens or before.reasoning_tokens or usage.reasoning_tokens,
        usage.cached_tokens or before.cached_tokens or usage.cached_tokens,
    )


def _known(usage: Usage, *, bears: bool) -> Usage:
    """Drop counts that a server fills in without counting: no prompt tokens, or no output tokens despite output."""
    output_tokens = None if bears and not usage.output_tokens else usage.output_tokens
    if not usage.prompt_tokens and not output_tokens:
        return Usage(None, output_tokens)
    return Usage(usage.prompt_tokens or None, output_tokens, usage.reasoning_tokens, usage.cached_tokens)


def _count_tokens(record: Record, usage: Usage | None, tokens: Sequence[int | None], *, streamed: bool) -> None:
    """Set output tokens from the server's usage, else the engine's own count, else the number of chunks."""
    if usage is not None:
        usage = _known(usage, bears=bool(tokens))
        record.prompt_tokens = usage.prompt_tokens
        record.reasoning_tokens = usage.reasoning_tokens
        record.cached_tokens = usage.cached_tokens
    if usage is not None and usage.output_tokens is not None:
        record.output_tokens, record.token_source = usage.output_tokens, TokenSource.USAGE
    elif tokens and None not in tokens:
        record.output_tokens, record.token_source = sum(n or 0 for n in tokens), TokenSource.ENGINE
    elif tokens and streamed:
        record.output_tokens, record.token_source = len(tokens), TokenSource.CHUNKS


def _since(t0_ns: int, at_ns: int | None) -> int | None:
    return None if at_ns is None else at_ns - t0_ns


def not_sent(row: Row, phase: str, due_ns: int, loop: Loop, why: str | None = None) -> Record:
    """Build the record of a planned request that was never sent; due_ns is an offset from T0."""
    return build_record(Trace(row, due_ns, phase), Outcome(Status.NOT_SENT, why), 0, loop, chunks=False, text=False)
