"""llama.cpp's own API: `POST /completion`, streaming and not.

The prompt is text or token ids. Exact lengths are sent as `ignore_eos`. Each event of a stream has the running count
`tokens_predicted`. The last one has the reason of the end (`stop_type`) and the server's own times under `timings`.
`tokens_evaluated` counts the whole prompt, `timings.cache_n` the part of it that came from the cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from engines.base import Chunk, ChunkKind, Request
from engines.dialects.answers import amount_at, mapping_at, piece, pieces_of, reported_of, usage_of
from engines.dialects.base import WireRequest
from engines.dialects.body import SAMPLING, EventDialect, post
from engines.dialects.failures import ending

_OLD_STOPS = {"stopped_eos": "eos", "stopped_limit": "limit", "stopped_word": "word"}


class LlamaCppCompletion(EventDialect):
    """`POST /completion`: a conversation is one text (`Request.transcript`)."""

    name = "llamacpp-completion"
    own = frozenset({"model", "prompt", "n_predict", "stream", "ignore_eos", *SAMPLING})

    def encode(self, request: Request, model: str | None) -> WireRequest:
        prompt = request.transcript
        body: dict[str, Any] = {"prompt": prompt if isinstance(prompt, str) else list(prompt)}
        body |= {"n_predict": request.max_tokens, "stream": request.stream} | self.sampling_of(request)
        body |= ({"ignore_eos": True} if request.exact else {}) | ({} if model is None else {"model": model})
        return post("/completion", body, self._added, "text/event-stream" if request.stream else "application/json")

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        if "content" not in event:
            return []
        text = event["content"]
        found = [piece(ChunkKind.CONTENT, text)] if text and type(text) is str else pieces_of(text)
        if event.get("stop") is not True:
            return [*(found or [Chunk(ChunkKind.EMPTY)]), *_running(event)]
        timings = mapping_at(event, "timings")
        prompt, output = event.get("tokens_evaluated"), event.get("tokens_predicted")
        counts, note = usage_of(prompt, output, None, timings.get("cache_n"))
        reported = reported_of(
            prompt_ms=amount_at(timings, "prompt_ms"), generation_ms=amount_at(timings, "predicted_ms")
        )
        return [*found, Chunk(ChunkKind.USAGE, note, usage=counts, reported=reported), *_end(event)]


def _running(event: Mapping[str, Any]) -> list[Chunk]:
    """Return the chunk of the running counts; [] if there are none."""
    prompt, output = event.get("tokens_evaluated"), event.get("tokens_predicted")
    if type(prompt) is int and type(output) is int:
        return [_counts(prompt, output)]
    if output is None:
        return []
    counts, note = usage_of(prompt, output)
    return [Chunk(ChunkKind.USAGE, note, usage=counts)]


@lru_cache(maxsize=20_000)
def _counts(prompt: int, output: int) -> Chunk:
    """Return the chunk of some counts. Few differ, and a lookup is cheaper than new objects."""
    counts, note = usage_of(prompt, output)
    return Chunk(ChunkKind.USAGE, note, usage=counts)


def _end(event: Mapping[str, Any]) -> list[Chunk]:
    """Return the end with its reason, which older versions state as flags."""
    reason = event.get("stop_type") or next((word for flag, word in _OLD_STOPS.items() if event.get(flag) is True), "")
    return ending(reason) or [Chunk(ChunkKind.FINISH)]
