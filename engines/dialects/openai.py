"""The OpenAI dialects: `/v1/completions` and `/v1/chat/completions`, streaming and not.

Spoken by vLLM, llama.cpp, SGLang, TGI and many others. `exact` is sent as `ignore_eos` and `min_tokens`: vLLM and
SGLang obey both, llama.cpp the first; a server that refuses unknown keys answers HTTP 400 and needs `exact: false`.
`priority` is sent as a whole number under that name: vLLM (with `--scheduling-policy priority`) serves lower ones
first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.base import Chunk, ChunkKind, Request, Usage
from engines.dialects.base import Pieces, WireRequest, WireResponse
from engines.dialects.event_decoder import EventDecoder, error_sentence, tool_text
from engines.dialects.request_body import NOTHING, SAMPLING, check_added, post

_OWN = frozenset({"model", "max_tokens", "stream", "stream_options", "ignore_eos", "min_tokens", "priority", *SAMPLING})


class OpenAICompletions:
    """`POST /v1/completions`: the prompt is text or token ids; a conversation is one text (`Request.transcript`)."""

    name = "openai-completions"
    path = "/v1/completions"
    takes_priority = True
    own = _OWN | {"prompt"}

    def __init__(
        self,
        added: Mapping[str, Any] = NOTHING,
        unsaid: Mapping[str, Any] = NOTHING,
        exact: Mapping[str, Any] = NOTHING,
    ) -> None:
        """unsaid: what is sent where a request does not say it.   exact: in place of our words for an exact length."""
        check_added(added, self.own, self.name)
        self._added = {**unsaid, **added}
        self._exact = exact
        self._decoder = EventDecoder(self.chunks)

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """The request for a server that knows the model as `model`."""
        prompt = request.transcript
        body = {"prompt": prompt if isinstance(prompt, str) else list(prompt)}
        return _encode(self.path, body, request, model, self._added, self._exact)

    def decode(self, response: WireResponse) -> Pieces:
        """Every piece of the reply; an ERROR chunk for what cannot be read."""
        return self._decoder.answer(response)

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        """The pieces in one event, or in a whole reply that was not streamed."""
        return _chunks(event, _completion_pieces)


class OpenAIChat:
    """`POST /v1/chat/completions`: the prompt is sent as one user message, after those of the earlier turns; token ids
    are refused by the format.
    """

    name = "openai-chat"
    path = "/v1/chat/completions"
    takes_priority = True
    own = _OWN | {"messages"}

    def __init__(
        self,
        added: Mapping[str, Any] = NOTHING,
        unsaid: Mapping[str, Any] = NOTHING,
        exact: Mapping[str, Any] = NOTHING,
    ) -> None:
        """unsaid: what is sent where a request does not say it.   exact: in place of our words for an exact length."""
        check_added(added, self.own, self.name)
        self._added = {**unsaid, **added}
        self._exact = exact
        self._decoder = EventDecoder(self.chunks)

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """The request for a server that knows the model as `model`.

        Raises ValueError if the prompt is token ids, which this format cannot carry.
        """
        if not isinstance(request.prompt, str):
            raise ValueError("openai-chat cannot carry token ids: use text prompts or the dialect openai-completions")
        messages = []
        for turn in request.history:
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.reply}]
        messages.append({"role": "user", "content": request.prompt})
        return _encode(self.path, {"messages": messages}, request, model, self._added, self._exact)

    def decode(self, response: WireResponse) -> Pieces:
        """Every piece of the reply; an ERROR chunk for what cannot be read."""
        return self._decoder.answer(response)

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        """The pieces in one event, or in a whole reply that was not streamed."""
        return _chunks(event, _chat_pieces)


def _encode(
    path: str,
    body: dict[str, Any],
    request: Request,
    model: str | None,
    added: Mapping[str, Any],
    exact: Mapping[str, Any],
) -> WireRequest:
    if model is not None:
        body["model"] = model
    body["max_tokens"] = request.max_tokens
    body["stream"] = request.stream
    if request.stream:
        body["stream_options"] = {"include_usage": True}
    if request.exact:
        body |= exact or {"ignore_eos": True, "min_tokens": request.max_tokens}
    if request.priority is not None:
        body["priority"] = request.priority
    for key in SAMPLING:
        if request.sampling.get(key) is not None:
            body[key] = request.sampling[key]
    return post(path, body, added, "text/event-stream" if request.stream else "application/json")


def _chunks(event: Mapping[str, Any], pieces: Any) -> list[Chunk]:
    if event.get("error"):
        return [Chunk(ChunkKind.ERROR, error_sentence(event["error"]))]
    found: list[Chunk] = []
    for choice in event.get("choices") or ():
        found += pieces(choice)
        if choice.get("finish_reason"):
            found.append(Chunk(ChunkKind.FINISH, finish_reason=str(choice["finish_reason"])))
    if event.get("usage"):
        found.append(Chunk(ChunkKind.USAGE, usage=_usage(event["usage"])))
    return found or [Chunk(ChunkKind.EMPTY)]


def _completion_pieces(choice: Mapping[str, Any]) -> list[Chunk]:
    text = choice.get("text")
    if text:
        ids = choice.get("token_ids")
        return [Chunk(ChunkKind.CONTENT, text, tokens=len(ids) if ids else None)]
    return [] if choice.get("finish_reason") else [Chunk(ChunkKind.EMPTY)]


def _chat_pieces(choice: Mapping[str, Any]) -> list[Chunk]:
    delta = choice.get("delta") or choice.get("message") or {}
    found = []
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    if reasoning:
        found.append(Chunk(ChunkKind.REASONING, reasoning))
    if delta.get("content"):
        found.append(Chunk(ChunkKind.CONTENT, delta["content"]))
    tools = "".join(tool_text(call) for call in delta.get("tool_calls") or ())
    if tools:
        found.append(Chunk(ChunkKind.TOOL, tools))
    if not found and not choice.get("finish_reason"):
        found.append(Chunk(ChunkKind.ROLE if delta.get("role") else ChunkKind.EMPTY))
    return found


def _usage(usage: Mapping[str, Any]) -> Usage:
    output = usage.get("completion_tokens_details") or {}
    prompt = usage.get("prompt_tokens_details") or {}
    return Usage(
        prompt_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
        reasoning_tokens=output.get("reasoning_tokens", usage.get("reasoning_tokens")),
        cached_tokens=prompt.get("cached_tokens"),
    )
