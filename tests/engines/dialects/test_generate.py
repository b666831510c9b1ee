"""The two /generate APIs: requests as they are written down, replies as they are read."""

from __future__ import annotations

import json

import pytest

from engines import dialects
from engines.base import Chunk, ChunkKind, Request, Turn, Usage
from engines.dialects.base import WireResponse
from harness.drivers.stub import event

STREAM = {"content-type": "text/event-stream"}
DOCUMENT = {"content-type": "application/json"}
LINES = {"content-type": "application/x-ndjson"}
STATS = {
    "prompt_tokens": 3,
    "generated_tokens": 2,
    "total_time_ms": 812.5,
    "tokens_per_second": 2.5,
    "memory_peak_mb": 500,
}
REPORTED = {"total_ms": 812.5, "memory_peak_bytes": 500 * 2**20}


def decoded(name: str, *reads: bytes, status: int = 200, headers: dict[str, str] = STREAM) -> list[Chunk]:
    """The chunks of a response."""
    return [chunk for _, chunk in dialects.get(name).decode(WireResponse(status, headers, reads))]


def content(chunks: list[Chunk]) -> list[str]:
    """The texts that bear tokens."""
    return [chunk.text for chunk in chunks if chunk.kind is ChunkKind.CONTENT]


def test_a_request_with_statistics() -> None:
    """Length and sampling go into generation_config; the model has a name, and a stream a path, of its own."""
    dialect = dialects.get("generate-stats", {"generation_config": {"do_sample": True}, "user": "u"})
    request = Request("hi", 7, exact=True, sampling={"temperature": 0.5, "top_k": None})
    wire = dialect.encode(request, "gpt2")
    assert (wire.method, wire.path, wire.headers["accept"]) == ("POST", "/generate/stream", "text/event-stream")
    assert json.loads(wire.body) == {
        "prompt": "hi",
        "model_name": "gpt2",
        "stream": True,
        "user": "u",
        "generation_config": {"max_new_tokens": 7, "min_new_tokens": 7, "temperature": 0.5, "do_sample": True},
    }
    plain = dialect.encode(Request("hi", 7, stream=False), None)
    assert (plain.path, plain.headers["accept"]) == ("/generate", "application/json")
    assert "model_name" not in json.loads(plain.body)


def test_a_request_to_a_platform_with_backends() -> None:
    """The scenario adds the choice of backend; the conversation is one text; no length is exact."""
    dialect = dialects.get("generate-backend", {"backend": "vllm", "urgency": "high"})
    request = Request("and you?", 7, exact=True, sampling={"top_p": 0.9}, history=(Turn("hi", "ho"),))
    assert json.loads(dialect.encode(request, "unheard").body) == {
        "prompt": "hiho\n\nand you?",
        "max_tokens": 7,
        "top_p": 0.9,
        "stream": True,
        "backend": "vllm",
        "urgency": "high",
    }


def test_token_ids_and_unknown_sampling_are_refused() -> None:
    """Token ids, and sampling that they have no name for, are refused with what to do instead."""
    with pytest.raises(ValueError, match="generate-stats cannot carry token ids: use text prompts or"):
        dialects.get("generate-stats").encode(Request((1, 2), 7), None)
    with pytest.raises(ValueError, match="generate-backend has no `seed`: leave it out of `sampling`, or write it"):
        dialects.get("generate-backend").encode(Request("hi", 7, sampling={"seed": 1}), None)


@pytest.mark.parametrize(
    ("name", "added", "sentence"),
    [
        ("generate-backend", {"max_tokens": 9}, "`request` must not set `max_tokens`, which generate-backend sets"),
        ("generate-stats", {"generation_config": {"top_p": 1}}, "must not set `generation_config.top_p`"),
        ("generate-stats", {"generation_config": 3}, "`generation_config` in `request` must be a mapping"),
        ("openai-chat", {"temperature": 1}, "must not set `temperature`, which openai-chat sets from the scenario"),
        ("ollama-chat", {"options": {"seed": 1}}, "must not set `options.seed`"),
    ],
)
def test_fields_of_the_dialect_cannot_be_added(name: str, added: dict[str, object], sentence: str) -> None:
    """A second value for a key is refused before anything is sent."""
    with pytest.raises(ValueError, match=sentence):
        dialects.get(name, added)


def test_a_whole_reply_with_statistics() -> None:
    """Text, counts, the cache's flag, and the server's own figures in our units."""
    body = json.dumps({"generated_text": " a b", "prompt": "x", "generation_stats": STATS, "cached": True}).encode()
    assert decoded("generate-stats", body, headers=DOCUMENT) == [
        Chunk(ChunkKind.CONTENT, " a b"),
        Chunk(ChunkKind.USAGE, usage=Usage(3, 2), cached=True, reported=REPORTED),
        Chunk(ChunkKind.FINISH),
    ]


@pytest.mark.parametrize("key", ["token", "text"])
@pytest.mark.parametrize("headers", [STREAM, LINES])
def test_a_stream_with_statistics(key: str, headers: dict[str, str]) -> None:
    """Events or lines, with either name of the pieces; the last event brings the rest and may repeat the whole text."""
    told = [{key: " a"}, {key: " b"}, {"generation_stats": STATS, "cached": False, "generated_text": " a b"}]
    body = [event(one) if headers is STREAM else json.dumps(one).encode() + b"\n" for one in told]
    chunks = decoded("generate-stats", *body, headers=headers)
    assert content(chunks) == [" a", " b"]
    assert chunks[2:] == [
        Chunk(ChunkKind.USAGE, usage=Usage(3, 2), cached=False, reported=REPORTED),
        Chunk(ChunkKind.FINISH),
    ]


def test_a_cached_stream_may_come_in_one_piece() -> None:
    """A stream that holds nothing but the whole text is that text."""
    chunks = decoded("generate-stats", event({"generated_text": " a b", "cached": True, "done": True}))
    assert content(chunks) == [" a b"]
    assert [chunk.cached for chunk in chunks if chunk.kind is ChunkKind.USAGE] == [True]
    assert chunks[-1].kind is ChunkKind.FINISH


def test_a_reply_of_a_platform_with_backends() -> None:
    """A reply names the backend and its time, without token counts."""
    body = json.dumps(
        {"text": "hello", "backend_used": "vllm", "generation_time": 1.5, "tokens_per_second": 9}
    ).encode()
    assert decoded("generate-backend", body, headers=DOCUMENT) == [
        Chunk(ChunkKind.CONTENT, "hello"),
        Chunk(ChunkKind.FINISH, backend="vllm", reported={"total_ms": 1500.0}),
    ]


def test_a_stream_of_a_platform_with_backends() -> None:
    """Tokens, and an end that says no more than that it is the end."""
    chunks = decoded(
        "generate-backend", *(event({"token": text}) for text in (" a", " b", " c")), event({"done": True})
    )
    assert content(chunks) == [" a", " b", " c"]
    assert chunks[-1] == Chunk(ChunkKind.FINISH)


@pytest.mark.parametrize("name", ["generate-stats", "generate-backend"])
def test_errors(name: str) -> None:
    """Errors in mid-stream, as a status, as a page, and as unreadable data are found."""
    broken = decoded(name, event({"token": " a"}), event({"error": "out of memory"}))
    assert [chunk.kind for chunk in broken] == [ChunkKind.CONTENT, ChunkKind.ERROR]
    assert broken[-1].text == "out of memory"
    (refused,) = decoded(name, b'{"error": "no such backend"}', status=400, headers=DOCUMENT)
    assert refused.text == "the server answered HTTP 400: no such backend"
    assert decoded(name, b"<html>", headers={"content-type": "text/html"})[0].kind is ChunkKind.ERROR
    for strange in ({"token": 3}, ["token"]):
        assert decoded(name, event(strange))[0].kind is ChunkKind.UNREADABLE  # type: ignore[arg-type]
    assert decoded(name, event(7))[0].kind is ChunkKind.COMMENT  # type: ignore[arg-type]


def test_figures_that_are_none_are_left_out() -> None:
    """A count or a time that is no number, or impossible, is not known."""
    stats = {"prompt_tokens": "3", "generated_tokens": -1, "total_time_ms": True, "memory_peak_mb": None}
    (usage,) = (
        chunk for chunk in decoded("generate-stats", event({"generation_stats": stats})) if chunk.usage is not None
    )
    assert (usage.usage, usage.reported) == (Usage(None, None), None)
