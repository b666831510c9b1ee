"""Anthropic's Messages API: requests as they are written down, replies event by event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import dialects
from engines.base import Chunk, ChunkKind, EngineSpec, Request, Turn, Usage
from engines.dialects.base import WireResponse
from engines.http.engine import HttpEngine
from harness.drivers.outcome import Cut
from harness.records import Status
from tests.replied import record_of

NAME = "anthropic-messages"


def event(kind: str, **content: Any) -> bytes:
    """Return a named event as sent."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode()


def start(**usage: Any) -> bytes:
    """Return the first event."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "stop_reason": None}
    return event("message_start", message={**message, "usage": {"output_tokens": 1, **usage}})


def delta(kind: str, **content: Any) -> bytes:
    """Return a part of a block."""
    return event("content_block_delta", index=0, delta={"type": kind, **content})


def words(*texts: str) -> list[bytes]:
    """Return parts of the answer."""
    return [delta("text_delta", text=text) for text in texts]


def end(reason: str = "max_tokens", **usage: Any) -> bytes:
    """Return the event with the stop reason and the counts."""
    return event("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage)


BLOCK = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
BLOCK_END = event("content_block_stop", index=0)
PING = event("ping")
STOP = event("message_stop")


def decoded(*reads: bytes) -> list[Chunk]:
    """Return the chunks of a stream, without the empty ones."""
    found = dialects.get(NAME).decode(WireResponse(200, {"content-type": "text/event-stream"}, reads))
    return [chunk for _, chunk in found if chunk.kind is not ChunkKind.EMPTY]


def test_a_request() -> None:
    """Earlier turns come first, stops have Anthropic's name, and the version of the API is stated."""
    asked = Request(
        "b", 7, exact=True, sampling={"temperature": 0.5, "top_k": 3, "stop": ["x"]}, history=(Turn("a", "r"),)
    )
    wire = dialects.get(NAME, {"thinking": {"type": "enabled", "budget_tokens": 1024}}).encode(asked, "m")
    assert (wire.method, wire.path) == ("POST", "/v1/messages")
    assert wire.headers["anthropic-version"] == "2023-06-01"
    assert json.loads(wire.body) == {
        "model": "m",
        "max_tokens": 7,
        "stream": True,
        "temperature": 0.5,
        "top_k": 3,
        "stop_sequences": ["x"],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "r"},
            {"role": "user", "content": "b"},
        ],
    }


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (Request((1, 2), 7), "anthropic-messages cannot carry token ids"),
        (Request("a", 7, sampling={"seed": 1}), "anthropic-messages has no `seed`"),
    ],
)
def test_what_the_api_lacks_is_refused(asked: Request, sentence: str) -> None:
    """Token ids and a seed."""
    with pytest.raises(ValueError, match=sentence):
        dialects.get(NAME).encode(asked, "m")


def test_the_key_is_sent_as_anthropic_wants_it() -> None:
    """As `x-api-key` alone: Anthropic refuses an ordinary key that comes as a bearer token."""
    options = {"url": "http://127.0.0.1:1", "dialect": NAME}
    engine = HttpEngine(EngineSpec("http", options=options, api_key="s3cret"))
    assert engine._headers() == {"x-api-key": "s3cret"}


def test_a_stream() -> None:
    """Texts, thoughts and tool calls have their own kinds; the counts come at both ends."""
    tool = event(
        "content_block_start", index=2, content_block={"type": "tool_use", "id": "t", "name": "f", "input": {}}
    )
    found = decoded(
        start(input_tokens=5, cache_creation_input_tokens=2, cache_read_input_tokens=3),
        PING,
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        delta("thinking_delta", thinking="hm"),
        delta("signature_delta", signature="EqQB"),
        BLOCK_END,
        BLOCK,
        *words("a", " b"),
        BLOCK_END,
        tool,
        delta("input_json_delta", partial_json='{"x":1}'),
        BLOCK_END,
        end("tool_use", output_tokens=9),
        STOP,
    )
    assert found == [
        Chunk(ChunkKind.ROLE),
        Chunk(ChunkKind.USAGE, usage=Usage(10, None, None, 3)),
        Chunk(ChunkKind.REASONING, "hm"),
        Chunk(ChunkKind.CONTENT, "a"),
        Chunk(ChunkKind.CONTENT, " b"),
        Chunk(ChunkKind.TOOL, "f"),
        Chunk(ChunkKind.TOOL, '{"x":1}'),
        Chunk(ChunkKind.USAGE, usage=Usage(None, 9)),
        Chunk(ChunkKind.FINISH, finish_reason="tool_use"),
        Chunk(ChunkKind.FINISH),
    ]


@pytest.mark.parametrize(
    ("first", "last", "cached"),
    [
        ({"input_tokens": 8, "cache_read_input_tokens": 50}, {}, 50),
        ({"input_tokens": 8, "cache_read_input_tokens": 50}, {"input_tokens": 8}, 50),
        ({"input_tokens": 8, "cache_read_input_tokens": 50}, {"input_tokens": 8, "cache_read_input_tokens": 50}, 50),
        ({"input_tokens": 0}, {"input_tokens": 8, "cache_read_input_tokens": 50}, 50),
        ({"input_tokens": 58, "cache_read_input_tokens": None}, {"input_tokens": 58}, None),
    ],
)
def test_the_prompt_counts_whole(first: dict[str, Any], last: dict[str, Any], cached: int | None) -> None:
    """Cached tokens belong to the prompt, whichever event states them, and whichever leaves them out."""
    reads = [start(**first), BLOCK, *words("a", "b"), BLOCK_END, end(output_tokens=2, **last), STOP]
    record = record_of(reads, NAME)
    assert (record.prompt_tokens, record.output_tokens, record.token_source) == (58, 2, "usage")
    assert record.cached_tokens == cached


def test_a_whole_reply() -> None:
    """A single document holds content, counts and stop reason."""
    content = [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "yes"}]
    body = {"type": "message", "role": "assistant", "content": content, "stop_reason": "end_turn"}
    body["usage"] = {"input_tokens": 5, "output_tokens": 4}
    record = record_of([json.dumps(body).encode()], NAME, "application/json", streams=False)
    assert (record.status, record.text, record.finish_reason) == (Status.OK, "hmyes", "end_turn")
    assert (record.prompt_tokens, record.output_tokens, record.first_token_ns) == (5, 4, None)


def test_an_error_in_mid_stream() -> None:
    """An event of that name fails the reply with the server's sentence; what came stays."""
    error = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    record = record_of([start(input_tokens=5), BLOCK, *words("a", "b"), error], NAME)
    assert (record.status, record.error) == (Status.STREAM_ERROR, "Overloaded")
    assert len(record.chunk_ns or ()) == 2


def test_an_error_before_the_stream() -> None:
    """The sentence of the JSON is told with the status."""
    body = json.dumps({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}})
    (piece,) = dialects.get(NAME).decode(WireResponse(401, {"content-type": "application/json"}, [body.encode()]))
    assert piece.chunk == Chunk(ChunkKind.ERROR, "the server answered HTTP 401: invalid x-api-key")


@pytest.mark.parametrize("cut", [None, Cut(Status.CONNECTION_ERROR, "the server closed the connection")])
def test_a_reply_that_is_cut_off(cut: Cut | None) -> None:
    """Without a stop reason it is truncated; the prompt's tokens are known, those of the reply are its chunks."""
    record = record_of([start(input_tokens=5), BLOCK, *words("a", "b", "c")], NAME, cut=cut)
    assert (record.status, record.prompt_tokens) == (Status.TRUNCATED, 5)
    assert (record.output_tokens, record.token_source) == (3, "chunks")


def test_events_in_one_read_and_across_reads() -> None:
    """Any division into reads gives the same chunks."""
    reads = [start(input_tokens=5), BLOCK, *words("a", "ä", '"'), BLOCK_END, end(output_tokens=3), STOP]
    body = b"".join(reads)
    expected = decoded(body)
    for size in (1, 7, 64):
        assert decoded(*(body[at : at + size] for at in range(0, len(body), size))) == expected
