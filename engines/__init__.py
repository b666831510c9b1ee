"""Engine adapters: everything that turns a prompt into tokens.

Nothing here imports the harness, and importing this package loads no engine. An engine is named in a scenario; the
table says where its class is, so that listing the engines costs nothing and a missing library is met only by whoever
asks for it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from engines.base import Engine, EngineError, EngineSpec

BUILT_IN = {
    "http": "engines.http:HttpEngine",
    "llama-server": "engines.llama_server:LlamaServer",
    "simulated": "engines.simulated:SimulatedEngine",
}
PLUGIN_GROUP = "harness.engines"


def names() -> dict[str, str]:
    """Every engine that can be named in a scenario, as name -> "module:Class"; plug-ins may not replace ours."""
    plugins = {point.name: point.value for point in entry_points(group=PLUGIN_GROUP)}
    return plugins | BUILT_IN


def engine_class(name: str) -> type[Engine]:
    """The class of an engine.

    Raises EngineError if no engine has this name or if the library it needs cannot be imported.
    """
    known = names()
    if name not in known:
        raise EngineError(f"there is no engine {name!r}; known are {', '.join(sorted(known))}")
    module_name, _, class_name = known[name].partition(":")
    try:
        found: type[Engine] = getattr(import_module(module_name), class_name)
    except ImportError as error:
        raise EngineError(f"engine {name!r} needs a library that cannot be imported: {error}") from error
    return found


def create(spec: EngineSpec) -> Engine:
    """An engine ready to be started."""
    return engine_class(spec.engine)(spec)
