"""Wire formats: how a request is written down for a server, and how its answer is read.

A dialect is two pure functions (see `engines.dialects.base.Dialect`); it opens no sockets and holds no clocks.
"""

from __future__ import annotations

from importlib import import_module

from engines.base import EngineError
from engines.dialects.base import Dialect

DIALECTS: dict[str, str] = {
    "openai-completions": "engines.dialects.openai:OpenAICompletions",
    "openai-chat": "engines.dialects.openai:OpenAIChat",
}


def get(name: str) -> Dialect:
    """The dialect of this name.

    Raises EngineError if there is none.
    """
    if name not in DIALECTS:
        raise EngineError(f"there is no dialect {name!r}; known are {', '.join(sorted(DIALECTS))}")
    module_name, _, class_name = DIALECTS[name].partition(":")
    found: Dialect = getattr(import_module(module_name), class_name)()
    return found
