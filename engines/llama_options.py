"""The options of the `llama-server` engine, and what they are called in xllamacpp."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from engines.base import EngineError

DEFAULT_CONTEXT_TOKENS = 4096
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_LOG_WARNINGS = 2
_ALL_LAYERS = -2


def _default_threads() -> int:
    """All cores but one, which the measuring client needs."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the engine, under the names of llama.cpp.

    n_ctx: context of one slot, in tokens; the server is given n_parallel times as much, because it divides its context
    among the slots. None: what the model was made for, at most 4096.
    n_parallel: slots, that is, requests generated at the same time; further ones wait.
    n_threads: None is all cores but one.   n_gpu_layers: a number, "all", or None for llama.cpp's own choice.
    prefix_cache: reuse the computed prompt of an earlier request that begins the same.
    port: None is a free one.   ready_timeout_s: how long loading may take.
    """

    n_ctx: int | None = None
    n_parallel: int = 4
    n_threads: int | None = None
    n_batch: int = 2048
    n_ubatch: int = 512
    n_gpu_layers: int | Literal["all"] | None = None
    flash_attn: bool | Literal["auto"] = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    mmap: bool = True
    mlock: bool = False
    prefix_cache: bool = True
    port: int | None = None
    ready_timeout_s: float = 300.0

    def in_force(self, context_tokens: int) -> dict[str, Any]:
        """Every option with its default filled in; a free port and llama.cpp's own choices stay None."""
        filled = {"n_ctx": context_tokens, "n_threads": self.n_threads or _default_threads()}
        return {**asdict(self), **filled}


_COUNTS = ("n_ctx", "n_parallel", "n_threads", "n_batch", "n_ubatch")
_SWITCHES = ("mmap", "mlock", "prefix_cache")
_OPTIONAL = ("n_ctx", "n_threads", "n_gpu_layers", "port")


def parse_options(given: Mapping[str, Any]) -> Options:
    """The options of a scenario, checked.

    Raises EngineError if one is unknown or has a value that it cannot have.
    """
    known = [field.name for field in fields(Options)]
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise EngineError(f"llama-server has no option {name!r}; {hint}")
        if wanted := _wrong(name, value):
            raise EngineError(f"option {name} of llama-server is {value!r}; it must be {wanted}")
    return Options(**given)


def _wrong(name: str, value: Any) -> str | None:
    """What the option must be, None if it is."""
    if value is None and name in _OPTIONAL:
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    rules: dict[str, tuple[bool, str]] = {
        "n_gpu_layers": ((whole and value >= 0) or value == "all", 'a whole number from 0 up, or "all"'),
        "flash_attn": (isinstance(value, bool) or value == "auto", 'true, false or "auto"'),
        "cache_type_k": (value in CACHE_TYPES, f"one of {', '.join(CACHE_TYPES)}"),
        "cache_type_v": (value in CACHE_TYPES, f"one of {', '.join(CACHE_TYPES)}"),
        "port": (whole and 0 < value < 65536, "a port from 1 to 65535"),
        "ready_timeout_s": ((whole or isinstance(value, float)) and value > 0, "a number of seconds above 0"),
    }
    rules |= dict.fromkeys(_COUNTS, (whole and value > 0, "a whole number above 0"))
    rules |= dict.fromkeys(_SWITCHES, (isinstance(value, bool), "true or false"))
    fine, wanted = rules[name]
    return None if fine else wanted


def server_parameters(options: Options, gguf: Path, alias: str, context_tokens: int) -> dict[str, Any]:
    """What to set in xllamacpp.CommonParams, as JSON; the notation is described in `llama_server_child`."""
    threads = options.n_threads or _default_threads()
    load_mode = {
        (True, False): "MMAP",
        (True, True): "MMAP_MLOCK",
        (False, True): "MLOCK",
        (False, False): "NONE",
    }[options.mmap, options.mlock]
    flash = {True: "ENABLED", False: "DISABLED", "auto": "AUTO"}[options.flash_attn]
    parameters: dict[str, Any] = {
        "model.path": str(gguf),
        "model_alias": [alias],
        "n_ctx": context_tokens * options.n_parallel,
        "n_parallel": options.n_parallel,
        "cpuparams.n_threads": threads,
        "cpuparams_batch.n_threads": threads,
        "n_batch": options.n_batch,
        "n_ubatch": options.n_ubatch,
        "flash_attn_type": _member("llama_flash_attn_type", f"LLAMA_FLASH_ATTN_TYPE_{flash}"),
        "cache_type_k": _member("ggml_type", f"GGML_TYPE_{options.cache_type_k.upper()}"),
        "cache_type_v": _member("ggml_type", f"GGML_TYPE_{options.cache_type_v.upper()}"),
        "load_mode": _member("llama_load_mode", f"LLAMA_LOAD_MODE_{load_mode}"),
        "cache_prompt": options.prefix_cache,
        "port": options.port or 0,
        "endpoint_metrics": True,
        "ui": False,
        "offline": True,
        "verbosity": _LOG_WARNINGS,
    }
    if not options.prefix_cache:
        parameters["cache_ram_mib"] = 0
    if options.n_gpu_layers is not None:
        parameters["n_gpu_layers"] = _ALL_LAYERS if options.n_gpu_layers == "all" else options.n_gpu_layers
    return parameters


def _member(enumeration: str, member: str) -> dict[str, str]:
    return {"enum": enumeration, "member": member}
