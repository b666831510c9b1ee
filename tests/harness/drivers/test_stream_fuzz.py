"""Known answer 21: however a stream is written and however it is cut, its record is the same, each time that of the
read which brought the byte that ends the event.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from dataclasses import dataclass, field, replace
from itertools import accumulate

from hypothesis import example, given
from hypothesis import strategies as st

from engines.dialects import get
from harness.drivers.http.response import ResponseReader
from harness.drivers.outcome import judge
from harness.drivers.timeline import Trace, build_record
from harness.records import Loop, Record, Status
from harness.schedule.requests import Row

ROW = Row(0, "default", None, 0, None, "measure", None, 0, 0, 1, 4)
MESSAGE = "out of memory: \u20ac 5 \U0001f525"


@dataclass
class Stream:
    """A body under way: its bytes, and where in it each event that bears a token is complete."""

    line_end: bytes
    body: bytearray = field(default_factory=bytearray)
    ends: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def line(self, text: bytes) -> None:
        """Return one line."""
        self.body += text + self.line_end

    def event(self, payload: object, *, space: bool = True, lines: int = 1, ascii_only: bool = False) -> None:
        """An event whose data is this object, over one line or several."""
        indent = 1 if lines > 1 else None
        for line in json.dumps(payload, indent=indent, ensure_ascii=ascii_only).split("\n"):
            self.line(b"data:" + b" " * space + line.encode())
        self.body += self.line_end

    def token(self, text: str, *, space: bool, lines: int, ascii_only: bool) -> None:
        """A token."""
        self.event({"choices": [{"text": text}]}, space=space, lines=lines, ascii_only=ascii_only)
        # The first byte of the blank line's end completes the event.
        self.ends.append(len(self.body) - len(self.line_end))
        self.texts.append(text)


NOISE = st.sampled_from([b": ping", b":", b"event: message", b"id: 7", b"retry: 100", b"", b"strange: field"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Tokens among comments, other fields and blank lines, and a good end."""
    stream = Stream(draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
    if draw(st.booleans()):
        stream.body += b"\xef\xbb\xbf"
    for _ in range(draw(st.integers(1, 12))):
        for noise in draw(st.lists(NOISE, max_size=2)):
            stream.line(noise)
        stream.token(
            draw(TEXTS),
            space=draw(st.booleans()),
            lines=draw(st.integers(1, 2)),
            ascii_only=draw(st.booleans()),
        )
    return stream


def good_end(stream: Stream) -> None:
    """Return the end of a good reply."""
    stream.event({"choices": [{"text": "", "finish_reason": "length"}]})
    stream.event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(stream.texts)}})
    stream.line(b"data: [DONE]")
    stream.body += stream.line_end


def on_the_wire(stream: Stream, sizes: list[int] | None) -> tuple[bytes, list[int]]:
    """The response, and where in it each token's event is complete. sizes: of its chunks; None: with a length."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    body = bytes(stream.body)
    if sizes is None:
        head += b"content-length: %d\r\n\r\n" % len(body)
        return head + body, [len(head) + end for end in stream.ends]
    head += b"transfer-encoding: chunked\r\n\r\n"
    wire, starts, places = head, [0, *accumulate(sizes)], []
    starts = [start for start in starts if start < len(body)]
    for start, stop in zip(starts, [*starts[1:], len(body)], strict=True):
        wire += b"%x\r\n" % (stop - start)
        places.append(len(wire) - start)
        wire += body[start:stop] + b"\r\n"
    return wire + b"0\r\n\r\n", [end + places[bisect_left(starts, end + 1) - 1] for end in stream.ends]


def record_of(wire: bytes, cuts: list[int]) -> tuple[Record, list[int]]:
    """The record of a response cut at these places, and where each read ends. Read i arrived at i microseconds."""
    ends = sorted({1 + cut % len(wire) for cut in cuts} | {len(wire)})
    reader = ResponseReader()
    over = [reader.feed(wire[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    assert over.index(True) == len(ends) - 1
    reader.release()
    trace = Trace(ROW, 0, "measure", sent_ns=0)
    trace.arrivals, trace.lags = [1000 * i for i in range(len(ends))], [1] * len(ends)
    trace.headers_read, trace.first_body_read = reader.headers_read, reader.first_body_read
    outcome = judge(reader, get("openai-completions"), None, streams=True)
    return build_record(trace, outcome, 0, Loop.OPEN, chunks=True, text=True), ends


def without_times(record: Record) -> Record:
    """Return the values that are independent of the cuts."""
    none = dict.fromkeys(
        ("headers_ns", "first_byte_ns", "first_token_ns", "first_answer_ns", "last_token_ns", "finish_ns", "chunk_ns",
         "chunk_read", "chunk_lag_ns", "chunk_merged"),
    )  # fmt: skip
    return replace(record, **none)


CUTS = st.lists(st.integers(0, 100_000), max_size=30)
SIZES = st.none() | st.lists(st.integers(1, 90), min_size=1, max_size=40)


@given(streams(), SIZES, CUTS)
@example(Stream(b"\n"), None, [])
def test_each_token_has_the_time_of_the_read_that_completes_it(
    stream: Stream, sizes: list[int] | None, cuts: list[int]
) -> None:
    """Known answer 21: texts and counts are those of the stream in one piece; no token is early, none late."""
    if not stream.texts:
        for i in range(10):
            stream.token(f" \u00e4{i}", space=True, lines=1, ascii_only=False)
    good_end(stream)
    wire, places = on_the_wire(stream, sizes)
    record, ends = record_of(wire, cuts)
    assert (record.status, record.error, record.text) == (Status.OK, None, "".join(stream.texts))
    assert record.output_tokens == len(stream.texts)
    expected = [bisect_left(ends, place + 1) for place in places]
    assert list(record.chunk_read or ()) == expected
    assert list(record.chunk_ns or ()) == [1000 * read for read in expected]
    assert without_times(record) == without_times(record_of(wire, [])[0])


@given(streams(), SIZES, CUTS, st.sampled_from(["error", "nonsense", "silence"]))
def test_faults_of_streams_are_distinguished(
    stream: Stream, sizes: list[int] | None, cuts: list[int], how: str
) -> None:
    """Known answer 21: an error within a 200 and nonsense are errors of the stream, an end without a finish is a
    truncation, in every cut; the tokens before keep their times.
    """
    if how == "error":
        stream.event({"error": {"message": MESSAGE, "code": 500}})
    elif how == "nonsense":
        stream.line(b"data: {nonsense")
        stream.body += stream.line_end
    wire, places = on_the_wire(stream, sizes)
    record, ends = record_of(wire, cuts)
    assert record.status == (Status.TRUNCATED if how == "silence" else Status.STREAM_ERROR)
    assert record.error is not None
    assert how != "error" or MESSAGE in record.error
    assert record.text == "".join(stream.texts)
    assert list(record.chunk_ns or ()) == [1000 * bisect_left(ends, place + 1) for place in places]
    assert without_times(record) == without_times(record_of(wire, [])[0])
