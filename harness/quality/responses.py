"""Descriptive figures of replies: length, repetition, readability, words shared with the prompt.

They do not measure correctness. They reveal a model that repeats itself, ends early or ignores its prompt.
"""

from __future__ import annotations

import asyncio
import http.client
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import fmean
from typing import Any

from engines.base import TOKEN_BEARING, Chunk, ChunkKind, Endpoint, Engine, InProcessEngine, Request, ServedEngine
from engines.dialects import of as dialect_of
from engines.dialects.base import WireResponse
from engines.models.tokenizer import Tokenizer

PROMPTS = 4
TOKENS = 128
TIMEOUT_S = 120.0
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT_E = re.compile(r"(?<![eaiouy])(?<![^aeiouy]l)e$")
_COMMON_WORDS = (
    "a an and are as at be been but by for from had has have he her him his i in is it its me my no not of on or our "
    "she so than that the their them then there they this to was we were what when which who will with you your"
)
_COMMON = frozenset(_COMMON_WORDS.split())


@dataclass(frozen=True, slots=True)
class Response:
    """Figures of one reply; None if it is too short."""

    characters: int
    words: int
    distinct_1: float | None  # share of different words (Li et al. 2016); near 0 the reply repeats itself
    distinct_2: float | None  # share of different pairs of neighbouring words
    flesch: float | None
    overlap: float | None


def describe(reply: str, prompt: str | None = None) -> Response:
    """Return the figures of one reply."""
    words = [word.lower() for word in _WORD.findall(reply)]
    return Response(
        characters=len(reply),
        words=len(words),
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        flesch=flesch(reply, words),
        overlap=None if prompt is None else overlap(words, prompt),
    )


def distinct(words: Sequence[str], n: int) -> float | None:
    """Return different runs of n words / all of them; None if there are none."""
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) if runs else None


def flesch(text: str, words: Sequence[str]) -> float | None:
    """Return the reading ease: 206.835 - 1.015 words per sentence - 84.6 syllables per word (Flesch 1948, English).

    A text without an end of a sentence is one sentence.
    """
    if not words:
        return None
    sentences = max(1, len(_SENTENCE_END.findall(text)))
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * sum(map(syllables, words)) / len(words)


def syllables(word: str) -> int:
    """Count groups of vowels without a silent e at the end; at least one."""
    return max(1, len(_VOWELS.findall(word)) - bool(_SILENT_E.search(word)))


def overlap(words: Sequence[str], prompt: str) -> float | None:
    """Return the share of the prompt's words, without common ones, that the reply uses; None if there are none."""
    wanted = {word.lower() for word in _WORD.findall(prompt)} - _COMMON
    return len(wanted & set(words)) / len(wanted) if wanted else None


def summary(found: Sequence[Response]) -> Mapping[str, Any]:
    """Return the means over replies and their number; JSON-able."""
    means = {}
    for one in fields(Response):
        values = [value for reply in found if (value := getattr(reply, one.name)) is not None]
        means[one.name] = fmean(values) if values else None
    return {"replies": len(found), **means}


async def responses_of(engine: Engine, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Describe greedy replies to a few prompts; `reason` says why there are none."""
    found = []
    for ids in prompts[:PROMPTS]:
        request = Request(tuple(ids), TOKENS, sampling={"temperature": 0}, stream=False)
        try:
            reply = await asyncio.wait_for(_reply(engine, request), TIMEOUT_S)
        except Exception as error:  # the figures of quality stay
            return {"reason": f"no reply: {type(error).__name__}: {error}"}
        found.append(describe(reply, None if tokenizer is None else tokenizer.decode(list(ids))))
    return dict(summary(found))


async def _reply(engine: Engine, request: Request) -> str:
    if isinstance(engine, ServedEngine):
        return await asyncio.to_thread(_fetched, engine.endpoint(), request)
    assert isinstance(engine, InProcessEngine)
    return _text([chunk async for chunk in engine.generate(request)])


def _fetched(endpoint: Endpoint, request: Request) -> str:
    """Fetch a reply from a local server, without a proxy."""
    if not endpoint.url.startswith("http://") or endpoint.tls:
        raise ValueError("replies are requested over plain HTTP only")
    host, _, base = endpoint.url.removeprefix("http://").partition("/")
    wire = dialect_of(endpoint)
    wire_request = wire.encode(request, endpoint.model)
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    try:
        path = f"/{base.strip('/')}{wire_request.path}" if base.strip("/") else wire_request.path
        connection.request(wire_request.method, path, wire_request.body, {**wire_request.headers, **endpoint.headers})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    chunks = wire.decode(WireResponse(answer.status, headers, [body])).chunks
    failure = next((chunk.text for chunk in chunks if chunk.kind is ChunkKind.ERROR), None)
    if failure is not None:
        raise ValueError(failure)
    return _text(chunks)


def _text(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.kind in TOKEN_BEARING)
