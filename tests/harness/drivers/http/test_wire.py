"""The response machine: however the bytes are cut into reads, the same response comes out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.dialects import get
from harness.drivers.http.response import ResponseReader
from harness.drivers.outcome import judge
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk, event
from harness.drivers.timeline import Trace, build_record
from harness.records import Loop, Record
from harness.schedule.requests import Row
from tests.scripted_server import ending, piece

ROW = Row(0, "default", None, 0, None, "measure", None, 0, 0, 1, 4)
BODY = piece(" ä") + b": a comment\r\n\r\n" + piece(" €") + b'data: {"choices":\ndata: [{"text": "x"}]}\n\n' + ending(3)
CHUNKED = STREAM_HEAD + b"".join(chunk(BODY[i : i + 37]) for i in range(0, len(BODY), 37)) + LAST_CHUNK
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
ERROR = STREAM_HEAD + chunk(piece() + event({"error": {"message": "broken"}})) + LAST_CHUNK
CRLF = STREAM_HEAD + chunk(BODY.replace(b"\n", b"\r\n").replace(b"\r\r", b"\r")) + LAST_CHUNK
WHOLE = [CHUNKED, LENGTH, ERROR, CRLF]


def record_of(reads: list[bytes]) -> tuple[Record, ResponseReader]:
    """The record of a response that came in these reads, all at the same time."""
    reader = ResponseReader()
    trace = Trace(ROW, 0, "measure", sent_ns=0)
    ended = [reader.feed(data) for data in reads]
    assert ended.index(True) == len(reads) - 1
    trace.arrivals, trace.lags = [7] * len(reads), [1] * len(reads)
    reader.release()
    outcome = judge(reader, get("openai-completions"), None, streams=True)
    record = build_record(trace, outcome, 0, Loop.OPEN, chunks=True, text=True)
    record.chunk_read = record.chunk_merged = None
    return record, reader


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    at = sorted({place for place in places if 0 < place < len(data)})
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def test_every_single_split() -> None:
    """Cut in two at any byte, a response gives the very same record."""
    for whole in WHOLE:
        expected, _ = record_of([whole])
        for place in range(1, len(whole)):
            assert record_of(cut(whole, [place]))[0] == expected


@given(st.sampled_from(WHOLE), st.lists(st.integers(1, 700), max_size=40))
def test_any_splits(whole: bytes, places: list[int]) -> None:
    """Cut anywhere, any number of times, a response gives the very same record."""
    assert record_of(cut(whole, places))[0] == record_of([whole])[0]


def test_byte_by_byte() -> None:
    """Return single bytes."""
    for whole in WHOLE:
        assert record_of([bytes([byte]) for byte in whole])[0] == record_of([whole])[0]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_anything_may_come_in(reads: list[bytes]) -> None:
    """Whatever a server sends, there is a status and no exception."""
    reader = ResponseReader()
    for data in reads:
        reader.feed(data)
    reader.closed()
    reader.release()
    assert judge(reader, get("openai-chat"), None, streams=True).status


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_body_may_come_in(bodies: list[bytes]) -> None:
    """Whatever the events hold, there is a status and no exception."""
    reader = ResponseReader()
    reader.feed(STREAM_HEAD + b"".join(chunk(body) for body in bodies if body) + LAST_CHUNK)
    reader.release()
    assert reader.complete
    assert judge(reader, get("openai-chat"), None, streams=True).status


def test_a_second_response_makes_the_connection_unusable() -> None:
    """Bytes after the end belong to no request."""
    reader = ResponseReader()
    reader.feed(CHUNKED + CHUNKED)
    reader.release()
    assert reader.complete
    assert not reader.reusable
