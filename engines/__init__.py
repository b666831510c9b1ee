"""Engine adapters, by name.

Importing this package loads no engine: `BUILT_IN` names the class of each. So listing the engines costs nothing, and a
missing library is an error only for the engine that needs it.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import NamedTuple

from engines.base import Engine, EngineError, EngineSpec

BUILT_IN = {
    "http": "engines.http.engine:HttpEngine",
    "llama-cpp": "engines.llamacpp.embedded:LlamaCpp",
    "llama-cpp-server": "engines.llamacpp.python_server:LlamaCppServer",
    "llama-server": "engines.llamacpp.server:LlamaServer",
    "simulated": "engines.simulated:SimulatedEngine",
    "transformers": "engines.huggingface.engine:Transformers",
    "vllm": "engines.vllm.engine:Vllm",
    "vllm-server": "engines.vllm.server:VllmServer",
}
PLUGIN_GROUP = "harness.engines"
__all__ = [
    "BUILT_IN",
    "Engine",
    "EngineError",
    "EngineSpec",
    "clashes",
    "create",
    "engine_class",
    "missing_library",
    "names",
]


class Library(NamedTuple):
    """Module that an engine needs beside the base installation, and the command that installs it."""

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


class PlugIn(NamedTuple):
    """Engine of another distribution: name, "module:Class", and the distribution's name with its version."""

    name: str
    value: str
    package: str


def plug_ins() -> list[PlugIn]:
    """Return all installed plug-ins by name and package, including those with a name that is taken."""
    found = entry_points(group=PLUGIN_GROUP)
    packages = [f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package" for point in found]
    listed = {PlugIn(point.name, point.value, package) for point, package in zip(found, packages, strict=True)}
    return sorted(listed, key=lambda one: (one.name, one.package))


def names() -> dict[str, str]:
    """Return every engine that a scenario can name, as name -> "module:Class".

    A plug-in replaces no built-in engine. If two plug-ins have one name, the first package in alphabetical order wins.
    """
    return {one.name: one.value for one in reversed(plug_ins())} | BUILT_IN


def clashes() -> dict[str, str]:
    """Return a warning for each engine name that an unused plug-in has too."""
    warnings: dict[str, str] = {}
    seen: dict[str, str] = dict.fromkeys(BUILT_IN, "the built-in engine")
    for one in plug_ins():
        if one.name in seen:
            warnings[one.name] = (
                f"{one.package} has an engine of this name too, which is not used: {seen[one.name]} is; rename it there"
            )
        seen.setdefault(one.name, f"that of {one.package}")
    return warnings


def engine_class(name: str) -> type[Engine]:
    """Return the class of an engine.

    Raises EngineError if no engine has this name, its library cannot be imported, or its plug-in is broken.
    """
    if name not in BUILT_IN:
        own = next((one for one in plug_ins() if one.name == name), None)
        if own is not None:
            return _plugged_in(own)
        raise EngineError(f"there is no engine {name!r}; known are {', '.join(sorted(names()))}")
    module_name, _, class_name = BUILT_IN[name].partition(":")
    try:
        found: type[Engine] = getattr(import_module(module_name), class_name)
    except ImportError as error:
        raise EngineError(f"engine {name!r} needs a library that cannot be imported: {error}") from error
    return found


def _plugged_in(plug_in: PlugIn) -> type[Engine]:
    """Return the class of a plug-in. Its module may raise anything."""
    module_name, _, class_name = plug_in.value.partition(":")
    what = f"engine {plug_in.name!r} of {plug_in.package}"
    try:
        found: type[Engine] = getattr(import_module(module_name), class_name)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise EngineError(f"{what} cannot be imported ({why}); repair or uninstall that package") from error
    lacking = [method for method in ("levels", "prepare", "start", "stop") if not hasattr(found, method)]
    if lacking or hasattr(found, "generate") == hasattr(found, "endpoint"):
        why = f"lacks {', '.join(lacking)}" if lacking else "must have exactly one of generate and endpoint"
        raise EngineError(f"{what} is no engine: {plug_in.value} {why}")
    return found


def missing_library(name: str, python: str | None = None) -> str | None:
    """Return which library an engine lacks and how to install it; None if the library is found. Import nothing.

    Args:
        python: Interpreter that would run the engine. None is this one.
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
    program = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    command = [python, "-P", "-c", program]
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def create(spec: EngineSpec) -> Engine:
    """Return an engine that is ready to be started."""
    return engine_class(spec.engine)(spec)
