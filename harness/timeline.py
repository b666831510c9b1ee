"""The only code that stamps time: clocks, and the way from what was noted of a request to its record."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engines.base import TOKEN_BEARING, ChunkKind, Usage
from engines.dialects.base import ReadChunk
from harness.records import Clock, Loop, Record, Status, TokenSource
from harness.workload import Row

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
_TIMESTAMPING = 37  # SO_TIMESTAMPING and SCM_TIMESTAMPING of <asm-generic/socket.h>
_STEP_NS = 5_000  # two clocks read one after the other differ by less, unless something came between
_SECONDS_NANOSECONDS = struct.Struct("qq").unpack_from

Ancillary = Sequence[tuple[int, int, bytes]]
NowNs = Callable[[], int]


def clock_of(loop: asyncio.AbstractEventLoop) -> NowNs:
    """The monotonic clock of a loop in nanoseconds: the system's, or the loop's own where its time is virtual."""
    virtual: NowNs | None = getattr(loop, "time_ns", None)
    return virtual if virtual is not None else time.monotonic_ns


class StampClock:
    """Turns the kernel's receive stamps (CLOCK_REALTIME) into monotonic time.

    Both clocks are read at each call. A stamp that would lie before `earliest_ns` or after now (the wall clock was
    stepped since) is not used: then the arrival is now, and its lag unknown.
    """

    def __init__(self, monotonic_ns: NowNs = time.monotonic_ns, wall_ns: NowNs = time.time_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._wall_ns = wall_ns
        self._offset_ns = self._sample()

    def arrival(self, ancillary: Ancillary, earliest_ns: int) -> tuple[int, int]:
        """When the last packet of a read came in, and how long it waited to be read; the lag is -1 when not known."""
        wall_ns = self._wall_ns()
        now_ns = self._monotonic_ns()
        for _, kind, data in ancillary:
            if kind == _TIMESTAMPING:
                offset_ns = now_ns - wall_ns
                if not -_STEP_NS < offset_ns - self._offset_ns < _STEP_NS:
                    self._offset_ns = offset_ns = self._sample()
                seconds, nanoseconds = _SECONDS_NANOSECONDS(data)
                arrival_ns = seconds * NS_PER_S + nanoseconds + offset_ns
                if earliest_ns <= arrival_ns <= now_ns:
                    return arrival_ns, now_ns - arrival_ns
        return now_ns, -1

    def _sample(self) -> int:
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
class Trace:
    """What is noted of one request while it runs; times are monotonic and absolute.

    reads: arrival and lag of each read (lag -1: stamped by the loop).   first_body_read, headers_read: indices into it.
    """

    row: Row
    due_ns: int
    phase: str
    dispatched_ns: int | None = None
    connected_ns: int | None = None
    sent_ns: int | None = None
    done_ns: int | None = None
    connection_reused: bool | None = None
    arrivals: list[int] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)
    headers_read: int | None = None
    first_body_read: int | None = None

    def stamp(self, read: int | None) -> int | None:
        """When a read arrived; None for no read."""
        return None if read is None else self.arrivals[read]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, and the pieces of its reply.

    streamed: the reply came piece by piece, so that the times of its pieces mean something.
    """

    status: Status
    error: str | None = None
    http_status: int | None = None
    chunks: Sequence[ReadChunk] = ()
    streamed: bool = True


def build_record(trace: Trace, outcome: Outcome, t0_ns: int, loop: Loop, *, chunks: bool, text: bool) -> Record:
    """The record of one request, its times as offsets from T0.

    chunks, text: whether to keep the chunk lists and the reply. A reply that was not streamed has no token times.
    """
    row = trace.row
    record = Record(
        request=row.request,
        class_name=row.class_name,
        session=row.session,
        turn=row.turn,
        user=row.user,
        phase=trace.phase,
        loop=loop,
        after=row.after,
        think_ns=row.think_ns if loop is Loop.CLOSED else None,
        due_ns=trace.due_ns - t0_ns,
        dispatched_ns=_since(t0_ns, trace.dispatched_ns),
        connected_ns=_since(t0_ns, trace.connected_ns),
        sent_ns=_since(t0_ns, trace.sent_ns),
        headers_ns=_since(t0_ns, trace.stamp(trace.headers_read)),
        first_byte_ns=_since(t0_ns, trace.stamp(trace.first_body_read)),
        done_ns=_since(t0_ns, trace.done_ns),
        status=outcome.status,
        http_status=outcome.http_status,
        error=outcome.error,
        requested_prompt_tokens=row.prompt_tokens,
        requested_output_tokens=row.output_tokens,
        connection_reused=trace.connection_reused,
    )
    if trace.arrivals:
        record.clock = Clock.LOOP if min(trace.lags) < 0 else Clock.KERNEL
    _add_pieces(record, outcome, trace, t0_ns, keep_chunks=chunks)
    if text:
        record.text = "".join(piece.chunk.text for piece in outcome.chunks if piece.chunk.kind in TOKEN_BEARING)
    return record


def _add_pieces(record: Record, outcome: Outcome, trace: Trace, t0_ns: int, *, keep_chunks: bool) -> None:
    """Token times, token counts and chunk lists of a record."""
    bearing = [piece for piece in outcome.chunks if piece.chunk.kind in TOKEN_BEARING]
    usage = _add_extras(record, outcome.chunks) if len(bearing) < len(outcome.chunks) else None
    tokens = [piece.chunk.tokens for piece in bearing]
    _count_tokens(record, usage, tokens, streamed=outcome.streamed)
    if not bearing or not outcome.streamed:
        return
    arrivals = trace.arrivals
    times_ns = [arrivals[piece.read] - t0_ns for piece in bearing]
    record.first_token_ns = times_ns[0]
    record.last_token_ns = times_ns[-1]
    record.first_answer_ns = next(
        (at for at, piece in zip(times_ns, bearing, strict=True) if piece.chunk.kind is not ChunkKind.REASONING), None
    )
    if keep_chunks:
        record.chunk_ns = times_ns
        record.chunk_tokens = tokens
        record.chunk_kind = [piece.chunk.kind for piece in bearing]
        record.chunk_read = [piece.read for piece in bearing]
        if record.clock == Clock.KERNEL:
            record.chunk_lag_ns = [trace.lags[piece.read] for piece in bearing]
        record.chunk_merged = merged(outcome.chunks, bearing)


def merged(chunks: Sequence[ReadChunk], bearing: Sequence[ReadChunk]) -> list[bool]:
    """Which of the token-bearing chunks (`bearing`) may carry the time of a later packet.

    The kernel gives a read the stamp of its last packet and does not say how many there were. A read that completes one
    event has the right stamp for it, whatever it held; a read that completes several may have held several packets. So
    all its chunks count as merged: too many where a server sends several events at once, never too few.
    """
    events = Counter([read for read, _ in chunks])
    if len(events) == len(chunks):
        return [False] * len(bearing)
    return [events[read] > 1 for read, _ in bearing]


def _add_extras(record: Record, chunks: Sequence[ReadChunk]) -> Usage | None:
    """Notes what the chunks without tokens say, and gives the usage."""
    usage = None
    for _, chunk in chunks:
        if chunk.finish_reason is not None:
            record.finish_reason = chunk.finish_reason
        if chunk.usage is not None:
            usage = chunk.usage
        if chunk.cached is not None:
            record.cached = chunk.cached
        if chunk.backend is not None:
            record.backend = chunk.backend
    return usage


def _count_tokens(record: Record, usage: Usage | None, tokens: Sequence[int | None], *, streamed: bool) -> None:
    """Output tokens from the best source: the server's usage, the engine's own count, the number of chunks."""
    if usage is not None:
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


def not_sent(row: Row, phase: str, due_ns: int, loop: Loop) -> Record:
    """The record of a planned request that was never sent; due_ns is an offset from T0."""
    return build_record(Trace(row, due_ns, phase), Outcome(Status.NOT_SENT), 0, loop, chunks=False, text=False)
