"""Two APIs with `POST /generate` and `POST /generate/stream`, and little else in common.

`generate-stats`: {prompt, model_name, generation_config, stream} -> {generated_text, generation_stats {prompt_tokens,
generated_tokens, total_time_ms, tokens_per_second, memory_peak_mb}, cached}. `generate-backend`: {prompt, max_tokens,
temperature, top_p, stream}, with `backend` and `urgency` if the scenario adds them -> {text, backend_used,
generation_time, tokens_per_second}, without token counts.

A stream is server-sent events, or JSON lines if its content type says ndjson. An event is a piece {"token": text} or
{"text": text}, an end ({"done": true}, `generation_stats` or [DONE]), or a failure {"error": sentence}. Any event may
also hold other fields of a whole reply. If a stream has no pieces and its last event holds the whole text, as from a
result cache, the text came in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engines.base import Chunk, ChunkKind, Request
from engines.dialects.answers import amount_at, mapping_at, pieces_of, reported_of, text_at, usage_of
from engines.dialects.base import Pieces, WireRequest, WireResponse
from engines.dialects.body import NOTHING, SAMPLING, check_added, post, sampling_of, text_of
from engines.dialects.events import EventDecoder
from engines.dialects.failures import ending

BYTES_PER_MB = 2**20
_PIECES = ("token", "text")


class GenerateStats:
    """API with statistics.

    Lengths and sampling go into `generation_config`, under the names of transformers' GenerationConfig
    (`max_new_tokens`, and `min_new_tokens` for exact lengths). A MB of `memory_peak_mb` is read as 2^20 bytes.
    """

    name = "generate-stats"
    own = frozenset(
        {"prompt", "model_name", "stream"}
        | {f"generation_config.{name}" for name in ("max_new_tokens", "min_new_tokens", *SAMPLING)}
    )

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        check_added(added, self.own, self.name)
        self._added = added
        self._events = EventDecoder(lambda event: _stats_chunks(event, _PIECES))
        self._whole = EventDecoder(lambda event: _stats_chunks(event, (*_PIECES, "generated_text")))

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request. Raises ValueError for token ids."""
        config = {"max_new_tokens": request.max_tokens} | sampling_of(request, SAMPLING, self.name)
        if request.exact:
            config["min_new_tokens"] = request.max_tokens
        body: dict[str, Any] = {"prompt": text_of(request, self.name), "generation_config": config}
        return _post(body | ({} if model is None else {"model_name": model}), request, self._added)

    def decode(self, response: WireResponse) -> Pieces:
        return _decode(response, self._events, self._whole)


class GenerateBackend:
    """API that names the backend that answered. It has no exact lengths; times are in seconds."""

    name = "generate-backend"
    sampling = ("temperature", "top_p")
    own = frozenset({"prompt", "max_tokens", "stream", *sampling})

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        check_added(added, self.own, self.name)
        self._added = added
        self._events = EventDecoder(lambda event: _backend_chunks(event, ("token",)))
        self._whole = EventDecoder(lambda event: _backend_chunks(event, _PIECES))

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request; the API knows no models. Raises ValueError for token ids, top_k, seed and stop."""
        body = {"prompt": text_of(request, self.name), "max_tokens": request.max_tokens}
        return _post(body | sampling_of(request, self.sampling, self.name), request, self._added)

    def decode(self, response: WireResponse) -> Pieces:
        return _decode(response, self._events, self._whole)


def _post(body: Mapping[str, Any], request: Request, added: Mapping[str, Any]) -> WireRequest:
    path, accept = ("/generate/stream", "text/event-stream") if request.stream else ("/generate", "application/json")
    return post(path, {**body, "stream": request.stream}, added, accept)


def _decode(response: WireResponse, events: EventDecoder, whole: EventDecoder) -> Pieces:
    """Decode a stream by its pieces, and a whole reply or a stream without pieces by its text."""
    found = events.answer(response)
    if any(kind in (ChunkKind.CONTENT, ChunkKind.ERROR) for kind in found.kinds):
        return found
    return whole.answer(response)


def _stats_chunks(event: Mapping[str, Any], texts: tuple[str, ...]) -> list[Chunk]:
    found = _texts(event, texts)
    stats, cached = mapping_at(event, "generation_stats"), event.get("cached")
    if stats or isinstance(cached, bool):
        counts, note = usage_of(stats.get("prompt_tokens"), stats.get("generated_tokens"))
        reported = reported_of(
            total_ms=amount_at(stats, "total_time_ms"),
            memory_peak_bytes=amount_at(stats, "memory_peak_mb", BYTES_PER_MB),
        )
        known = cached if isinstance(cached, bool) else None
        found.append(Chunk(ChunkKind.USAGE, note, usage=counts if stats else None, cached=known, reported=reported))
    if stats or event.get("done") is True:
        found += ending(event.get("finish_reason")) or [Chunk(ChunkKind.FINISH)]
    return found


def _backend_chunks(event: Mapping[str, Any], texts: tuple[str, ...]) -> list[Chunk]:
    found = _texts(event, texts)
    backend = text_at(event, "backend_used") or None
    reported = reported_of(total_ms=amount_at(event, "generation_time", 1000))
    if event.get("done") is True or reported is not None:
        end = ending(event.get("finish_reason")) or [Chunk(ChunkKind.FINISH)]
        found += [replace(chunk, backend=backend, reported=reported) for chunk in end]
    elif backend is not None:
        found.append(Chunk(ChunkKind.EMPTY, backend=backend))
    return found


def _texts(event: Mapping[str, Any], names: tuple[str, ...]) -> list[Chunk]:
    """Return the pieces in the first non-empty value at these names."""
    return next((pieces_of(event[name]) for name in names if event.get(name)), [])
