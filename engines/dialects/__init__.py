"""Wire formats: how a request is written down for a server, and how its answer is read.

A dialect is two pure functions (see `engines.dialects.base.Dialect`); it opens no sockets and holds no clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from engines.base import Endpoint, EngineError
from engines.dialects.base import Dialect

DIALECTS: dict[str, str] = {
    "generate-backend": "engines.dialects.generate:GenerateBackend",
    "generate-stats": "engines.dialects.generate:GenerateStats",
    "ollama-chat": "engines.dialects.ollama:OllamaChat",
    "ollama-generate": "engines.dialects.ollama:OllamaGenerate",
    "openai-chat": "engines.dialects.openai:OpenAIChat",
    "openai-completions": "engines.dialects.openai:OpenAICompletions",
}


def get(name: str, added: Mapping[str, Any] | None = None, **more: Mapping[str, Any]) -> Dialect:
    """The dialect of this name. added: what is put into the body of each request, beside what it sets itself.
    more: `unsaid` and `exact` of an `Endpoint`, for the OpenAI dialects.

    Raises EngineError if there is none, ValueError for something added that the dialect sets itself.
    """
    if name not in DIALECTS:
        raise EngineError(f"there is no dialect {name!r}; known are {', '.join(sorted(DIALECTS))}")
    module_name, _, class_name = DIALECTS[name].partition(":")
    found: Dialect = getattr(import_module(module_name), class_name)(added or {}, **more)
    return found


def of(endpoint: Endpoint) -> Dialect:
    """The dialect of an endpoint, with what that puts into its requests. Raises as `get`."""
    more = {"unsaid": endpoint.unsaid, "exact": endpoint.exact}
    return get(endpoint.dialect, endpoint.request, **{name: body for name, body in more.items() if body})
