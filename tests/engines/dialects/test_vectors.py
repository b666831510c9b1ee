"""Embeddings and rankings: requests as they are written down, and replies without tokens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import dialects
from engines.base import Request
from harness.drivers.outcome import Cut
from harness.records import Record, Status
from tests.replied import record_of

EMBEDDING = {"object": "list", "data": [{"index": 0, "embedding": [0.1, -0.2]}], "usage": {"prompt_tokens": 5}}
RANKING = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
USAGES = [
    ({"prompt_tokens": 5, "total_tokens": 5}, 5),
    ({"total_tokens": 5}, 5),
    ({}, None),
    ({"prompt_tokens": "5"}, None),
]


def sent(name: str, prompt: Any, **added: Any) -> Any:
    """Return the body of a request."""
    return json.loads(dialects.get(name, added).encode(Request(prompt, 7, exact=True, sampling={"seed": 1}), "m").body)


def reply(name: str, body: object, **rest: Any) -> Record:
    """Return the record of a reply."""
    return record_of([json.dumps(body).encode()], name, "application/json", **rest)


def test_an_embedding_is_requested() -> None:
    """Text or token ids; lengths and sampling are not sent."""
    assert sent("openai-embeddings", "hi", dimensions=256) == {"model": "m", "input": "hi", "dimensions": 256}
    assert sent("openai-embeddings", (1, 2)) == {"model": "m", "input": [1, 2]}


def test_a_generated_prompt_is_cut_into_query_and_documents() -> None:
    """Sixteen words are the query; the documents have equal parts of the rest, each word once."""
    words = [f"w{n}" for n in range(100)]
    body = sent("rerank", " ".join(words), documents=3)
    assert body["query"].split() == words[:16]
    assert [len(one.split()) for one in body["documents"]] == [28, 28, 28]
    assert " ".join([body["query"], *body["documents"]]).split() == words
    assert len(sent("rerank", " ".join(words))["documents"]) == 8


def test_lines_of_a_prompt_are_query_and_documents() -> None:
    """As a file of prompts has them."""
    body = sent("rerank", "which?\nthis one\n\nor that\n", top_n=1)
    assert body == {"model": "m", "query": "which?", "documents": ["this one", "or that"], "top_n": 1}


def test_the_scenario_may_have_the_documents() -> None:
    """Then the whole prompt is the query."""
    body = sent("rerank", "which of\nthem?", documents=["a", "b"])
    assert (body["query"], body["documents"]) == ("which of\nthem?", ["a", "b"])


@given(st.text(), st.integers(1, 20))
def test_any_prompt_has_a_query_and_documents(prompt: str, documents: int) -> None:
    """The request can always be made; a short prompt repeats its last word."""
    body = sent("rerank", prompt, documents=documents)
    assert isinstance(body["query"], str)
    assert body["documents"]


@pytest.mark.parametrize("documents", [0, -1, True, 1.5, "a", [], [1]])
def test_documents_that_are_none(documents: Any) -> None:
    """The message names the key and what to write."""
    with pytest.raises(ValueError, match="`documents` in `request` must be a number from 1 or a list of texts"):
        dialects.get("rerank", {"documents": documents})


@pytest.mark.parametrize(("usage", "tokens"), USAGES)
@pytest.mark.parametrize(("name", "body"), [("openai-embeddings", EMBEDDING), ("rerank", RANKING)])
def test_a_reply_succeeds_without_tokens(name: str, body: dict[str, Any], usage: Any, tokens: int | None) -> None:
    """The prompt's tokens are those of the usage, and nothing is known of an output, not even 0."""
    record = reply(name, {**body, "usage": usage})
    assert (record.status, record.error, record.prompt_tokens) == (Status.OK, None, tokens)
    assert (record.output_tokens, record.token_source, record.first_token_ns) == (None, None, None)


@pytest.mark.parametrize("name", ["openai-embeddings", "rerank"])
@pytest.mark.parametrize("body", [{"data": [], "results": []}, {}, {"object": "list"}])
def test_a_reply_without_a_result_is_empty(name: str, body: dict[str, Any]) -> None:
    """It is no success."""
    assert (reply(name, body).status, reply(name, body).error) == (Status.EMPTY, "the reply contains no result")


@pytest.mark.parametrize("name", ["openai-embeddings", "rerank"])
def test_failures(name: str) -> None:
    """A failure of status 200 has the server's sentence; half a reply is cut off."""
    record = reply(name, {"error": {"message": "out of memory"}})
    assert (record.status, record.error) == (Status.STREAM_ERROR, "out of memory")
    half = [json.dumps(EMBEDDING if name == "openai-embeddings" else RANKING).encode()[:-9]]
    cut = Cut(Status.CONNECTION_ERROR, "the server closed the connection")
    assert record_of(half, name, "application/json", cut=cut).status is Status.TRUNCATED
