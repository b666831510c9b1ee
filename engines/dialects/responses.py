"""OpenAI's Responses API: `POST /v1/responses`, streaming and not; llama.cpp and vLLM serve it too.

There are no exact lengths, and of the sampling settings `temperature` and `top_p` alone. The conversation is sent with
every request, and none is looked up at the server. `response.completed` or `response.incomplete` ends a stream and
holds the counts. A text that comes only with it, as from a cache, came in one piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.base import TOKEN_BEARING, Chunk, ChunkKind, Request
from engines.dialects.answers import (
    NOTHING,
    mapping_at,
    piece,
    pieces_of,
    text_at,
    tool_pieces,
    usage_of,
)  # fmt: skip
from engines.dialects.base import Pieces, WireRequest, WireResponse
from engines.dialects.body import EventDialect, as_data_url, post
from engines.dialects.events import EventDecoder
from engines.dialects.failures import ending

_ENDS = ("response.completed", "response.incomplete")
_TEXTS = {"response.output_text.delta": ChunkKind.CONTENT, "response.refusal.delta": ChunkKind.CONTENT}
_REASONING = "response.reasoning"
_CALLS = ("_arguments.delta", "_call_input.delta", "_call_code.delta", "_call_command.delta")


class OpenAIResponses(EventDialect):
    """`POST /v1/responses`: the prompt is one user message after those of the earlier turns, never token ids."""

    name = "openai-responses"
    sampling = ("temperature", "top_p")
    takes_images = True
    own = frozenset({"model", "input", "max_output_tokens", "stream", *sampling})

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        super().__init__(added)
        self._whole = EventDecoder(lambda event: self._found(event, whole=True))

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request. Raises ValueError for token ids, top_k, seed and stop."""
        body: dict[str, Any] = {"input": [_item(message) for message in self.messages_of(request)]}
        body |= {"max_output_tokens": request.max_tokens, "stream": request.stream} | self.sampling_of(request)
        body |= {} if model is None else {"model": model}
        accept = "text/event-stream" if request.stream else "application/json"
        return post("/v1/responses", body, self._added, accept)

    def illustrated(self, text: str, images: Sequence[str]) -> dict[str, Any]:
        parts = [{"type": "input_image", "image_url": as_data_url(one)} for one in images]
        return {"content": [*parts, {"type": "input_text", "text": text}]}

    def decode(self, response: WireResponse) -> Pieces:
        found = super().decode(response)
        if ChunkKind.ERROR in found.kinds or not TOKEN_BEARING.isdisjoint(found.kinds):
            return found
        return self._whole.answer(response)

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        return self._found(event, whole=False)

    def _found(self, event: Mapping[str, Any], *, whole: bool) -> list[Chunk]:
        """Return the chunks of an event. `whole` takes the text from its end."""
        name = text_at(event, "type")
        if name.endswith(".delta"):
            return _delta(name, event.get("delta"))
        if name in _ENDS:
            response = mapping_at(event, "response")
            return (pieces_of(response.get("output")) if whole else []) + _end(response, event)
        if name == "response.output_item.added":
            return _item_start(mapping_at(event, "item"))
        if name.startswith("response.") or name == "keepalive":
            return [Chunk(ChunkKind.EMPTY)]
        if event.get("object") == "response" or "output" in event:
            return pieces_of(event.get("output")) + _end(event, event)
        return []


def _item(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as an item. A reply is a list of parts: llama.cpp reads no other form."""
    content = message["content"]
    if message["role"] == "assistant":
        return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": content}]}
    return {"role": message["role"], "content": content}


def _delta(name: str, delta: object) -> list[Chunk]:
    """Return the chunk of a part of the output; EMPTY for sound and other parts without text."""
    kind = _TEXTS.get(name)
    if kind is None:
        if name.startswith(_REASONING):
            kind = ChunkKind.REASONING
        elif name.endswith(_CALLS):
            kind = ChunkKind.TOOL
        else:
            return [Chunk(ChunkKind.EMPTY)]
    return [piece(kind, delta)] if delta and type(delta) is str else pieces_of(delta, kind) or [Chunk(ChunkKind.EMPTY)]


def _item_start(item: Mapping[str, Any]) -> list[Chunk]:
    """Return the chunk with the name of a function that is called, else ROLE or EMPTY."""
    if "call" in text_at(item, "type"):
        return tool_pieces(item) or [Chunk(ChunkKind.EMPTY)]
    return [Chunk(ChunkKind.ROLE if item.get("role") else ChunkKind.EMPTY)]


def _end(response: Mapping[str, Any], event: Mapping[str, Any]) -> list[Chunk]:
    """Return counts and finish of a response; the reason of an incomplete one is its finish reason."""
    found = []
    usage = response.get("usage")
    if isinstance(usage, dict):
        counts, note = usage_of(
            usage.get("input_tokens"),
            usage.get("output_tokens"),
            mapping_at(usage, "output_tokens_details").get("reasoning_tokens"),
            mapping_at(usage, "input_tokens_details").get("cached_tokens"),
        )
        found.append(Chunk(ChunkKind.USAGE, note, usage=counts))
    reason = mapping_at(response, "incomplete_details").get("reason") or response.get("status")
    return found + (ending(reason) or [Chunk(ChunkKind.FINISH)])
