"""The short cuts through a stream of events change nothing: not a chunk, and not the read it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.base import Chunk, ChunkKind
from engines.dialects.events import EventDecoder, EventScan, KnownPieces
from engines.dialects.openai import OpenAIChat
from engines.dialects.sse import EventSplitter, one_line_each


def delta(fields: str, finish: str = "null") -> bytes:
    """Return an event of a chat, as some servers write it."""
    return b'data: {"id":"7","choices":[{"delta":{%b},"finish_reason":%b}]}\n\n' % (fields.encode(), finish.encode())


TOKENS = [delta(f'"content":"{text}"') for text in (" a", " b", "ä", "\\n", '\\"', "", "\\u00e4", "data: ")]
THOUGHTS = [delta(f'"reasoning_content":"{text}"') for text in (" a", "hm", "\\n")]
OTHERS = [
    delta('"role":"assistant","content":""'),
    delta("", '"stop"'),
    delta('"content":" a"', '"stop"'),
    b": still here\n\n",
    b"data: [DONE]\n\n",
    b"data:" + delta('"content":" a"')[6:],
    b"event: message\n" + TOKENS[0],
    b"event: token\n" + TOKENS[1],
    b"event:token\n" + TOKENS[1],
    b"event: error\n" + TOKENS[1],
    b"event: ping\n\n",
    b"event: token\nid: 7\n" + TOKENS[1],
    b"event: token\n: a comment\n\n",
    TOKENS[0][:-1] + b"event: after\n\n",
    b'data: {"choices":\ndata: [{"delta":{"content":"x"}}]}\n\n',
    b"data: nonsense\n\n",
    b"\n\n",
    b"\r\n\r\n",
    b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n',
    b'data: {"error":"broken"}\n\n',
    b"data: \xff\n\n",
    TOKENS[0][:-1],
    TOKENS[0][6:],
]
EVENTS = st.one_of(st.sampled_from(TOKENS), st.sampled_from(TOKENS), st.sampled_from(THOUGHTS), st.sampled_from(OTHERS))


def by_the_parser(reads: Sequence[bytes], decoder: EventDecoder) -> list[tuple[int, Chunk]]:
    """Every event cut out as the standard says, and parsed."""
    splitter = EventSplitter(single=one_line_each(b"".join(reads)))
    found = [(at, chunk) for at, read in enumerate(reads) for e in splitter.feed(read) for chunk in decoder.parse(e)]
    for event in splitter.finish():
        rest = decoder.parse(event)
        if not any(chunk.kind is ChunkKind.UNREADABLE for chunk in rest):
            found += [(len(reads) - 1, chunk) for chunk in rest]
    return found


def agrees(reads: Sequence[bytes], decoder: EventDecoder) -> None:
    """The stream is what the parser alone makes of it."""
    expected = by_the_parser(reads, decoder)
    if expected:
        assert [(read, chunk) for read, chunk in decoder.stream(reads)] == expected


@given(
    st.lists(EVENTS, max_size=40),
    st.lists(st.integers(0, 4000), max_size=40),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_any_events_in_any_reads(events: list[bytes], places: list[int], line_end: bytes, mark: bytes) -> None:
    """Any events, line ends and reads give the same chunks in the same reads, with known chunks or without."""
    body = mark + b"".join(events).replace(b"\n", line_end)
    at = sorted(min(place, len(body)) for place in places)
    reads = [body[a:b] for a, b in zip([0, *at], [*at, len(body)], strict=True)]
    decoder = EventDecoder(OpenAIChat().chunks)
    for _ in range(2):
        agrees(reads, decoder)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_long_replies_in_every_order(line_end: bytes) -> None:
    """Thoughts, then the answer, with a strange event after every seventh, one event a read and all in one."""
    events = [THOUGHTS[i % 3] for i in range(60)] + [TOKENS[i % 8] for i in range(120)]
    for strange in OTHERS:
        mixed = [part for i, e in enumerate(events) for part in ((e, strange) if i % 7 == 6 else (e,))]
        reads = [event.replace(b"\n", line_end) for event in mixed]
        decoder = EventDecoder(OpenAIChat().chunks)
        for _ in range(2):
            agrees(reads, decoder)
            agrees([b"".join(reads)], decoder)


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("before", [b"", b"event: token\n"])
def test_events_that_differ_in_their_text_alone_are_not_parsed(before: bytes, line_end: bytes) -> None:
    """Nor are those with a line that names the event, as Anthropic's."""
    parsed = 0

    def chunks(event: Mapping[str, Any]) -> list[Chunk]:
        nonlocal parsed
        parsed += 1
        return OpenAIChat().chunks(event)

    body = b"".join(before + delta(f'"content":" w{i}"') for i in range(500)).replace(b"\n", line_end)
    assert len(EventDecoder(chunks).stream([body])) == 500
    assert parsed < 5


def test_a_stream_in_which_nothing_repeats_is_searched_in_proportion_to_its_length() -> None:
    """Each event has a number behind its text: a template of one is not sought in all that follows."""
    texts = [f'"content":" w{i}","n":{i}' for i in range(3000)]
    events = [delta(text) for text in texts]
    searched = 0

    class Body(bytes):
        def rfind(self, *place: Any) -> int:
            nonlocal searched
            searched += 1
            return super().rfind(*place)

    decoder = EventDecoder(OpenAIChat().chunks)
    scan = EventScan(events, KnownPieces(), decoder.parse)
    scan._body = Body(scan._body)
    assert len(scan.pieces()) == 3000
    assert searched <= 12
