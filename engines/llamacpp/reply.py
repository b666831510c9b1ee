"""Reply of a model in this process: from a request to chunks, one for each token."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from engines.base import Chunk, ChunkKind, Request, Usage
from engines.llamacpp.native import NativeModel, Sampling
from engines.text import TokenText, stop_strings

_Content = Generator[Chunk, None, tuple[int, str | None]]


def reply(model: NativeModel, request: Request, go_on: Callable[[], bool], *, prefix_cache: bool) -> Iterator[Chunk]:
    """Generate a reply. Every token is yielded before the next one is computed.

    The end-of-sequence token has no text but is counted, as llama.cpp's server counts it.

    Args:
        go_on: Called before each token and each batch of the prompt. The reply ends without a finish if it returns
            False.

    Raises:
        EngineError: If llama.cpp fails.
        ValueError: For a conversation of token ids.
    """
    prompt = request.transcript
    ids = model.tokenize(prompt, special=True) if isinstance(prompt, str) else list(prompt)
    if why := _refusal(model, ids):
        yield Chunk(ChunkKind.ERROR, why)
        return
    cached = model.reuse(ids) if prefix_cache else 0
    if not prefix_cache:
        model.clear()
    sampler = model.sampler(sampling_of(request))
    try:
        if not model.feed(ids[cached:], go_on):
            return
        chunks = _tokens(model, sampler, request, len(ids), go_on)
        if request.stream:
            count, finish = yield from chunks
        else:
            count, finish, text = _all_at_once(chunks)
            if finish is not None:
                yield Chunk(ChunkKind.CONTENT, text, tokens=count)
    finally:
        model.free_sampler(sampler)
    if finish is not None:
        yield Chunk(ChunkKind.FINISH, finish_reason=finish)
        yield Chunk(ChunkKind.USAGE, usage=Usage(len(ids), count, cached_tokens=cached))


def sampling_of(request: Request) -> Sampling:
    """Return the sampling settings of a request."""
    names, given = ("temperature", "top_k", "top_p", "seed"), request.sampling
    return Sampling(**{name: given[name] for name in names if given.get(name) is not None}, exact=request.exact)


def _refusal(model: NativeModel, ids: list[int]) -> str | None:
    if not ids:
        return "the prompt is empty; llama.cpp needs at least one token"
    if len(ids) >= model.context_tokens:
        return f"the prompt has {len(ids)} tokens, the context {model.context_tokens}; raise n_ctx"
    if max(ids) >= model.vocabulary_tokens or min(ids) < 0:
        return f"the prompt has token ids beyond the model's vocabulary of {model.vocabulary_tokens}"
    return None


def _tokens(
    model: NativeModel, sampler: Any, request: Request, prompt_tokens: int, go_on: Callable[[], bool]
) -> _Content:
    """Yield chunks of content. Return the number of tokens and the finish reason, None if `go_on` ended it."""
    text = TokenText(stop_strings(request))
    most = min(request.max_tokens, model.context_tokens - prompt_tokens)
    finish: str | None = "length"
    count = 0
    while count < most:
        if count and not go_on():
            return count, None
        token = model.sample(sampler)
        count += 1
        if token in model.ends:
            finish = "stop"
            break
        if (chunk := text.push(model.piece(token))) is not None:
            yield chunk
        if text.stopped:
            finish = "stop"
            break
        if count < most:
            model.feed_one(token)
    if (chunk := text.finish()) is not None:
        yield chunk
    return count, finish


def _all_at_once(chunks: _Content) -> tuple[int, str | None, str]:
    texts = []
    while True:
        try:
            texts.append(next(chunks).text)
        except StopIteration as end:
            return (*end.value, "".join(texts))
