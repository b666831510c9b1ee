"""OpenAI's Responses API: requests as they are written down, replies event by event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import dialects
from engines.base import Chunk, ChunkKind, Request, Turn, Usage
from engines.dialects.base import WireResponse
from harness.drivers.outcome import Cut
from harness.records import Status
from tests.replied import record_of

NAME = "openai-responses"
USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 16},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4},
    "total_tokens": 29,
}
COUNTS = Chunk(ChunkKind.USAGE, usage=Usage(20, 9, 4, 16))
ANSWER = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "yes", "annotations": []}],
}


def event(kind: str, **content: Any) -> bytes:
    """Return a named event as sent."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **content})}\n\n".encode()


def delta(kind: str, text: str) -> bytes:
    """Return a part of the output."""
    return event(f"response.{kind}.delta", item_id="1", output_index=0, content_index=0, delta=text)


def end(kind: str = "completed", **content: Any) -> bytes:
    """Return the last event."""
    response = {"object": "response", "status": kind, "error": None, "output": [ANSWER], "usage": USAGE, **content}
    return event(f"response.{kind}", response=response)


CREATED = event(
    "response.created", response={"object": "response", "status": "in_progress", "error": None, "usage": None}
)
ADDED = event(
    "response.output_item.added", output_index=0, item={"type": "message", "role": "assistant", "content": []}
)
PART = event("response.content_part.added", part={"type": "output_text", "text": ""})
DONE = [
    event("response.output_text.done", text="yes"),
    event("response.content_part.done", part={"type": "output_text", "text": "yes"}),
    event("response.output_item.done", item=ANSWER),
]


def decoded(*reads: bytes) -> list[Chunk]:
    """Return the chunks of a stream, without the empty ones."""
    found = dialects.get(NAME).decode(WireResponse(200, {"content-type": "text/event-stream"}, reads))
    return [chunk for _, chunk in found if chunk.kind is not ChunkKind.EMPTY]


def test_a_request() -> None:
    """Earlier turns come first; a reply is a list of parts."""
    asked = Request("b", 7, sampling={"temperature": 0.0, "top_p": 0.9}, history=(Turn("a", "r"),), stream=False)
    wire = dialects.get(NAME, {"store": False}).encode(asked, "m")
    assert wire.path == "/v1/responses"
    assert json.loads(wire.body) == {
        "model": "m",
        "max_output_tokens": 7,
        "stream": False,
        "store": False,
        "temperature": 0.0,
        "top_p": 0.9,
        "input": [
            {"role": "user", "content": "a"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "r"}]},
            {"role": "user", "content": "b"},
        ],
    }
    with pytest.raises(ValueError, match="openai-responses has no `stop`"):
        dialects.get(NAME).encode(Request("a", 7, sampling={"stop": ["x"]}), "m")


def test_a_stream() -> None:
    """Reasoning, answer and calls have their own kinds; texts that are repeated at the end count once."""
    call = event("response.output_item.added", item={"type": "function_call", "name": "f", "arguments": ""})
    found = decoded(
        CREATED,
        event("response.in_progress", response={"status": "in_progress"}),
        delta("reasoning_text", "hm"),
        delta("reasoning_summary_text", "so"),
        ADDED,
        PART,
        delta("output_text", "y"),
        delta("output_text", "es"),
        *DONE,
        call,
        delta("function_call_arguments", '{"x":1}'),
        event("response.function_call_arguments.done", arguments='{"x":1}', name="f"),
        end(),
    )
    assert found == [
        Chunk(ChunkKind.REASONING, "hm"),
        Chunk(ChunkKind.REASONING, "so"),
        Chunk(ChunkKind.ROLE),
        Chunk(ChunkKind.CONTENT, "y"),
        Chunk(ChunkKind.CONTENT, "es"),
        Chunk(ChunkKind.TOOL, "f"),
        Chunk(ChunkKind.TOOL, '{"x":1}'),
        COUNTS,
        Chunk(ChunkKind.FINISH, finish_reason="completed"),
    ]


def test_an_incomplete_response_has_its_reason() -> None:
    """The reply was cut at its length, and ended well."""
    reads = [
        CREATED,
        delta("output_text", "yes"),
        end("incomplete", incomplete_details={"reason": "max_output_tokens"}),
    ]
    record = record_of(reads, NAME)
    assert (record.status, record.finish_reason, record.output_tokens) == (Status.OK, "max_output_tokens", 9)
    assert (record.prompt_tokens, record.cached_tokens, record.reasoning_tokens) == (20, 16, 4)


def test_a_text_that_comes_with_the_last_event_alone() -> None:
    """It came in one piece, as from a cache."""
    assert decoded(CREATED, end()) == [
        Chunk(ChunkKind.CONTENT, "yes"), COUNTS, Chunk(ChunkKind.FINISH, finish_reason="completed"),
    ]  # fmt: skip


def test_a_whole_reply() -> None:
    """A single document holds output, counts and status."""
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}
    body = {"object": "response", "status": "completed", "error": None, "output": [thought, ANSWER], "usage": USAGE}
    record = record_of([json.dumps(body).encode()], NAME, "application/json", streams=False)
    assert (record.status, record.text, record.output_tokens) == (Status.OK, "hmyes", 9)
    assert record.first_token_ns is None


@pytest.mark.parametrize(
    "failure",
    [
        end("failed", error={"code": "server_error", "message": "engine died"}, output=[], usage=None),
        event("error", code="server_error", message="engine died", param=None),
        event("error", error={"type": "server_error", "message": "engine died"}),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_failure_in_mid_stream(failure: bytes, named: bool) -> None:
    """`response.failed` and `error`, with and without the event's name."""
    said = failure if named else failure.partition(b"\n")[2]
    record = record_of([CREATED, delta("output_text", "y"), said], NAME)
    assert (record.status, record.error) == (Status.STREAM_ERROR, "engine died")
    assert len(record.chunk_ns or ()) == 1


def test_an_error_before_the_stream() -> None:
    """The sentence of the JSON is told with the status."""
    body = json.dumps({"error": {"message": "no such model", "type": "invalid_request_error"}}).encode()
    (piece,) = dialects.get(NAME).decode(WireResponse(404, {"content-type": "application/json"}, [body]))
    assert piece.chunk == Chunk(ChunkKind.ERROR, "the server answered HTTP 404: no such model")


@pytest.mark.parametrize("cut", [None, Cut(Status.CONNECTION_ERROR, "the server closed the connection")])
def test_a_reply_that_is_cut_off(cut: Cut | None) -> None:
    """Without its last event it is truncated, even if the text was complete."""
    record = record_of([CREATED, ADDED, PART, delta("output_text", "yes"), *DONE], NAME, cut=cut)
    assert (record.status, record.output_tokens, record.token_source) == (Status.TRUNCATED, 1, "chunks")


def test_parts_without_text_are_passed_over() -> None:
    """Sound, transcripts and unknown events are no text, and no failure."""
    found = decoded(CREATED, event("response.audio.delta", delta="AAAA"), delta("output_text", "a"),
                    event("response.code_interpreter_call_code.done", code="print()"), end())  # fmt: skip
    assert [chunk.text for chunk in found if chunk.text] == ["a"]
