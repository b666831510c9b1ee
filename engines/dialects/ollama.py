"""Ollama's own API: `/api/generate` and `/api/chat`, a JSON object a line.

Sampling goes into `options`, the length as `num_predict`; exact lengths cannot be asked for. The line with `done: true`
brings the counts (`prompt_eval_count`, `eval_count`) and times in nanoseconds, of which `total_duration` is kept.
Other settings come from the scenario's `request`: `{keep_alive: 10m, think: false, options: {num_ctx: 4096}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.base import Chunk, ChunkKind, Request, Usage
from engines.dialects.answer_values import amount_at, count_at, piece, reported_of, text_at
from engines.dialects.base import Pieces, WireRequest, WireResponse
from engines.dialects.event_decoder import EventDecoder, error_sentence, tool_text
from engines.dialects.request_body import NOTHING, SAMPLING, check_added, post, sampling_of, text_of

_MS_PER_NS = 1e-6
_OTHERS = frozenset({"thinking", "tool_calls"})
_OWN = frozenset({"model", "stream", "options.num_predict", *(f"options.{name}" for name in SAMPLING)})


class OllamaGenerate:
    """`POST /api/generate` with `raw: true`: the prompt as it is, no template around it."""

    name = "ollama-generate"
    own = _OWN | {"prompt", "raw"}

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        check_added(added, self.own, self.name)
        self._added = added
        self._decoder = EventDecoder(lambda event: _chunks(event, event, "response"))

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """The request for a server that knows the model as `model`. Raises ValueError for token ids."""
        body = {"prompt": text_of(request, self.name), "raw": True}
        return _post("/api/generate", body, request, model, self.name, self._added)

    def decode(self, response: WireResponse) -> Pieces:
        """Every piece of the reply; an ERROR chunk for what cannot be read."""
        return self._decoder.answer(response)


class OllamaChat:
    """`POST /api/chat`: the prompt is sent as one user message, after those of the earlier turns."""

    name = "ollama-chat"
    own = _OWN | {"messages"}

    def __init__(self, added: Mapping[str, Any] = NOTHING) -> None:
        check_added(added, self.own, self.name)
        self._added = added
        self._decoder = EventDecoder(lambda event: _chunks(event, event.get("message") or {}, "content"))

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """The request for a server that knows the model as `model`. Raises ValueError for token ids."""
        text_of(request, self.name)
        messages: list[dict[str, Any]] = []
        for turn in request.history:
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": turn.reply}]
        messages.append({"role": "user", "content": request.prompt})
        return _post("/api/chat", {"messages": messages}, request, model, self.name, self._added)

    def decode(self, response: WireResponse) -> Pieces:
        """Every piece of the reply; an ERROR chunk for what cannot be read."""
        return self._decoder.answer(response)


def _post(
    path: str, body: dict[str, Any], request: Request, model: str | None, dialect: str, added: Mapping[str, Any]
) -> WireRequest:
    options = {"num_predict": request.max_tokens} | sampling_of(request, SAMPLING, dialect)
    body |= {"stream": request.stream, "options": options} | ({} if model is None else {"model": model})
    return post(path, body, added, "application/x-ndjson" if request.stream else "application/json")


def _chunks(event: Mapping[str, Any], said: Mapping[str, Any], answer: str) -> list[Chunk]:
    """The pieces of one line. said: where its texts are.   answer: the name of the answer's text there."""
    text = said.get(answer)
    if text and event.get("done") is False and _OTHERS.isdisjoint(said) and "error" not in event and type(text) is str:
        return [piece(ChunkKind.CONTENT, text)]  # nearly every line, without looking for what it has not
    if event.get("error"):
        return [Chunk(ChunkKind.ERROR, error_sentence(event["error"]))]
    found = []
    if thought := text_at(said, "thinking"):
        found.append(piece(ChunkKind.REASONING, thought))
    if text := text_at(said, answer):
        found.append(piece(ChunkKind.CONTENT, text))
    if tools := "".join(tool_text(call) for call in said.get("tool_calls") or ()):
        found.append(piece(ChunkKind.TOOL, tools))
    if event.get("done") is True:
        found.append(_ending(event))
        found.append(Chunk(ChunkKind.FINISH, finish_reason=text_at(event, "done_reason") or None))
    return found or [Chunk(ChunkKind.EMPTY)]


def _ending(event: Mapping[str, Any]) -> Chunk:
    usage = Usage(count_at(event, "prompt_eval_count"), count_at(event, "eval_count"))
    reported = reported_of(total_ms=amount_at(event, "total_duration", _MS_PER_NS))
    return Chunk(ChunkKind.USAGE, usage=usage, reported=reported)
