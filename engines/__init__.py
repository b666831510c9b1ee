"""Engine adapters: everything that turns a prompt into tokens.

Nothing here imports the harness, and importing this package loads no engine. An engine is named in a scenario; the
table says where its class is, so that listing the engines costs nothing and a missing library is met only by whoever
asks for it.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec

from engines.base import Engine, EngineError, EngineSpec

BUILT_IN = {
    "http": "engines.http:HttpEngine",
    "llama-cpp": "engines.llamacpp:LlamaCpp",
    "llama-cpp-server": "engines.llamacpp_server:LlamaCppServer",
    "llama-server": "engines.llama_server:LlamaServer",
    "simulated": "engines.simulated:SimulatedEngine",
    "transformers": "engines.huggingface:Transformers",
    "vllm": "engines.vllm_engine:Vllm",
    "vllm-server": "engines.vllm_server:VllmServer",
}
PLUGIN_GROUP = "harness.engines"


@dataclass(frozen=True, slots=True)
class Library:
    """What an engine needs beside the base installation. module: what is imported; install: how it is had."""

    module: str
    install: str


_TRANSFORMERS = Library("transformers", "pip install 'inference-harness[transformers]'")
_VLLM = Library("vllm", "pip install 'inference-harness[vllm]', or name an interpreter that has it with `python`")
_LLAMA_CPP = "pip install 'inference-harness[llama-cpp]'"
LIBRARIES = {
    "llama-cpp": Library("llama_cpp", _LLAMA_CPP),
    "llama-cpp-server": Library("llama_cpp", _LLAMA_CPP),
    "llama-server": Library("xllamacpp", "pip install xllamacpp"),
    "transformers": _TRANSFORMERS,
    "vllm": _VLLM,
    "vllm-server": _VLLM,
}


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


def missing_library(name: str, python: str | None = None) -> str | None:
    """What an engine lacks here and how to install it, in one sentence; None where its library can be found.

    Nothing is imported.   python: the interpreter that would run the engine; None: this one.
    """
    library = LIBRARIES.get(name)
    if library is None or _has_module(python, library.module):
        return None
    where = "" if python is None else f" in the environment of {python}"
    return f"{name} needs the library {library.module}, which is not installed{where}: {library.install}"


@cache
def _has_module(python: str | None, module: str) -> bool:
    if python is None or python == sys.executable:
        return find_spec(module) is not None
    looked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    try:
        return (
            subprocess.run([python, "-P", "-c", looked], check=False, capture_output=True, timeout=60).returncode == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def create(spec: EngineSpec) -> Engine:
    """An engine ready to be started."""
    return engine_class(spec.engine)(spec)
