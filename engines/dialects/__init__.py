"""Wire formats of servers. A dialect is two pure functions, without sockets and clocks: encode and decode."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from engines.base import Endpoint, EngineError
from engines.dialects.base import Dialect

DIALECTS: dict[str, str] = {
    "anthropic-messages": "engines.dialects.anthropic:AnthropicMessages",
    "generate-backend": "engines.dialects.generate:GenerateBackend",
    "generate-stats": "engines.dialects.generate:GenerateStats",
    "llamacpp-completion": "engines.dialects.llamacpp:LlamaCppCompletion",
    "ollama-chat": "engines.dialects.ollama:OllamaChat",
    "ollama-generate": "engines.dialects.ollama:OllamaGenerate",
    "openai-chat": "engines.dialects.openai:OpenAIChat",
    "openai-completions": "engines.dialects.openai:OpenAICompletions",
    "openai-embeddings": "engines.dialects.vectors:OpenAIEmbeddings",
    "openai-responses": "engines.dialects.responses:OpenAIResponses",
    "rerank": "engines.dialects.vectors:Rerank",
    "tgi": "engines.dialects.tgi:Tgi",
}


def get(
    name: str,
    added: Mapping[str, Any] | None = None,
    renamed: Mapping[str, str] | None = None,
    **more: Mapping[str, Any],
) -> Dialect:
    """Return the dialect of this name.

    Args:
        added: Extra fields for the body of each request; null leaves one of the dialect's own out.
        renamed: Names of the body's fields, if the server's differ.
        more: `unsaid` and `exact` of an `Endpoint`, for the OpenAI dialects.

    Raises:
        EngineError: If no dialect has this name.
        ValueError: If `added` contains a field that the dialect sets, or `renamed` one that it does not send.
    """
    if name not in DIALECTS:
        raise EngineError(f"there is no dialect {name!r}; known are {', '.join(sorted(DIALECTS))}")
    module_name, _, class_name = DIALECTS[name].partition(":")
    found = getattr(import_module(module_name), class_name)(added or {}, **more)
    if renamed:
        found.rename(renamed)
    dialect: Dialect = found
    return dialect


def of(endpoint: Endpoint) -> Dialect:
    """Return the dialect of an endpoint, with the endpoint's request fields. Raises as `get`."""
    more = {name: body for name, body in (("unsaid", endpoint.unsaid), ("exact", endpoint.exact)) if body}
    return get(endpoint.dialect, endpoint.request, endpoint.rename, **more)
