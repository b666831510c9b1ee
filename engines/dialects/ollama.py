"""Ollama's own API: `/api/generate` and `/api/chat`, in JSON lines.

Sampling goes into `options`, the length as `num_predict`; there are no exact lengths. The line with `done: true` holds
the counts (`prompt_eval_count`, `eval_count`) and times in nanoseconds: `total_duration`, `prompt_eval_duration`,
`eval_duration`. Other settings come from the scenario's `request`: `{keep_alive: 10m, options: {num_ctx: 4096}}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.base import Chunk, ChunkKind, Request
from engines.dialects.answers import NOTHING, amount_at, piece, pieces_of, reported_of, tool_pieces, usage_of
from engines.dialects.base import WireRequest
from engines.dialects.body import SAMPLING, EventDialect, post
from engines.dialects.failures import ending

_MS_PER_NS = 1e-6
_OTHERS = frozenset({"thinking", "tool_calls"})
_OWN = frozenset({"model", "stream", "options.num_predict", *(f"options.{name}" for name in SAMPLING)})


class OllamaGenerate(EventDialect):
    """`POST /api/generate` with `raw: true`: the prompt unchanged, without a template."""

    name = "ollama-generate"
    own = _OWN | {"prompt", "raw"}
    takes_images = True

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request. Raises ValueError for token ids."""
        body = {"prompt": self.text_of(request), "raw": True}
        body |= {"images": list(request.images)} if request.images else {}
        return self._post("/api/generate", body, request, model)

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        return _chunks(event, event, "response")

    def _post(self, path: str, body: dict[str, Any], request: Request, model: str | None) -> WireRequest:
        options = {"num_predict": request.max_tokens} | self.sampling_of(request)
        body |= {"stream": request.stream, "options": options} | ({} if model is None else {"model": model})
        return post(path, body, self._added, "application/x-ndjson" if request.stream else "application/json")


class OllamaChat(OllamaGenerate):
    """`POST /api/chat`: the prompt is one user message after those of the earlier turns."""

    name = "ollama-chat"
    own = _OWN | {"messages"}

    def encode(self, request: Request, model: str | None) -> WireRequest:
        """Return the request. Raises ValueError for token ids."""
        return self._post("/api/chat", {"messages": self.messages_of(request)}, request, model)

    def illustrated(self, text: str, images: Sequence[str]) -> dict[str, Any]:
        return {"images": list(images)}

    def chunks(self, event: Mapping[str, Any]) -> list[Chunk]:
        return _chunks(event, event.get("message"), "content")


def _chunks(event: Mapping[str, Any], texts: object, answer: str) -> list[Chunk]:
    """Return the chunks of one line. `texts` is the object with its texts, `answer` the key of the answer's."""
    if not isinstance(texts, dict):
        texts = NOTHING
    text = texts.get(answer)
    if text and event.get("done") is False and _OTHERS.isdisjoint(texts) and type(text) is str:
        return [piece(ChunkKind.CONTENT, text)]  # fast path for nearly every line
    found = []
    if texts.get("thinking"):
        found += pieces_of(texts["thinking"], ChunkKind.REASONING)
    if text:
        found += pieces_of(text)
    if texts.get("tool_calls"):
        found += tool_pieces(texts["tool_calls"])
    if event.get("done") is True:
        counts, note = usage_of(event.get("prompt_eval_count"), event.get("eval_count"))
        reported = reported_of(
            total_ms=amount_at(event, "total_duration", _MS_PER_NS),
            prompt_ms=amount_at(event, "prompt_eval_duration", _MS_PER_NS),
            generation_ms=amount_at(event, "eval_duration", _MS_PER_NS),
        )
        found.append(Chunk(ChunkKind.USAGE, note, usage=counts, reported=reported))
        found += ending(event.get("done_reason")) or [Chunk(ChunkKind.FINISH)]
    return found or [Chunk(ChunkKind.EMPTY)] if answer in texts else found
