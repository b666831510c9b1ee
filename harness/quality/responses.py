"""What replies look like: length, repetition, readability, words shared with the prompt. Descriptive only.

None of these says whether a reply is right. They show a model that repeats itself, breaks off or talks past its
prompt, and belong beside the figures of `harness.quality.figures`, not in their place.
"""

from __future__ import annotations

import asyncio
import http.client
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
    """One reply. characters, words: its length.   distinct_1, distinct_2: different words, pairs of neighbouring words,
    as a share of all (Li et al. 2016); near 0 it repeats itself.   flesch: reading ease, 206.835 - 1.015 words per
    sentence - 84.6 syllables per word (Flesch 1948), syllables counted as groups of vowels: for English only.
    overlap: share of the prompt's words, without the commonest, that the reply uses.   None: too short to tell.
    """

    characters: int
    words: int
    distinct_1: float | None
    distinct_2: float | None
    flesch: float | None
    overlap: float | None


def describe(reply: str, prompt: str | None = None) -> Response:
    """The figures of one reply."""
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
    """Different runs of n words / all of them; None where there is none."""
    runs = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(runs)) / len(runs) if runs else None


def flesch(text: str, words: Sequence[str]) -> float | None:
    """Reading ease; a text without an end of a sentence is one sentence."""
    if not words:
        return None
    sentences = max(1, len(_SENTENCE_END.findall(text)))
    return 206.835 - 1.015 * len(words) / sentences - 84.6 * sum(map(syllables, words)) / len(words)


def syllables(word: str) -> int:
    """Groups of vowels, a silent e at the end not counted; at least one."""
    groups = len(_VOWELS.findall(word))
    silent = groups > 1 and bool(_SILENT_E.search(word))
    return max(1, groups - silent)


def overlap(words: Sequence[str], prompt: str) -> float | None:
    """Share of the prompt's telling words that occur in the reply; None where the prompt has none."""
    wanted = {word.lower() for word in _WORD.findall(prompt)} - _COMMON
    return len(wanted & set(words)) / len(wanted) if wanted else None


def summary(found: Sequence[Response]) -> Mapping[str, Any]:
    """The means over replies, and how many there were; JSON-able."""
    names = list(asdict(Response(0, 0, None, None, None, None)))
    means = {}
    for name in names:
        values = [getattr(one, name) for one in found if getattr(one, name) is not None]
        means[name] = fmean(values) if values else None
    return {"replies": len(found), **means}


async def responses_of(engine: Engine, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """Greedy replies to a few prompts, described; or under `reason` why there are none."""
    found = []
    for ids in prompts[:PROMPTS]:
        request = Request(tuple(ids), TOKENS, sampling={"temperature": 0}, stream=False)
        try:
            reply = await asyncio.wait_for(_reply(engine, request), TIMEOUT_S)
        except Exception as error:  # descriptive only: whatever it is, the figures of quality stand
            return {"reason": f"no reply could be had: {type(error).__name__}: {error}"}
        found.append(describe(reply, None if tokenizer is None else tokenizer.decode(list(ids))))
    return dict(summary(found))


async def _reply(engine: Engine, request: Request) -> str:
    if isinstance(engine, ServedEngine):
        return await asyncio.to_thread(_fetched, engine.endpoint(), request)
    assert isinstance(engine, InProcessEngine)
    return _text([chunk async for chunk in engine.generate(request)])


def _fetched(endpoint: Endpoint, request: Request) -> str:
    """From a server of our own; no proxy may come between."""
    if not endpoint.url.startswith("http://") or endpoint.tls:
        raise ValueError("only servers reached by plain HTTP are asked for replies")
    host, _, base = endpoint.url.removeprefix("http://").partition("/")
    wire = dialect_of(endpoint)
    asked = wire.encode(request, endpoint.model)
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT_S)
    try:
        path = f"/{base.strip('/')}{asked.path}" if base.strip("/") else asked.path
        connection.request(asked.method, path, asked.body, {**asked.headers, **endpoint.headers})
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
