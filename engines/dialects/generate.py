"""Two APIs with `POST /generate` and `POST /generate/stream`, and little else in common.

`generate-stats`: {prompt, model_name, generation_config, stream} -> {generated_text, generation_stats {prompt_tokens,
generated_tokens, total_time_ms, tokens_per_second, memory_peak_mb}, cached}. `generate-backend`: {prompt, max_tokens,
temperature, top_p, stream}, with `backend` and `urgency` if the scenario adds them -> {text, backend_used,
generation_time, tokens_per_second}, without token counts.

A stream is server-sent events, or JSON lines if its content type is ndjson. An event is a piece {"token": text} or
{"text": text}, an end ({"done": true}, `generation_stats` or [DONE]), or a failure {"error": sentence}. Any event may
also hold other fields of a whole reply. If a stream has no pieces and its last event holds the whole text, as from a
result cache, the text came in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engines.base import Chunk, ChunkKind, Request
from engines.dialects.answers import NOTHING, amount_at, mapping_at, pieces_of, reported_of, text_at, usage_of
from engines.dialects.base import Pieces, WireRequest, WireResponse
from engines.dialects.body import SAMPLING, EventDialect, post
from engines.dialects.events import EventDecoder
from engines.dialects.failures import ending

_BYTES_PER_MB = 2**20
_PIECES = ("token", "text")


class _Generate(EventDialect):
    """Common part.

    Attributes:
        piece_keys: Keys of the text in an event of a stream.
        whole_keys: Keys of the text in a whole reply, or in the last event of a stream without pieces.
    """

    piece_keys: tuple[str, ...]
    whole_keys: tuple[str, ...]

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        super().__init__(added)
        self._whole = EventDecoder(lambda event: self._found(event, self.whole_keys))

    def decode(self, response: WireResponse) -> Pieces:
        found = self._decoder.answer(response)
        if any(kind in (ChunkKind.CONTENT, ChunkKind.ERROR) for kind in found.kinds):
            return found
        return self._whole.answer(response)

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        return self._found(event, self.piece_keys)

    def _found(self, event: Mapping[str, Any], keys: tuple[str, ...]) -> list[Chunk]:
        """Return the chunks of an event, with the text in the first non-empty value at these keys."""
        found: list[Chunk] = next((pieces_of(event[key]) for key in keys if event.get(key)), [])
        return found + self._facts(event)

    def _facts(self, event: Mapping[str, Any]) -> list[Chunk]:
        """Return the chunks of an event without its text."""
        raise NotImplementedError

    def _post(self, body: dict[str, Any], request: Request) -> WireRequest:
        body["stream"] = request.stream
        if request.stream:
            return post("/generate/stream", body, self._added, "text/event-stream")
        return post("/generate", body, self._added, "application/json")


class GenerateStats(_Generate):
    """API with statistics.

    Lengths and sampling go into `generation_config`, under the names of transformers' GenerationConfig
    (`max_new_tokens`, and `min_new_tokens` for exact lengths). A MB of `memory_peak_mb` is read as 2^20 bytes.
    """

    name = "generate-stats"
    own = frozenset(
        {"prompt", "model_name", "stream"}
        | {f"generation_config.{name}" for name in ("max_new_tokens", "min_new_tokens", *SAMPLING)}
    )
    piece_keys = _PIECES
    whole_keys = (*_PIECES, "generated_text")

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request. Raises ValueError for token ids."""
        config = {"max_new_tokens": request.max_tokens} | self.sampling_of(request)
        if request.exact:
            config["min_new_tokens"] = request.max_tokens
        body: dict[str, Any] = {"prompt": self.text_of(request), "generation_config": config}
        return self._post(body | ({} if model is None else {"model_name": model}), request)

    def _facts(self, event: Mapping[str, Any]) -> list[Chunk]:
        found = []
        stats, cached = mapping_at(event, "generation_stats"), event.get("cached")
        if stats or isinstance(cached, bool):
            counts, note = usage_of(stats.get("prompt_tokens"), stats.get("generated_tokens"))
            reported = reported_of(
                total_ms=amount_at(stats, "total_time_ms"),
                memory_peak_bytes=amount_at(stats, "memory_peak_mb", _BYTES_PER_MB),
            )
            known = cached if isinstance(cached, bool) else None
            found.append(Chunk(ChunkKind.USAGE, note, usage=counts if stats else None, cached=known, reported=reported))
        if stats or event.get("done") is True:
            found += ending(event.get("finish_reason")) or [Chunk(ChunkKind.FINISH)]
        return found


class GenerateBackend(_Generate):
    """API that names the backend that answered, without exact lengths. Times are in seconds."""

    name = "generate-backend"
    sampling = ("temperature", "top_p")
    own = frozenset({"prompt", "max_tokens", "stream", *sampling})
    piece_keys = ("token",)
    whole_keys = _PIECES

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request; the API knows no models. Raises ValueError for token ids, top_k, seed and stop."""
        body = {"prompt": self.text_of(request), "max_tokens": request.max_tokens}
        return self._post(body | self.sampling_of(request), request)

    def _facts(self, event: Mapping[str, Any]) -> list[Chunk]:
        backend = text_at(event, "backend_used") or None
        reported = reported_of(total_ms=amount_at(event, "generation_time", 1000))
        if event.get("done") is True or reported is not None:
            end = ending(event.get("finish_reason")) or [Chunk(ChunkKind.FINISH)]
            return [replace(chunk, backend=backend, reported=reported) for chunk in end]
        return [] if backend is None else [Chunk(ChunkKind.EMPTY, backend=backend)]
