"""OpenAI dialects: `/v1/completions` and `/v1/chat/completions`, streaming and not.

vLLM, llama.cpp, SGLang, TGI and many others speak them. `exact` is sent as `ignore_eos` and `min_tokens`: vLLM and
SGLang obey both, llama.cpp the first. A server that refuses unknown keys answers HTTP 400 and needs `exact: false`.
`priority` is sent as a whole number: vLLM (with `--scheduling-policy priority`) serves lower ones first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.base import Chunk, ChunkKind, Request
from engines.dialects import answers
from engines.dialects.answers import NOTHING, mapping_at, piece, pieces_of, tool_pieces
from engines.dialects.base import WireRequest
from engines.dialects.body import SAMPLING, EventDialect, as_data_url, post
from engines.dialects.events import ToChunks
from engines.dialects.failures import ending, failure_in

_OWN = frozenset({"model", "max_tokens", "stream", "ignore_eos", "min_tokens", "priority", *SAMPLING})
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")


class OpenAICompletions(EventDialect):
    """`POST /v1/completions`: the prompt is text or token ids; a conversation is one text (`Request.transcript`)."""

    name = "openai-completions"
    path = "/v1/completions"
    takes_priority = True
    own = _OWN | {"prompt"}
    default = frozenset({"stream_options"})

    def __init__(
        self,
        added: Mapping[str, Any] = NOTHING,
        unsaid: Mapping[str, Any] = NOTHING,
        exact: Mapping[str, Any] = NOTHING,
    ) -> None:
        super().__init__(added)
        self._added = replace(self._added, unsaid=unsaid)
        self._exact = exact

    def encode(self, request: Request, model: str | None) -> WireRequest:
        body = self._prompt(request)
        if model is not None:
            body["model"] = model
        body["max_tokens"] = request.max_tokens
        body["stream"] = request.stream
        if request.stream:
            body["stream_options"] = {"include_usage": True}
        if request.exact:
            body |= self._exact or {"ignore_eos": True, "min_tokens": request.max_tokens}
        if request.priority is not None:
            body["priority"] = request.priority
        for key in SAMPLING:
            if request.sampling.get(key) is not None:
                body[key] = request.sampling[key]
        return post(self.path, body, self._added, "text/event-stream" if request.stream else "application/json")

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        return _chunks(event, _completion_pieces)

    def _prompt(self, request: Request) -> dict[str, Any]:
        prompt = request.transcript
        return {"prompt": prompt if isinstance(prompt, str) else list(prompt)}


class OpenAIChat(OpenAICompletions):
    """`POST /v1/chat/completions`: the prompt is one user message after those of the earlier turns, never token ids."""

    name = "openai-chat"
    path = "/v1/chat/completions"
    own = _OWN | {"messages"}
    takes_images = True

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        return _chunks(event, _chat_pieces)

    def illustrated(self, text: str, images: Sequence[str]) -> dict[str, Any]:
        parts = [{"type": "image_url", "image_url": {"url": as_data_url(one)}} for one in images]
        return {"content": [*parts, {"type": "text", "text": text}]}

    def _prompt(self, request: Request) -> dict[str, Any]:
        return {"messages": self.messages_of(request)}


def _chunks(event: Mapping[str, Any], pieces: ToChunks) -> list[Chunk]:
    """Return the chunks of one event; [] if it has neither choices nor usage."""
    found: list[Chunk] = []
    choices = event.get("choices")
    for choice in choices if type(choices) is list else answers.listed(choices):
        if type(choice) is not dict:
            found.append(answers.unreadable(choice))
            continue
        found += pieces(choice)
        if choice.get("error") and (failure := failure_in(choice, alone=False)):
            found.append(Chunk(ChunkKind.ERROR, failure))
        if choice.get("finish_reason"):
            found += ending(choice["finish_reason"])
    if event.get("usage"):
        found.append(_usage(event["usage"]))
    return found


def _completion_pieces(choice: Mapping[str, Any]) -> list[Chunk]:
    text = choice.get("text")
    found = [piece(ChunkKind.CONTENT, text)] if text and type(text) is str else pieces_of(text)
    return _with_the_rest(choice, found, ChunkKind.EMPTY)


def _chat_pieces(choice: Mapping[str, Any]) -> list[Chunk]:
    delta = mapping_at(choice, "delta") or mapping_at(choice, "message")
    found: list[Chunk] = []
    thoughts = next((delta[name] for name in _THOUGHTS if delta.get(name)), None)
    if thoughts:
        found += pieces_of(thoughts, ChunkKind.REASONING)
    for name in ("content", "refusal"):
        if delta.get(name):
            found += pieces_of(delta[name])
    for name in ("tool_calls", "function_call"):
        if delta.get(name):
            found += tool_pieces(delta[name])
    return _with_the_rest(choice, found, ChunkKind.ROLE if delta.get("role") else ChunkKind.EMPTY)


def _with_the_rest(choice: Mapping[str, Any], found: list[Chunk], without: ChunkKind) -> list[Chunk]:
    """Add a choice's token count to its chunks. `without` is the kind of a choice without text and end."""
    if choice.get("token_ids") or choice.get("logprobs"):
        found = answers.with_tokens(found, _tokens(choice))
    return found if found or choice.get("finish_reason") else [Chunk(without)]


def _tokens(choice: Mapping[str, Any]) -> int | None:
    """Return the number of tokens of a choice, by its token ids or its log-probabilities."""
    probabilities = mapping_at(choice, "logprobs")
    for tokens in (choice.get("token_ids"), probabilities.get("content"), probabilities.get("tokens")):
        if isinstance(tokens, list) and tokens:
            return len(tokens)
    return None


def _usage(usage: object) -> Chunk:
    if not isinstance(usage, dict):
        return Chunk(ChunkKind.USAGE, f"invalid token counts: {answers.cut(answers.as_json(usage), 100)}")
    details = mapping_at(usage, "completion_tokens_details") or usage
    counts, note = answers.usage_of(
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        details.get("reasoning_tokens", usage.get("reasoning_tokens")),
        mapping_at(usage, "prompt_tokens_details").get("cached_tokens"),
    )
    prompt, output, reasoning = counts.prompt_tokens, counts.output_tokens, counts.reasoning_tokens
    total = usage.get("total_tokens")
    if reasoning and prompt is not None and output is not None and total == prompt + output + reasoning:
        counts = replace(counts, output_tokens=output + reasoning)  # as stated, it does not include the reasoning
    return Chunk(ChunkKind.USAGE, note, usage=counts)
