"""The bytes decide how a body is framed; its content type only where they do not tell."""

from __future__ import annotations

import time
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.dialects import get
from engines.dialects.base import WireResponse
from engines.dialects.framing import Framing, framing_of
from engines.dialects.sse import one_line_each
from harness.drivers.stub import event
from harness.records import Status
from tests.replied import DONE, FINISH, GOOD, ROLE, TOKENS, USAGE, WORDS, delta, record_of

KINDS = ["text/event-stream", "application/json", "application/x-ndjson", "text/plain", "text/html", "", "Weird/Kind"]
MARK = b"\xef\xbb\xbf"
COMMENTED = [b": ping\n\n", ROLE, *(part for token in TOKENS for part in (b": OPENROUTER PROCESSING\n\n", token))]
WRITTEN: dict[str, list[bytes]] = {
    "plain": GOOD,
    "crlf": [part.replace(b"\n", b"\r\n") for part in GOOD],
    "cr": [part.replace(b"\n", b"\r") for part in GOOD],
    "no space": [part.replace(b"data: ", b"data:") for part in GOOD],
    "mark": [MARK + GOOD[0], *GOOD[1:]],
    "fields": [b"event: message\nid: 1\nretry: 9\n" + part for part in GOOD],
    "comments": [*COMMENTED, FINISH, USAGE, DONE],
    "blank lines first": [b"\n\n", b"\r\n", *GOOD],
    "one line end": [part[:-1] for part in GOOD],
    "one crlf": [part[:-2] + b"\r\n" for part in GOOD],
    "one line end and names": [b"event: message\n" + part[:-1] for part in GOOD],
    "one line end after a comment": [b": hello\n", *(part[:-1] for part in GOOD)],
    "lines": [part[6:-1] for part in GOOD[:-1]],
    "lines and crlf": [part[6:-2] + b"\r\n" for part in GOOD[:-1]],
    "twice data": [b"data: " + part for part in GOOD],
    "end in small letters": [*GOOD[:-1], b"data:[done] \n\n"],
    "end as a text": [*GOOD[:-1], b'data: "[DONE]"\n\n'],
    "usage and end in one": [*GOOD[:-2], USAGE[:-1] + DONE],
}


def reads_of(body: bytes, places: list[int]) -> list[bytes]:
    """A body cut at these places."""
    at = sorted({place % len(body) for place in places} - {0})
    return [body[a:b] for a, b in zip([0, *at], [*at, len(body)], strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WRITTEN)
def test_a_good_stream_is_read_under_any_content_type(way: str, kind: str) -> None:
    """Ten tokens, counted, each with the time of its own read."""
    record = record_of(WRITTEN[way], "openai-chat", kind)
    assert (record.status, record.error, record.text) == (Status.OK, None, "".join(WORDS))
    assert (record.output_tokens, record.token_source, record.finish_reason) == (10, "usage", "stop")
    reads = list(record.chunk_read or ())
    assert len(set(reads)) == 10
    assert record.first_token_ns == 1000 * reads[0]
    assert not any(record.chunk_merged or ())


@given(st.sampled_from(sorted(WRITTEN)), st.sampled_from(KINDS), st.lists(st.integers(0, 10_000), max_size=25))
def test_wherever_it_is_cut(way: str, kind: str, places: list[int]) -> None:
    """A cut inside a character, a line end or the byte order mark gives the same tokens, none before its last byte."""
    body = b"".join(WRITTEN[way])
    reads = reads_of(body, places)
    record = record_of(reads, "openai-chat", kind)
    assert (record.status, record.text, record.output_tokens) == (Status.OK, "".join(WORDS), 10)
    ends = list(accumulate(map(len, reads)))
    for word, read in zip(WORDS, record.chunk_read or (), strict=True):
        last = body.index(f'"{word}"'.encode()) + len(word) + 2
        assert ends[read - 1] >= last  # read 0 brought the head


@pytest.mark.parametrize(
    ("kind", "framing"),
    [
        ("Text/Event-Stream; charset=utf-8", Framing.EVENTS),
        ("application/x-ndjson", Framing.LINES),
        ("application/json-lines", Framing.LINES),
        ("application/json", Framing.DOCUMENT),
        ("text/html", Framing.PAGE),
        ("text/plain", Framing.EVENTS),
        ("", Framing.EVENTS),
    ],
)
def test_the_content_type_decides_where_the_bytes_do_not(kind: str, framing: Framing) -> None:
    """A body that begins with neither a field, nor JSON, nor a page."""
    assert framing_of(WireResponse(200, {"content-type": kind}, [b"Hello"])) is framing


@pytest.mark.parametrize(
    ("body", "one_line"),
    [
        (b'data: {"a": 1}\ndata: [DONE]\n', True),
        (b'data: {"a": 1}\n\ndata: [DONE]\n', False),
        (b'data: {"a":\ndata: 1}\n', False),
        (b'data: {"a": 1}\ndata: words\n', False),
        (b'data: {"a": 1}\n', False),
    ],
)
def test_one_line_end_may_end_an_event(body: bytes, one_line: bool) -> None:
    """Seen from the first two lines of data."""
    assert one_line_each(body) is one_line


@pytest.mark.parametrize("kind", KINDS)
def test_one_document_is_no_stream(kind: str) -> None:
    """A document has no TTFT under any content type, on one line or many, with leading blanks or without."""
    for body in (
        b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"completion_tokens":2}}',
        b'{\n "choices": [\n  {"message": {"content": "hi"},\n   "finish_reason": "stop"}\n ],\n'
        b' "usage": {"completion_tokens": 2}\n}\n',
    ):
        for before in (b"", b"\n\n \n", MARK):
            reads = [before + body[:20], body[20:]]
            record = record_of(reads, "openai-chat", kind)
            assert (record.status, record.text, record.output_tokens) == (Status.OK, "hi", 2)
            assert record.first_token_ns is None or ("ndjson" in kind and b"\n" not in body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_no_answer(kind: str) -> None:
    """A web page of a proxy or a login is an error."""
    record = record_of([b"\n<!DOCTYPE html><html><h1>502 Bad Gateway</h1></html>"], "openai-chat", kind)
    assert record.status == Status.HTTP_ERROR
    assert "502 Bad Gateway" in (record.error or "")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [b"", b"\n", b"  \r\n\r\n"])
def test_nothing_is_empty(kind: str, body: bytes) -> None:
    """Blanks are nothing."""
    record = record_of([body], "openai-chat", kind)
    assert record.status in ((Status.EMPTY, Status.HTTP_ERROR) if "html" in kind else (Status.EMPTY,))


@given(st.lists(st.binary(max_size=12), max_size=8), st.sampled_from(KINDS))
def test_any_bytes_have_a_framing(reads: list[bytes], kind: str) -> None:
    """Any bytes have the same framing for every division into reads."""
    headers = {"content-type": kind}
    whole = framing_of(WireResponse(200, headers, [b"".join(reads)]))
    assert isinstance(whole, Framing)
    assert framing_of(WireResponse(200, headers, reads)) is whole


def test_data_over_several_lines_is_one_event() -> None:
    """Lines are joined by the standard if the first is no complete JSON."""
    lines = b'data: {"choices":[{"index":0,\ndata: "delta":{"content":" a"}}]}\n\n'
    assert not one_line_each(lines + TOKENS[0])
    assert record_of([lines, FINISH, DONE]).text == " a"


@pytest.mark.parametrize(
    "sign",
    [
        b"data:\n\n", b"data: \n\n", b"data\n\n", b"data: {}\n\n", b"data: []\n\n", b"data: null\n\n", b'data: ""\n\n',
        b"data: 0\n\n", b"data: 1732000000\n\n", b"data: true\n\n", b"data: ping\n\n", b"data: keep-alive\n\n",
        b"data: [heartbeat]\n\n", b'data: "ping"\n\n', b'data: {"type":"ping"}\n\n', b"event: ping\ndata: {}\n\n",
        b"event: ping\n\n", b"event: heartbeat\ndata:\n\n", b": keep-alive\n\n", b":\n", b"\n", b"id: 4\n\n",
        b'data: {"choices":[]}\n\n', b'data: {"id":"1","choices":[{"index":0,"delta":{}}]}\n\n',
        b'event: ping\ndata: {"type": "ping", "cost": "0"}\n\n', b'data: {"status":"processing"}\n\n',
        delta(content=None), delta(content=""), delta(role="assistant"), b'data: {"choices":null}\n\n',
        b"data: ...\n\n", b'data: {"message":"keep-alive"}\n\n', b"data: OPENROUTER PROCESSING\n\n",
    ],
)  # fmt: skip
def test_keep_alives_are_ignored(sign: bytes) -> None:
    """Keep-alives are ignored before, between and after the tokens, even if only [DONE] ends the reply."""
    mixed = [part for token in TOKENS for part in (sign, token)]
    for end in ([sign, FINISH, sign, USAGE, sign, DONE], [USAGE, sign, DONE]):
        record = record_of([sign, ROLE, *mixed, *end])
        assert (record.status, record.error, record.output_tokens) == (Status.OK, None, 10)
        assert len(record.chunk_ns or ()) == 10
        assert record.first_token_ns == 4000


@pytest.mark.parametrize(
    "strange", [b"hm", b"\xff\xfe", b'{"choices":[{"delta":{"content":" x', b"None", b"undefined", b"{'a': 1}"]
)
def test_unreadable_data_is_ignored_if_the_reply_continues(strange: bytes) -> None:
    """Unreadable data fails the reply only at its end."""
    between = record_of([*TOKENS[:5], event(strange), *TOKENS[5:], DONE])
    assert (between.status, len(between.chunk_ns or ())) == (Status.OK, 10)
    finished = record_of([*TOKENS, FINISH, event(strange), DONE])
    assert finished.status == Status.OK
    last = record_of([*TOKENS, event(strange), DONE])
    assert last.status == Status.STREAM_ERROR
    assert "cannot be read" in (last.error or "")


@pytest.mark.parametrize("head", [b"data: ", b"", b'data: {"choices":[{"text":"'])
@pytest.mark.parametrize("unit", [b"x", b" ", b"}", b"data: ", b"error", b"\r\n"])
def test_a_body_takes_time_in_proportion_to_its_length(head: bytes, unit: bytes) -> None:
    """Any repeated body of four times the length takes at most ten times as long."""

    def seconds(size: int) -> float:
        body = head + unit * (size // len(unit))
        reads = [body[at : at + 4096] for at in range(0, len(body), 4096)]
        response = WireResponse(200, {"content-type": "text/event-stream"}, reads)
        began = time.process_time()
        get("openai-completions", {}).decode(response)
        return time.process_time() - began

    least = min(seconds(1 << 18) for _ in range(3))
    assert seconds(1 << 20) < 10 * least + 0.05
