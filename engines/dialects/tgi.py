"""Text Generation Inference's own API: `POST /generate_stream`, and `/generate` for a whole reply.

Lengths and sampling go into `parameters`; there are no exact lengths. TGI refuses a temperature of 0 and settings that
are off: `temperature: 0` is sent as `do_sample: false`, `top_p: 1` and `top_k: 0` are left out. `details` requests the
counts. A stream has them in its last event, a whole reply also in its head (`x-prompt-tokens`, `x-total-time` in ms).

Each event of a stream is one token. A special token, such as the one that ends the reply, counts but adds no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.base import Chunk, ChunkKind, Request, Usage
from engines.dialects.answers import mapping_at, piece, pieces_of, reported_of, usage_of, with_tokens
from engines.dialects.base import Pieces, WireRequest, WireResponse
from engines.dialects.body import SAMPLING, EventDialect, post
from engines.dialects.failures import ending

_OFF = {"top_p": 1, "top_k": 0}


class Tgi(EventDialect):
    """`POST /generate_stream` or `/generate`: the prompt unchanged, without a template. The API knows no models."""

    name = "tgi"
    own = frozenset(
        {"inputs", *(f"parameters.{name}" for name in ("max_new_tokens", "details", "do_sample", *SAMPLING))}
    )

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request. Raises ValueError for token ids."""
        parameters = {"max_new_tokens": request.max_tokens, "details": True} | _sampling(self.sampling_of(request))
        body = {"inputs": self.text_of(request), "parameters": parameters}
        if request.stream:
            return post("/generate_stream", body, self._added, "text/event-stream")
        return post("/generate", body, self._added, "application/json")

    def decode(self, response: WireResponse) -> Pieces:
        found = super().decode(response)
        head = _head(response.headers)
        if head is not None and ChunkKind.ERROR not in found.kinds and len(found):
            chunks = [*found.chunks, head]
            return Pieces([*found.reads, found.reads[-1]], chunks, joined=[*found.joined, len(chunks) - 1])
        return found

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        token, whole = event.get("token"), event.get("generated_text")
        found: list[Chunk] = []
        if isinstance(token, dict):
            text = token.get("text")
            if token.get("special") is True:
                found = [piece(ChunkKind.CONTENT, "", 1)]
            elif text and type(text) is str:
                found = [piece(ChunkKind.CONTENT, text, 1)]
            else:
                found = with_tokens(pieces_of(text), 1)
        elif whole is not None:
            found = pieces_of(whole)
        details = mapping_at(event, "details")
        if details:
            counts, note = usage_of(details.get("input_length"), details.get("generated_tokens"))
            found.append(Chunk(ChunkKind.USAGE, note, usage=counts))
        if details or whole is not None:
            found += ending(details.get("finish_reason")) or [Chunk(ChunkKind.FINISH)]
        return found


def _sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return sampling settings as TGI takes them."""
    found = {name: value for name, value in given.items() if _OFF.get(name) != value}
    temperature = found.pop("temperature", None)
    if temperature:
        return {**found, "temperature": temperature, "do_sample": True}
    return found if temperature is None else {**found, "do_sample": False}


def _head(headers: Mapping[str, str]) -> Chunk | None:
    """Return the figures in the head of a whole reply; None if there are none."""
    prompt_tokens, total_ms = (_number(headers.get(name, "")) for name in ("x-prompt-tokens", "x-total-time"))
    if prompt_tokens is None and total_ms is None:
        return None
    reported = reported_of(total_ms=None if total_ms is None else float(total_ms))
    return Chunk(ChunkKind.USAGE, usage=Usage(prompt_tokens), reported=reported)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
