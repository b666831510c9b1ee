"""Text Generation Inference's API: requests as they are written down, replies token by token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engines import dialects
from engines.base import Chunk, ChunkKind, Request, Usage
from engines.dialects.base import WireResponse
from harness.drivers.outcome import Cut
from harness.drivers.stub import event
from harness.records import Status
from tests.replied import record_of

DETAILS = {"finish_reason": "eos_token", "generated_tokens": 3, "seed": None, "input_length": 5}


def token(text: str, *, special: bool = False, **rest: Any) -> bytes:
    """Return the event of a token."""
    one = {"id": 7, "text": text, "logprob": -0.25, "special": special}
    return event({"index": 1, "token": one, "generated_text": None, "details": None, **rest})


STREAM = [token("a"), token(" b"), token("</s>", special=True, generated_text="a b", details=DETAILS)]


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        ({"temperature": 0.0, "top_p": 1.0, "top_k": 0}, {"do_sample": False}),
        ({"temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 1, "stop": ["x"]},
         {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 1, "stop": ["x"]}),
        ({}, {}),
    ],
)  # fmt: skip
def test_a_request(sampling: dict[str, Any], sent: dict[str, Any]) -> None:
    """TGI refuses a temperature of 0, a `top_p` of 1 and a `top_k` of 0, so that they are left out."""
    wire = dialects.get("tgi", {"parameters": {"watermark": True}}).encode(Request("hi", 7, sampling=sampling), "m")
    assert wire.path == "/generate_stream"
    parameters = {"max_new_tokens": 7, "details": True, "watermark": True, **sent}
    assert json.loads(wire.body) == {"inputs": "hi", "parameters": parameters}
    assert dialects.get("tgi").encode(Request("hi", 7, stream=False), "m").path == "/generate"


def test_a_stream() -> None:
    """Each event is a token; the one that ends the reply has no text, and the counts come with it."""
    found = dialects.get("tgi").decode(WireResponse(200, {"content-type": "text/event-stream"}, STREAM))
    assert [chunk for _, chunk in found] == [
        Chunk(ChunkKind.CONTENT, "a", 1),
        Chunk(ChunkKind.CONTENT, " b", 1),
        Chunk(ChunkKind.CONTENT, "", 1),
        Chunk(ChunkKind.USAGE, usage=Usage(5, 3)),
        Chunk(ChunkKind.FINISH, finish_reason="eos_token"),
    ]
    record = record_of(STREAM, "tgi")
    assert (record.status, record.text, record.output_tokens) == (Status.OK, "a b", 3)


def test_the_text_counts_once() -> None:
    """`generated_text` repeats what the tokens said."""
    last = token(" b", generated_text="a b", details={**DETAILS, "finish_reason": "length", "generated_tokens": 2})
    record = record_of([token("a"), last], "tgi")
    assert (record.text, record.output_tokens, record.finish_reason) == ("a b", 2, "length")


def test_a_whole_reply() -> None:
    """The prompt's tokens and the server's own time stand in the head."""
    body = json.dumps({"generated_text": "a b", "details": {**DETAILS, "prefill": [], "tokens": []}}).encode()
    head = {"content-type": "application/json", "x-prompt-tokens": "5", "x-total-time": "250"}
    found = [chunk for _, chunk in dialects.get("tgi").decode(WireResponse(200, head, [body]))]
    assert found[0] == Chunk(ChunkKind.CONTENT, "a b")
    assert found[-1] == Chunk(ChunkKind.USAGE, usage=Usage(5), reported={"total_ms": 250.0})
    record = record_of([json.dumps([{"generated_text": "a b"}]).encode()], "tgi", "application/json", streams=False)
    assert (record.status, record.text) == (Status.OK, "a b")


def test_a_failure_in_mid_stream() -> None:
    """The server's sentence, not the kind of the error."""
    said = event({"error": "Request failed during generation: out of memory", "error_type": "generation"})
    record = record_of([token("a"), said], "tgi")
    assert (record.status, record.error) == (Status.STREAM_ERROR, "Request failed during generation: out of memory")
    assert record.chunk_tokens == [1]


def test_an_error_before_the_stream() -> None:
    """The sentence of the JSON is told with the status."""
    body = json.dumps({"error": "`inputs` must have less than 512 tokens", "error_type": "validation"}).encode()
    (piece,) = dialects.get("tgi").decode(WireResponse(422, {"x-prompt-tokens": "5"}, [body]))
    assert piece.chunk == Chunk(
        ChunkKind.ERROR, "the server answered HTTP 422: `inputs` must have less than 512 tokens"
    )


@pytest.mark.parametrize("cut", [None, Cut(Status.CONNECTION_ERROR, "the server closed the connection")])
def test_a_reply_that_is_cut_off(cut: Cut | None) -> None:
    """Without the event that ends it, it is truncated, and its tokens are counted."""
    record = record_of(STREAM[:2], "tgi", cut=cut)
    assert (record.status, record.output_tokens, record.token_source) == (Status.TRUNCATED, 2, "engine")


@pytest.mark.parametrize("text", ["-1", "²", "1e3", "", "9999999999999"])
def test_numbers_of_the_head_that_are_none(text: str) -> None:
    """They are unknown."""
    head = {"content-type": "application/json", "x-prompt-tokens": text}
    found = dialects.get("tgi").decode(WireResponse(200, head, [b'{"generated_text": "a"}']))
    assert ChunkKind.USAGE not in found.kinds
