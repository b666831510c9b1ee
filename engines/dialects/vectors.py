"""Dialects without output tokens: `POST /v1/embeddings`, and `POST /v1/rerank` as llama.cpp, vLLM and Jina serve it.

A reply is one document and never a stream. The prompt's tokens are counted by `usage`. Lengths, sampling and streaming
of the scenario have no effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from engines.base import Chunk, ChunkKind, Request
from engines.dialects.answers import NOTHING, mapping_at, usage_of
from engines.dialects.base import WireRequest
from engines.dialects.body import EventDialect, post

DOCUMENTS = 8
_QUERY_WORDS = 16


class _Vectors(EventDialect):
    """Common part.

    Attributes:
        result: Key of the list in a reply.
    """

    generates = False
    result: str

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        if not isinstance(event.get(self.result), list) or not event[self.result]:
            return []
        usage = mapping_at(event, "usage")
        counts, note = usage_of(usage.get("prompt_tokens", usage.get("total_tokens")), None)
        return [Chunk(ChunkKind.USAGE, note, usage=counts), Chunk(ChunkKind.FINISH)]

    def _post(self, path: str, body: dict[str, Any], model: str | None) -> WireRequest:
        return post(path, body | ({} if model is None else {"model": model}), self._added, "application/json")


class OpenAIEmbeddings(_Vectors):
    """`POST /v1/embeddings`: one text or list of token ids a request."""

    name = "openai-embeddings"
    own = frozenset({"model", "input"})
    result = "data"

    def encode(self, request: Request, model: str | None) -> WireRequest:
        prompt = request.transcript
        return self._post("/v1/embeddings", {"input": prompt if isinstance(prompt, str) else list(prompt)}, model)


class Rerank(_Vectors):
    """`POST /v1/rerank`: a query and documents, which are parts of the prompt.

    A prompt of several lines, such as one from a file, is a query and a document a line. A prompt of one line is cut at
    its words: up to 16 are the query, the others make documents of equal length. Their number is `documents` in the
    scenario's `request`, 8 if absent. A list there has the documents themselves, and the whole prompt is the query.
    """

    name = "rerank"
    own = frozenset({"model", "query", "documents"})
    result = "results"

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        """Raise ValueError as `EventDialect`, and for `documents` that are no number and no texts."""
        super().__init__({name: value for name, value in added.items() if name != "documents"})
        given = added.get("documents", DOCUMENTS)
        is_number = isinstance(given, int) and not isinstance(given, bool) and given > 0
        is_texts = isinstance(given, list) and given and all(isinstance(one, str) for one in given)
        if not is_number and not is_texts:
            raise ValueError("`documents` in `request` must be a number from 1 or a list of texts for rerank")
        self._documents = given

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request. Raises ValueError for token ids."""
        text = self.text_of(request)
        if isinstance(self._documents, list):
            query, documents = text, self._documents
        else:
            query, *documents = [line for line in text.splitlines() if line.strip()] or [""]
            if not documents:
                query, *documents = _parts(text.split(), self._documents)
        return self._post("/v1/rerank", {"query": query, "documents": documents}, model)


def _parts(words: list[str], documents: int) -> Iterator[str]:
    """Yield query and documents of some words. With too few words a document repeats the last one."""
    length = max(min(_QUERY_WORDS, len(words) // (documents + 1)), 1)
    yield " ".join(words[:length])
    rest = words[length:]
    for number in range(documents):
        part = rest[len(rest) * number // documents : len(rest) * (number + 1) // documents]
        yield " ".join(part or words[-1:])
