"""llama.cpp's own completion: requests as they are written down, replies event by event."""

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

NAME = "llamacpp-completion"
TIMINGS = {"cache_n": 6, "prompt_n": 2, "prompt_ms": 12.5, "predicted_n": 3, "predicted_ms": 40.25}
LAST = {"content": "", "tokens": [], "stop": True, "tokens_predicted": 3, "tokens_evaluated": 8, "tokens_cached": 10}
END = event({**LAST, "stop_type": "eos", "timings": TIMINGS})
ENDING = [
    Chunk(ChunkKind.USAGE, usage=Usage(8, 3, None, 6), reported={"prompt_ms": 12.5, "generation_ms": 40.25}),
    Chunk(ChunkKind.FINISH, finish_reason="eos"),
]


def piece(text: str, predicted: int, **rest: Any) -> bytes:
    """Return the event of a token."""
    count = {"tokens_predicted": predicted, "tokens_evaluated": 8}
    return event({"index": 0, "content": text, "tokens": [7], "stop": False, "id_slot": -1, **count, **rest})


def test_a_request() -> None:
    """An exact length ignores the end; the settings of the server's own keep their names."""
    asked = Request("hi", 7, exact=True, sampling={"temperature": 0.0, "seed": 1, "stop": ["x"]})
    wire = dialects.get(NAME, {"cache_prompt": False, "min_p": 0.1}).encode(asked, "m")
    assert wire.path == "/completion"
    assert json.loads(wire.body) == {
        "model": "m",
        "prompt": "hi",
        "n_predict": 7,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0.0,
        "seed": 1,
        "stop": ["x"],
        "cache_prompt": False,
        "min_p": 0.1,
    }
    assert json.loads(dialects.get(NAME).encode(Request((1, 2), 7, stream=False), None).body) == {
        "prompt": [1, 2],
        "n_predict": 7,
        "stream": False,
    }


def test_a_stream() -> None:
    """Each text has its tokens by the running count: a text that was held back has several."""
    record = record_of([piece("a", 1), piece(" b c", 3), END], NAME)
    assert (record.status, record.text, record.finish_reason) == (Status.OK, "a b c", "eos")
    assert (record.prompt_tokens, record.output_tokens, record.cached_tokens) == (8, 3, 6)
    assert record.chunk_tokens == [1, 2]
    assert (record.reported_prompt_ms, record.reported_generation_ms, record.reported_total_ms) == (12.5, 40.25, None)


def test_a_part_of_a_character_is_a_token_without_a_text() -> None:
    """It counts when it comes, so that the first token has its time."""
    record = record_of([piece("", 1), piece("ä", 2), piece("b", 3), END], NAME)
    assert (record.chunk_tokens, record.text) == ([1, 1, 1], "äb")


def test_a_whole_reply() -> None:
    """A single document holds text, counts, times and the reason of the end."""
    body = json.dumps({**LAST, "content": "a b", "stop_type": "limit", "timings": TIMINGS}).encode()
    record = record_of([body], NAME, "application/json", streams=False)
    assert (record.status, record.text, record.output_tokens) == (Status.OK, "a b", 3)
    assert (record.finish_reason, record.reported_prompt_ms, record.first_token_ns) == ("limit", 12.5, None)


def test_an_older_server_without_counts() -> None:
    """The reason of its end is a flag, and each chunk counts until the last event has the counts."""
    reads = [event({"content": " a", "stop": False}), event({"content": " b", "stop": False})]
    end = event({**LAST, "stopped_limit": True, "stopped_eos": False, "stopping_word": ""})
    record = record_of([*reads, end], NAME)
    assert (record.status, record.finish_reason, record.output_tokens) == (Status.OK, "limit", 3)
    assert (record.cached_tokens, record.reported_prompt_ms) == (None, None)


@pytest.mark.parametrize(
    "said",
    [
        event({"error": {"code": 500, "message": "out of memory", "type": "server_error"}}),
        b'error: {"code": 500, "message": "out of memory", "type": "server_error"}\n\n',
    ],
)
def test_a_failure_in_mid_stream(said: bytes) -> None:
    """As data, and as the field of older servers."""
    record = record_of([piece("a", 1), said], NAME)
    assert (record.status, record.error, record.output_tokens) == (Status.STREAM_ERROR, "out of memory", 1)


def test_an_error_before_the_stream() -> None:
    """The sentence of the JSON is told with the status."""
    body = json.dumps({"error": {"code": 400, "message": "the prompt is too long", "type": "x"}}).encode()
    (found,) = dialects.get(NAME).decode(WireResponse(400, {"content-type": "application/json"}, [body]))
    assert found.chunk == Chunk(ChunkKind.ERROR, "the server answered HTTP 400: the prompt is too long")


@pytest.mark.parametrize("cut", [None, Cut(Status.CONNECTION_ERROR, "the server closed the connection")])
def test_a_reply_that_is_cut_off(cut: Cut | None) -> None:
    """Its running count is what it has generated."""
    record = record_of([piece("a", 1), piece("b", 2)], NAME, cut=cut)
    assert (record.status, record.output_tokens, record.prompt_tokens) == (Status.TRUNCATED, 2, 8)
