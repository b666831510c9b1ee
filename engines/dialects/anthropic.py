"""Anthropic's Messages API: `POST /v1/messages`, streaming and not; llama.cpp and vLLM serve it too.

There are no exact lengths and no seed. A stream is server-sent events with names: `message_start` states the prompt's
tokens, `message_delta` the output tokens and the stop reason, `message_stop` ends it.

`input_tokens` leaves out the tokens that were read from or written to a prompt cache. The prompt's tokens are the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.base import Chunk, ChunkKind, Request
from engines.dialects.answers import count_of, mapping_at, piece, pieces_of, text_at, tool_pieces, usage_of
from engines.dialects.base import Pieces, WireRequest, WireResponse
from engines.dialects.body import EventDialect, post
from engines.dialects.failures import ending

_SENT_AS = {"stop": "stop_sequences"}
_CACHED = ("cache_creation_input_tokens", "cache_read_input_tokens")
_DELTAS = {"text_delta": ("text", ChunkKind.CONTENT), "thinking_delta": ("thinking", ChunkKind.REASONING)}


class AnthropicMessages(EventDialect):
    """`POST /v1/messages`: the prompt is one user message after those of the earlier turns, never token ids.

    The key is sent as `x-api-key` alone. Anthropic refuses an ordinary key as a bearer token, llama.cpp takes either,
    and for servers that take bearer tokens alone (vLLM) the scenario names the header under `headers_env`.
    """

    name = "anthropic-messages"
    takes_images = True
    headers: Mapping[str, str] = {"anthropic-version": "2023-06-01"}
    sampling = ("temperature", "top_p", "top_k", "stop")
    own = frozenset({"model", "messages", "max_tokens", "stream", *(_SENT_AS.get(name, name) for name in sampling)})

    def key_headers(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key}

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request. Raises ValueError for token ids and a seed."""
        messages = self.messages_of(request)
        body: dict[str, Any] = {"messages": [one for one in messages if one["role"] != "system"]}
        body |= {"max_tokens": request.max_tokens, "stream": request.stream}
        if system := [one["content"] for one in messages if one["role"] == "system"]:
            body["system"] = "\n\n".join(system)
        body |= {_SENT_AS.get(name, name): value for name, value in self.sampling_of(request).items()}
        body |= {} if model is None else {"model": model}
        accept = "text/event-stream" if request.stream else "application/json"
        wire = post("/v1/messages", body, self._added, accept)
        return replace(wire, headers={**wire.headers, **self.headers})

    def illustrated(self, text: str, images: Sequence[str]) -> dict[str, Any]:
        sources = [{"type": "base64", "media_type": "image/png", "data": one} for one in images]
        parts = [{"type": "image", "source": source} for source in sources]
        return {"content": [*parts, {"type": "text", "text": text}]}

    def decode(self, response: WireResponse) -> Pieces:
        found = super().decode(response)
        _keep_larger_prompt(found.chunks)
        return found

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        match event.get("type"):
            case "content_block_delta":
                return _delta(mapping_at(event, "delta"))
            case "content_block_start":
                return _block(mapping_at(event, "content_block"))
            case "content_block_stop" | "ping":
                return [Chunk(ChunkKind.EMPTY)]
            case "message_start":
                return [Chunk(ChunkKind.ROLE), *_usage(mapping_at(event, "message").get("usage"), counts_output=False)]
            case "message_delta":
                usage = _usage(event.get("usage"), counts_output=True)
                return usage + ending(mapping_at(event, "delta").get("stop_reason")) or [Chunk(ChunkKind.EMPTY)]
            case "message_stop":
                return [Chunk(ChunkKind.FINISH)]
            case "message":
                usage = _usage(event.get("usage"), counts_output=True)
                end = ending(event.get("stop_reason")) or [Chunk(ChunkKind.FINISH)]
                return pieces_of(event.get("content")) + usage + end
        return []


def _delta(delta: Mapping[str, Any]) -> list[Chunk]:
    """Return the chunk of a part of a block; EMPTY for one without text, such as a signature."""
    key, kind = _DELTAS.get(text_at(delta, "type"), ("partial_json", ChunkKind.TOOL))
    text = delta.get(key)
    if text and type(text) is str:
        return [piece(kind, text)]
    return pieces_of(text, kind) or [Chunk(ChunkKind.EMPTY)]


def _block(block: Mapping[str, Any]) -> list[Chunk]:
    """Return the chunk of a block's start: the name of a tool that is called, or a text that is there already."""
    if "tool_use" in text_at(block, "type"):
        return tool_pieces(block) or [Chunk(ChunkKind.EMPTY)]
    key, kind = ("thinking", ChunkKind.REASONING) if block.get("thinking") else ("text", ChunkKind.CONTENT)
    return pieces_of(block.get(key) or None, kind) or [Chunk(ChunkKind.EMPTY)]


def _usage(stated: object, *, counts_output: bool) -> list[Chunk]:
    """Return the chunk of the token counts; [] if none are stated. The first event counts no output yet."""
    if not isinstance(stated, dict):
        return []
    output = stated.get("output_tokens") if counts_output else None
    counts, note = usage_of(stated.get("input_tokens"), output, None, stated.get("cache_read_input_tokens"))
    if counts.prompt_tokens is not None:
        cached = sum(count_of(stated.get(name)) or 0 for name in _CACHED)
        counts = replace(counts, prompt_tokens=counts.prompt_tokens + cached)
    return [Chunk(ChunkKind.USAGE, note, usage=counts)]


def _keep_larger_prompt(chunks: list[Chunk]) -> None:
    """Drop a later, smaller count of the prompt, in place: the last event may leave out the cached tokens."""
    most = 0
    for place, chunk in enumerate(chunks):
        if chunk.kind is not ChunkKind.USAGE or chunk.usage is None:
            continue
        prompt_tokens = chunk.usage.prompt_tokens or 0
        if 0 < prompt_tokens < most:
            chunks[place] = replace(chunk, usage=replace(chunk.usage, prompt_tokens=None))
        most = max(most, prompt_tokens)
