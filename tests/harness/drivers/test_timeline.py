"""Clocks, and what becomes of the chunks of a request: known answers."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest

from engines.base import Chunk, ChunkKind, Usage
from engines.dialects.base import ReadChunk
from harness.drivers.timeline import Outcome, StampClock, Trace, build_record, merged
from harness.records import Clock, Loop, Record, Status, TokenSource
from harness.schedule.requests import Row

MS = 1_000_000
HOUR = 3_600_000_000_000
ROW = Row(0, "default", None, 0, None, "measure", None, 0, 0, 1, 4)


class Clocks:
    """Two clocks that a test moves by hand."""

    def __init__(self) -> None:
        self.monotonic_ns = 1_000 * MS
        self.wall_ns = 1_700_000_000_000 * MS

    def advance(self, ns: int) -> None:
        """Let time pass."""
        self.monotonic_ns += ns
        self.wall_ns += ns

    def stamps(self) -> StampClock:
        """The converter that reads them."""
        return StampClock(lambda: self.monotonic_ns, lambda: self.wall_ns)


def stamp(wall_ns: int) -> bytes:
    """Build the kernel's stamp of a packet."""
    return struct.pack("qqqqqq", wall_ns // 10**9, wall_ns % 10**9, 0, 0, 0, 0)


def arrival(clocks: Clocks, stamps: StampClock, packet: bytes, earliest_ns: int) -> tuple[int, int]:
    """A round with one read, now: scalar and vectorised conversion agree."""
    stamps.sample()
    one = stamps.arrival(packet, clocks.monotonic_ns, earliest_ns)
    arrivals, lags = stamps.arrivals([packet], [clocks.monotonic_ns], earliest_ns)
    assert (arrivals.tolist(), lags.tolist()) == ([one[0]], [one[1]])
    return one


def test_stamps_become_monotonic_time() -> None:
    """A packet that waited 3 ms arrived 3 ms ago."""
    clocks = Clocks()
    stamps = clocks.stamps()
    sent_ns = clocks.monotonic_ns
    clocks.advance(10 * MS)
    stamp_ns = clocks.wall_ns
    clocks.advance(3 * MS)
    assert arrival(clocks, stamps, stamp(stamp_ns), sent_ns) == (sent_ns + 10 * MS, 3 * MS)


@pytest.mark.parametrize("step_ns", [HOUR, -HOUR, 50 * MS, -50 * MS])
def test_a_stepped_wall_clock_changes_no_interval(step_ns: int) -> None:
    """Known answer 22: if the wall clock jumps between packet and read, the loop's time is used; afterwards stamps
    count again.
    """
    clocks = Clocks()
    stamps = clocks.stamps()
    before_ns = clocks.monotonic_ns
    clocks.advance(10 * MS)
    stamp_ns = clocks.wall_ns
    clocks.advance(1 * MS)
    clocks.wall_ns += step_ns
    assert arrival(clocks, stamps, stamp(stamp_ns), before_ns) == (clocks.monotonic_ns, -1)
    clocks.advance(20 * MS)
    stamp_ns = clocks.wall_ns
    clocks.advance(2 * MS)
    assert arrival(clocks, stamps, stamp(stamp_ns), before_ns) == (clocks.monotonic_ns - 2 * MS, 2 * MS)


@pytest.mark.parametrize("step_ns", [HOUR, -HOUR, 50 * MS, -50 * MS, 2 * MS, -2 * MS])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_packet_from_before_a_step_keeps_no_stamp(step_ns: int, rounds: int) -> None:
    """A packet stamped 5 ms before a step, and read 1 ms or some rounds after it, gets the loop's time.

    The new clock offset would put it 50 ms too early, in a read alone and among others of a reply.
    """
    clocks = Clocks()
    stamps = clocks.stamps()
    earliest_ns = clocks.monotonic_ns
    clocks.advance(200 * MS)
    stamps.sample()
    good, good_ns = stamp(clocks.wall_ns), clocks.monotonic_ns
    old = stamp(clocks.wall_ns)
    clocks.advance(5 * MS)
    clocks.wall_ns += step_ns
    for _ in range(rounds):
        clocks.advance(1 * MS)
        stamps.sample()
    read_ns = clocks.monotonic_ns
    assert stamps.arrival(old, read_ns, earliest_ns) == (read_ns, -1)
    arrivals, lags = stamps.arrivals([good, old], [good_ns, read_ns], earliest_ns)
    assert (arrivals.tolist(), lags.tolist()) == ([good_ns, read_ns], [0, -1])
    clocks.advance(7 * MS)
    stamps.sample()
    assert stamps.arrival(stamp(clocks.wall_ns), clocks.monotonic_ns, earliest_ns) == (clocks.monotonic_ns, 0)


def test_without_a_stamp_the_arrival_is_now() -> None:
    """No ancillary data: stamped by the loop."""
    clocks = Clocks()
    assert arrival(clocks, clocks.stamps(), b"", 0) == (clocks.monotonic_ns, -1)


def recorded(chunks: Sequence[tuple[float, Chunk]], *, streamed: bool = True) -> Record:
    """The record of a request due and sent at 0 whose chunks arrived at these times in ms, one a read."""
    trace = Trace(ROW, 0, "measure", sent_ns=0, arrivals=[round(at * MS) for at, _ in chunks], lags=[0] * len(chunks))
    trace.done_ns = trace.arrivals[-1] if chunks else 0
    pieces = [ReadChunk(read, chunk) for read, (_, chunk) in enumerate(chunks)]
    return build_record(trace, Outcome(Status.OK, None, 200, pieces, streamed), 0, Loop.OPEN, chunks=True, text=True)


def content(text: str = "x", tokens: int | None = None) -> Chunk:
    """A piece of the answer."""
    return Chunk(ChunkKind.CONTENT, text, tokens)


def test_role_and_empty_chunks_are_no_first_token() -> None:
    """Role at 5 ms, nothing at 10 ms, first content at 200 ms, usage at the end: the first token came at 200 ms."""
    record = recorded(
        [
            (5, Chunk(ChunkKind.ROLE)),
            (10, Chunk(ChunkKind.EMPTY)),
            (200, content()),
            (220, content()),
            (230, Chunk(ChunkKind.FINISH, finish_reason="stop")),
            (240, Chunk(ChunkKind.USAGE, usage=Usage(3, 2))),
        ]
    )
    assert (record.first_token_ns, record.last_token_ns, record.done_ns) == (200 * MS, 220 * MS, 240 * MS)
    assert record.chunk_ns == [200 * MS, 220 * MS]
    assert (record.output_tokens, record.prompt_tokens, record.token_source) == (2, 3, TokenSource.USAGE)


def test_several_tokens_in_a_chunk_are_counted_if_the_engine_reports_them() -> None:
    """25 chunks of four tokens, every 40 ms from 200 ms: 100 tokens, the last at 1160 ms."""
    told = recorded([(200 + 40 * i, content(tokens=4)) for i in range(25)])
    assert (told.last_token_ns, told.output_tokens, told.token_source) == (1160 * MS, 100, TokenSource.ENGINE)
    silent = recorded([(200 + 40 * i, content()) for i in range(25)])
    assert (silent.output_tokens, silent.token_source) == (25, TokenSource.CHUNKS)
    assert silent.chunk_tokens == [None] * 25
    usage = [(1200.0, Chunk(ChunkKind.USAGE, usage=Usage(1, 100)))]
    both = recorded([(200 + 40 * i, content()) for i in range(25)] + usage)
    assert (both.output_tokens, len(both.chunk_ns or ())) == (100, 25)


def test_reasoning_counts_but_is_no_answer() -> None:
    """50 reasoning tokens from 200 ms and 50 of the answer from 700 ms: first token 200, first answer 700."""
    thought = [(200.0 + 10 * i, Chunk(ChunkKind.REASONING, "r", 1)) for i in range(50)]
    said = [(700.0 + 10 * i, content(tokens=1)) for i in range(50)]
    record = recorded(thought + said)
    assert (record.first_token_ns, record.first_answer_ns, record.output_tokens) == (200 * MS, 700 * MS, 100)


def test_replies_without_tokens() -> None:
    """A finish alone has no token times, and no count that nobody stated."""
    record = recorded([(5, Chunk(ChunkKind.FINISH, finish_reason="stop"))])
    assert (record.first_token_ns, record.chunk_ns, record.output_tokens) == (None, None, None)
    assert recorded([]).clock is None


def test_a_reply_in_one_piece_has_no_token_times() -> None:
    """Not streamed: null, never the end of the request."""
    record = recorded([(5, content()), (6, Chunk(ChunkKind.USAGE, usage=Usage(1, 9)))], streamed=False)
    assert (record.first_token_ns, record.chunk_ns, record.output_tokens) == (None, None, 9)


def test_chunks_that_share_a_read_are_merged() -> None:
    """A read that completes several events has one stamp for them; a read of one event has the right one."""
    reads = np.array([0, 1, 1])
    assert merged(reads, reads) == [False, True, True]
    bearing = np.array([0, 1, 1, 2])
    assert merged(np.array([0, 1, 1, 2, 2]), bearing)[3:] == [True]
    assert merged(reads[:1], reads[:1]) == [False]


def test_one_read_by_the_loop_makes_the_record_the_loops() -> None:
    """A record says `kernel` only if every read has the kernel's stamp."""
    trace = Trace(ROW, 0, "measure", arrivals=[1, 2], lags=[5, -1])
    outcome = Outcome(Status.OK, None, 200, [ReadChunk(0, content()), ReadChunk(1, content())])
    record = build_record(trace, outcome, 0, Loop.OPEN, chunks=True, text=False)
    assert (record.clock, record.chunk_lag_ns) == (Clock.LOOP, None)
    trace.lags = [5, 6]
    record = build_record(trace, outcome, 0, Loop.OPEN, chunks=True, text=False)
    assert (record.clock, record.chunk_lag_ns) == (Clock.KERNEL, [5, 6])


@pytest.mark.parametrize(
    ("usage", "tokens", "expected"),
    [
        (None, None, (7, TokenSource.TOKENIZER, 1)),
        (Usage(9, 5), None, (5, TokenSource.USAGE, 9)),
        (None, 4, (8, TokenSource.ENGINE, None)),
    ],
)
def test_our_tokenizer_counts_where_nobody_else_does(
    usage: Usage | None, tokens: int | None, expected: tuple[int, str, int | None]
) -> None:
    """The server's usage and the engine's own count come first; the prompt's tokens are then the plan's."""
    chunks = [
        ReadChunk(0, Chunk(ChunkKind.CONTENT, "abcd", tokens)),
        ReadChunk(1, Chunk(ChunkKind.CONTENT, "efg", tokens)),
    ]
    chunks += [ReadChunk(1, Chunk(ChunkKind.FINISH, usage=usage, reported={"total_ms": 3.0}))]
    trace = Trace(ROW, 0, "measure", arrivals=[1, 2], lags=[0, 0])
    found = build_record(trace, Outcome(Status.OK, chunks=chunks), 0, Loop.OPEN, chunks=True, text=False, count=len)
    assert (found.output_tokens, found.token_source, found.prompt_tokens) == expected
    assert (found.reported_total_ms, found.reported_memory_peak_bytes) == (3.0, None)
