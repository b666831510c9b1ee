"""The only code that stamps time: clocks, and the way from what was noted of a request to its record."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
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
_STEP_NS = 5_000  # two clocks read one after the other differ by less, unless something came between
_SECONDS_NANOSECONDS = struct.Struct("qq").unpack_from

T = TypeVar("T")
Int64 = NDArray[np.int64]
NowNs = Callable[[], int]


def clock_of(loop: asyncio.AbstractEventLoop) -> NowNs:
    """The monotonic clock of a loop in nanoseconds: the system's, or the loop's own where its time is virtual."""
    virtual: NowNs | None = getattr(loop, "time_ns", None)
    return virtual if virtual is not None else time.monotonic_ns


class StampClock:
    """Turns the kernel's receive stamps (CLOCK_REALTIME) into monotonic time, after the fact.

    `sample` reads both clocks; whoever reads sockets calls it before each round of reads. What is noted of a read is
    the kernel's stamp as it came and the monotonic time behind the read; `arrivals` converts many at once, each with
    the difference of the clocks in force when it was read. A stamp that would lie before the previous arrival or after
    its read, and one read while the wall clock was stepped or in the round after that, is not used: the arrival is the
    read, and its lag unknown. What had come in before the step was stamped by the old clock, whenever it is read.
    """

    def __init__(self, monotonic_ns: NowNs = time.monotonic_ns, wall_ns: NowNs = time.time_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._offset_ns = self._measured()
        self._offsets: list[_Offset] = [_Offset(0, self._offset_ns)]
        self._sampled_ns = monotonic_ns()
        self._stepped = False  # at the last look

    def sample(self) -> None:
        """Look whether the wall clock still runs as it did."""
        wall_ns = self._wall_ns()
        now_ns = self._monotonic_ns()
        if self._stepped:
            self._stepped = False
            self._offsets[-1].settled_ns = now_ns
        if not -_STEP_NS < now_ns - wall_ns - self._offset_ns < _STEP_NS:
            self._change()
        self._sampled_ns = now_ns

    def arrival(self, stamp: bytes, read_ns: int, earliest_ns: int) -> tuple[int, int]:
        """When the last packet of a read came in, and how long it waited to be read; the lag is -1 when not known."""
        offset = next((o for o in reversed(self._offsets) if o.since_ns <= read_ns), self._offsets[0])
        if len(stamp) == _STAMP_BYTES and offset.settled_ns <= read_ns <= offset.trusted_ns:
            seconds, nanoseconds = _SECONDS_NANOSECONDS(stamp)
            arrival_ns = seconds * NS_PER_S + nanoseconds + offset.ns
            if max(earliest_ns, offset.stepped_ns) <= arrival_ns <= read_ns:
                return arrival_ns, read_ns - arrival_ns
        return read_ns, -1

    def arrivals(self, stamps: Sequence[bytes], read_ns: Sequence[int], earliest_ns: int) -> tuple[Int64, Int64]:
        """Arrivals and lags of the reads of one reply, in order; no arrival lies before `earliest_ns`."""
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
        """The difference of the clocks in force at each read; where there is none, one that makes a stamp unusable. And
        before when nothing may have come in by it: if there was a step among the reads, it is looked at read by read.
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
        """When the last read of a reply came in, before all are converted."""
        earliest_ns = trace.earliest_ns
        for stamp, read_ns in zip(trace.stamps[-2:], trace.read_ns[-2:], strict=True):
            earliest_ns, _ = self.arrival(stamp, read_ns, earliest_ns)
        return earliest_ns

    def resolve(self, trace: Trace) -> None:
        """Convert what was noted of the reads of a reply that is over."""
        trace.arrivals, trace.lags = self.arrivals(trace.stamps, trace.read_ns, trace.earliest_ns)
        trace.stamps.clear()
        trace.read_ns.clear()
        if trace.done_ns is not None and len(trace.arrivals):
            trace.done_ns = max(trace.done_ns, int(trace.arrivals[-1]))

    def _change(self) -> None:
        """The clocks differ by more or less than before: by drift, a step, or because a reading was interrupted."""
        before_ns, offset_ns = self._offset_ns, self._measured()
        if -_STEP_NS < offset_ns - before_ns < _STEP_NS:
            return
        self._offset_ns = offset_ns
        since_ns = self._monotonic_ns()
        if abs(offset_ns - before_ns) >= NS_PER_MS:  # stepped: some time after the last look, stamps are others
            self._stepped = True
            self._offsets[-1].trusted_ns = self._sampled_ns
            self._offsets.append(_Offset(since_ns, offset_ns, settled_ns=_NEVER_NS, stepped_ns=since_ns))
        else:
            self._offsets.append(replace(self._offsets[-1], since_ns=since_ns, ns=offset_ns))
        if len(self._offsets) > _OFFSETS:
            del self._offsets[: _OFFSETS // 2]

    def _measured(self) -> int:
        """Monotonic minus wall time; the best of five, because the process may be interrupted between two readings."""
        best = None
        for _ in range(5):
            before_ns = self._monotonic_ns()
            wall_ns = self._wall_ns()
            width_ns = self._monotonic_ns() - before_ns
            if best is None or width_ns < best[0]:
                best = (width_ns, before_ns + width_ns // 2 - wall_ns)
        assert best is not None
        return best[1]


@dataclass(slots=True)
class _Offset:
    """Monotonic minus wall time since a moment; what is read after `trusted_ns` may be stamped by a stepped clock.

    settled_ns: what is read before may be stamped by the clock before the step.   stepped_ns: so is what would have
    come in before this by the new one; 0 where there was no step.
    """

    since_ns: int
    ns: int
    trusted_ns: int = _NEVER_NS
    settled_ns: int = 0
    stepped_ns: int = 0


@dataclass(slots=True)
class Trace:
    """What is noted of one request while it runs; times are monotonic and absolute.

    stamps, read_ns: of each read over a socket, the kernel's stamp as it came and the time behind the read; converted
    later to arrivals and lags (lag -1: stamped by the loop).   accepting_ns: how long the other side took to accept the
    connection and the request.   resends: how often it was sent again.   earliest_ns: no reply can have arrived before.
    first_body_read, headers_read: indices of reads.   backend: which of several servers it is sent to.
    """

    row: Row
    due_ns: int
    phase: str
    dispatched_ns: int | None = None
    connected_ns: int | None = None
    sent_ns: int | None = None
    accepting_ns: int | None = None
    resends: int = 0
    done_ns: int | None = None
    connection_reused: bool | None = None
    earliest_ns: int = 0
    stamps: list[bytes] = field(default_factory=list)
    read_ns: list[int] = field(default_factory=list)
    arrivals: Sequence[int] | Int64 = ()
    lags: Sequence[int] | Int64 = ()
    headers_read: int | None = None
    first_body_read: int | None = None
    backend: str | None = None

    def stamp(self, read: int | None) -> int | None:
        """When a read arrived; None for no read."""
        return None if read is None else int(self.arrivals[read])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, and the pieces of its reply.

    streamed: the reply came piece by piece, so that the times of its pieces mean something.   unreadable: events that
    were passed over.   impossible: statements of counts that cannot be true, and are not known therefore.
    """

    status: Status
    error: str | None = None
    http_status: int | None = None
    chunks: Sequence[ReadChunk] = ()
    streamed: bool = True
    unreadable: int = 0
    impossible: int = 0


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
    """The record of one request, its times as offsets from T0.

    chunks, text: whether to keep the chunk lists and the reply. A reply that was not streamed has no token times.
    count: the tokens of a text by the model's own tokenizer, for replies of which nobody else says how many there are.
    """
    record = _without_pieces(trace, outcome, t0_ns, loop)
    if len(trace.arrivals):
        record.clock = Clock.LOOP if np.min(trace.lags) < 0 else Clock.KERNEL
    _add_pieces(record, outcome, trace, t0_ns, keep_chunks=chunks)
    if count is not None and record.token_source in (None, TokenSource.CHUNKS):
        _count_text(record, said(outcome), count)
    if text:
        record.text = said(outcome)
    return record


def _without_pieces(trace: Trace, outcome: Outcome, t0_ns: int, loop: Loop) -> Record:
    """What was planned of a request, when it went through which hands, and how it ended."""
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
        dispatched_ns=_since(t0_ns, trace.dispatched_ns),
        connected_ns=_since(t0_ns, trace.connected_ns),
        sent_ns=_since(t0_ns, trace.sent_ns),
        accepting_ns=trace.accepting_ns,
        resends=trace.resends,
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


def _count_text(record: Record, said: str, count: Callable[[str], int]) -> None:
    """Tokens by the model's own tokenizer; of the prompt those of the plan, which the same tokenizer counted."""
    if said:
        record.output_tokens, record.token_source = count(said), TokenSource.TOKENIZER
        if record.prompt_tokens is None and not record.turn:  # a later turn's has the conversation before it
            record.prompt_tokens = record.requested_prompt_tokens


def said(outcome: Outcome) -> str:
    """All generated text."""
    return "".join([chunk.text for chunk in Pieces.of(outcome.chunks).chunks if chunk.kind in TOKEN_BEARING])


def _add_pieces(record: Record, outcome: Outcome, trace: Trace, t0_ns: int, *, keep_chunks: bool) -> None:
    """Token times, token counts and chunk lists of a record."""
    pieces = Pieces.of(outcome.chunks)
    bearing = bearing_tokens(pieces.kinds)
    chunks, kinds = _picked(pieces.chunks, bearing), _picked(pieces.kinds, bearing)
    usage = _add_extras(record, _told(pieces.chunks, bearing)) if len(chunks) < len(pieces) else None
    if record.finish_reason is not None and outcome.streamed:
        said_in = next(read for read, chunk in reversed(pieces) if chunk.finish_reason is not None)
        record.finish_ns = int(trace.arrivals[said_in]) - t0_ns
    tokens = list(map(_TOKENS, chunks))
    _count_tokens(record, usage, tokens, streamed=outcome.streamed)
    if not chunks or not outcome.streamed:
        return
    all_reads = np.array(pieces.reads)
    reads = all_reads[bearing]
    times_ns = (np.asarray(trace.arrivals, dtype=np.int64)[reads] - t0_ns).tolist()
    record.first_token_ns = times_ns[0]
    record.last_token_ns = times_ns[-1]
    record.first_answer_ns = next(
        (at for at, kind in zip(times_ns, kinds, strict=True) if kind is not ChunkKind.REASONING), None
    )
    if keep_chunks:
        record.chunk_ns = times_ns
        record.chunk_tokens = tokens
        record.chunk_kind = kinds
        record.chunk_read = reads.tolist()
        if record.clock == Clock.KERNEL:
            record.chunk_lag_ns = np.asarray(trace.lags)[reads].tolist()
        record.chunk_merged = merged(all_reads, reads, pieces.joined)


def bearing_tokens(kinds: list[ChunkKind]) -> slice | list[int]:
    """Which pieces bear tokens: nearly always one run of one kind, which is found without looking at each."""
    if ChunkKind.CONTENT in kinds:
        first, count = kinds.index(ChunkKind.CONTENT), kinds.count(ChunkKind.CONTENT)
        others = kinds[:first] + kinds[first + count :]
        if TOKEN_BEARING.isdisjoint(others):  # then all between them are CONTENT
            return slice(first, first + count)
    return [at for at, kind in enumerate(kinds) if kind in TOKEN_BEARING]


def _told(chunks: list[Chunk], bearing: slice | list[int]) -> list[Chunk]:
    """The pieces that may say something beside their text: all but the inner ones of a run of text."""
    if not isinstance(bearing, slice):
        return chunks
    return chunks[: bearing.start + 1] + chunks[bearing.stop - 1 :]


def _picked(values: list[T], places: slice | list[int]) -> list[T]:
    return values[places] if isinstance(places, slice) else list(map(values.__getitem__, places))


def merged(all_reads: Int64, reads: Int64, joined: Sequence[int] = ()) -> list[bool]:
    """Which of the token-bearing chunks, by their `reads`, may carry the time of a later packet.

    The kernel gives a read the stamp of its last packet and does not say how many there were. A read that completes one
    event has the right stamp for it, whatever it held; a read that completes several may have held several packets. So
    all its chunks count as merged: too many where a server sends several events at once, never too few.
    all_reads: the reads of all chunks, those without tokens included.   joined: the places of those that came in one
    event with the chunk before them.
    """
    events = np.bincount(all_reads)
    if joined:
        events -= np.bincount(all_reads[joined], minlength=len(events))
    listed: list[bool] = (events[reads] > 1).tolist()
    return listed


def _add_extras(record: Record, chunks: Sequence[Chunk]) -> Usage | None:
    """Notes what the chunks without tokens say, and gives the usage."""
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
            record.reported_total_ms = chunk.reported.get("total_ms", record.reported_total_ms)
            memory_bytes = chunk.reported.get("memory_peak_bytes", record.reported_memory_peak_bytes)
            record.reported_memory_peak_bytes = memory_bytes
    return usage


def _both(before: Usage, usage: Usage) -> Usage:
    """What is stated in the end: a later statement that says less, or says none, takes nothing away."""
    return Usage(
        usage.prompt_tokens or before.prompt_tokens or usage.prompt_tokens,
        usage.output_tokens or before.output_tokens or usage.output_tokens,
        usage.reasoning_tokens or before.reasoning_tokens or usage.reasoning_tokens,
        usage.cached_tokens or before.cached_tokens or usage.cached_tokens,
    )


def _known(usage: Usage, *, bears: bool) -> Usage:
    """The usage without what a server says that does not count: no prompt, and no tokens in a reply that has some."""
    if usage.prompt_tokens and (usage.output_tokens or not bears):
        return usage
    output_tokens = None if bears and not usage.output_tokens else usage.output_tokens
    if not usage.prompt_tokens and not output_tokens:
        return Usage(None, output_tokens)
    return Usage(usage.prompt_tokens or None, output_tokens, usage.reasoning_tokens, usage.cached_tokens)


def _count_tokens(record: Record, usage: Usage | None, tokens: Sequence[int | None], *, streamed: bool) -> None:
    """Output tokens from the server's usage, else the engine's own count, else the number of chunks."""
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
    """The record of a planned request that was never sent; due_ns is an offset from T0."""
    return build_record(Trace(row, due_ns, phase), Outcome(Status.NOT_SENT, why), 0, loop, chunks=False, text=False)
