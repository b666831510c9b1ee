"""The OpenAI dialects: requests as they are written down, replies as they are read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import dialects
from engines.base import Chunk, ChunkKind, EngineError, Request, Usage
from engines.dialects.base import WireResponse
from harness.drivers.stub import event
from tests.scripted_server import ending, piece

STREAM = {"content-type": "text/event-stream"}


def decoded(name: str, *reads: bytes, status: int = 200, headers: dict[str, str] | None = None) -> list[Chunk]:
    """The chunks of a response."""
    response = WireResponse(status, STREAM if headers is None else headers, reads)
    return [chunk for _, chunk in dialects.get(name).decode(response)]


def delta(**fields: object) -> bytes:
    """Return an event of a chat."""
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


def test_unknown_dialect() -> None:
    """An unknown name is one sentence that lists the known ones."""
    with pytest.raises(EngineError, match="openai-chat"):
        dialects.get("esperanto")


def test_completion_request() -> None:
    """Text or token ids, the length, exactness, sampling and the wish for usage are all on the wire."""
    request = Request((1, 2), 7, exact=True, sampling={"temperature": 0.5, "top_k": None, "seed": 3})
    wire = dialects.get("openai-completions").encode(request, "m")
    assert (wire.method, wire.path) == ("POST", "/v1/completions")
    assert wire.headers == {"content-type": "application/json", "accept": "text/event-stream"}
    assert json.loads(wire.body) == {
        "prompt": [1, 2],
        "model": "m",
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "min_tokens": 7,
        "temperature": 0.5,
        "seed": 3,
    }


def test_an_endpoint_adds_its_own_fields() -> None:
    """`unsaid` stands unless the scenario says otherwise; `exact` replaces the usual keys of exact lengths."""
    more = {"unsaid": {"top_k": 0, "min_p": 0.0}, "exact": {"ignore_eos": True}}
    wire = dialects.get("openai-completions", {"min_p": 0.1}, **more).encode(Request("hi", 7, exact=True), None)
    body = json.loads(wire.body)
    assert {key: body.get(key) for key in ("top_k", "min_p", "ignore_eos", "min_tokens")} == {
        "top_k": 0,
        "min_p": 0.1,
        "ignore_eos": True,
        "min_tokens": None,
    }


def test_chat_request() -> None:
    """A chat sends one user message; without a stream no stream options; token ids cannot be sent."""
    wire = dialects.get("openai-chat").encode(Request("hi", 7, stream=False), None)
    assert wire.headers["accept"] == "application/json"
    assert json.loads(wire.body) == {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 7,
        "stream": False,
    }
    with pytest.raises(ValueError, match="token ids"):
        dialects.get("openai-chat").encode(Request((1,), 7), None)


def test_chat_stream_kinds() -> None:
    """Role, empty, reasoning, content, tool, finish and usage are told apart."""
    body = (
        delta(role="assistant", content="")
        + delta(content="")
        + delta(reasoning_content="hm")
        + delta(reasoning="so")
        + delta(content="yes")
        + delta(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}])
        + event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        + event(
            {
                "choices": [],
                "usage": {
                    "prompt_tokens": 3,
                    "completion_tokens": 5,
                    "completion_tokens_details": {"reasoning_tokens": 2},
                    "prompt_tokens_details": {"cached_tokens": 1},
                },
            }
        )
        + event(b"[DONE]")
    )
    assert decoded("openai-chat", body) == [
        Chunk(ChunkKind.ROLE),
        Chunk(ChunkKind.EMPTY),
        Chunk(ChunkKind.REASONING, "hm"),
        Chunk(ChunkKind.REASONING, "so"),
        Chunk(ChunkKind.CONTENT, "yes"),
        Chunk(ChunkKind.TOOL, "f{}"),
        Chunk(ChunkKind.FINISH, finish_reason="stop"),
        Chunk(ChunkKind.USAGE, usage=Usage(3, 5, 2, 1)),
        Chunk(ChunkKind.FINISH),
    ]


@pytest.mark.parametrize(
    ("usage", "output"),
    [
        ({"completion_tokens": 5, "reasoning_tokens": 7, "total_tokens": 15}, 12),  # beside the reasoning
        ({"completion_tokens": 12, "reasoning_tokens": 7, "total_tokens": 15}, 12),  # with it
        ({"completion_tokens": 5, "reasoning_tokens": 7}, 5),
        ({"completion_tokens": 5, "total_tokens": 8}, 5),
    ],
)
def test_reasoning_is_part_of_the_output(usage: dict[str, int], output: int) -> None:
    """Some servers count it apart, which their total shows."""
    (found,) = decoded("openai-chat", event({"choices": [], "usage": {"prompt_tokens": 3, **usage}}))
    assert found == Chunk(ChunkKind.USAGE, usage=Usage(3, output, usage.get("reasoning_tokens")))


@pytest.mark.parametrize(
    "tokens", [{"token_ids": [7, 8]}, {"logprobs": {"content": [{}, {}]}}, {"logprobs": {"tokens": ["a", "b"]}}]
)
def test_a_choice_may_state_its_tokens(tokens: dict[str, object]) -> None:
    """By their ids or their probabilities; without text they are tokens all the same."""
    body = event({"choices": [{"text": "ab", **tokens}]}) + event({"choices": [{"text": "", **tokens}]})
    assert [(one.text, one.tokens) for one in decoded("openai-completions", body)] == [("ab", 2), ("", 2)]


def test_errors() -> None:
    """An error inside a good stream, a refusal and a web page are ERROR chunks with the server's words."""
    inside = decoded("openai-completions", piece() + event({"error": {"message": "out of memory"}}))
    assert inside[-1] == Chunk(ChunkKind.ERROR, "out of memory")
    refused = decoded("openai-completions", b'{"error": "no"}', status=400)
    assert refused == [Chunk(ChunkKind.ERROR, "the server answered HTTP 400: no")]
    page = decoded("openai-completions", b"<html>login</html>", headers={"content-type": "text/html"})
    assert page[0].kind is ChunkKind.ERROR
    assert "login" in page[0].text


def test_plain_json_without_a_stream() -> None:
    """A JSON document is read whole under any content type."""
    body = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
    for headers in ({"content-type": "application/json"}, {}):
        chunks = decoded("openai-chat", body[:9], body[9:], headers=headers)
        assert [chunk.kind for chunk in chunks] == [ChunkKind.CONTENT, ChunkKind.FINISH]


def test_an_event_belongs_to_the_read_that_completes_it() -> None:
    """The index is that of the read with the last byte."""
    one, two = piece(" a"), piece(" b")
    body = one + two
    reads = [body[:10], body[10 : len(one)], body[len(one) : -1], body[-1:]]
    found = dialects.get("openai-completions").decode(WireResponse(200, STREAM, reads))
    assert [(read, chunk.text) for read, chunk in found] == [(1, " a"), (3, " b")]


def test_an_event_without_its_end_is_complete_with_the_last_read() -> None:
    """Only the end of the body ends it, and that may bring no byte."""
    found = dialects.get("openai-completions").decode(WireResponse(200, STREAM, [piece(" a")[:-1], b""]))
    assert [(read, chunk.text) for read, chunk in found] == [(1, " a")]


def test_chunks_of_one_document_came_together() -> None:
    """All but the first are joined to the chunk before."""
    body = json.dumps({"choices": [{"message": {"reasoning": "hm", "content": "hi"}, "finish_reason": "stop"}]})
    found = dialects.get("openai-chat").decode(WireResponse(200, {}, [body.encode()]))
    assert (found.kinds, found.joined) == ([ChunkKind.REASONING, ChunkKind.CONTENT, ChunkKind.FINISH], [1, 2])


def test_half_an_event_at_the_end_is_no_error() -> None:
    """An incomplete event is ignored; a complete one without its blank line counts."""
    assert [chunk.text for chunk in decoded("openai-completions", piece(" a") + piece(" b")[:20])] == [" a"]
    assert [chunk.text for chunk in decoded("openai-completions", piece(" a") + piece(" b")[:-2])] == [" a", " b"]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=30), st.booleans())
def test_any_text_survives(texts: list[str], escaped: bool) -> None:
    """Any texts come out unchanged, in one read each or all in one."""
    events = [
        b"data: "
        + json.dumps({"id": "1", "choices": [{"index": 0, "text": text, "n": None}]}, ensure_ascii=escaped).encode(
            "utf-8", "surrogatepass"
        )
        + b"\n\n"
        for text in texts
    ]
    clean = [text.encode("utf-8", "ignore").decode() == text for text in texts]
    if all(clean):
        for reads in (events, [b"".join(events)]):
            chunks = decoded("openai-completions", *reads, ending())
            assert [chunk.text for chunk in chunks if chunk.kind is ChunkKind.CONTENT] == texts


@given(st.lists(st.sampled_from([piece(" a"), piece('q"'), piece("\\"), piece(""), piece(" b", "stop"), ending()])))
def test_short_cuts_agree_with_the_parser(events: list[bytes]) -> None:
    """Events read one after the other by one decoder are what a fresh decoder makes of each alone."""
    alone = [chunk for one in events for chunk in decoded("openai-completions", one)]
    assert decoded("openai-completions", *events) == alone


@pytest.mark.parametrize("name", ["openai-completions", "openai-chat"])
def test_a_priority_is_sent_where_there_is_one(name: str) -> None:
    """The priority is a whole number, including 0; without one the key is absent."""
    dialect = dialects.get(name)
    assert json.loads(dialect.encode(Request("x", 1, priority=0), None).body)["priority"] == 0
    assert "priority" not in json.loads(dialect.encode(Request("x", 1), None).body)
