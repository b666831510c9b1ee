"""The options of the three llama.cpp engines, under the names of llama.cpp, and the rules for their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from engines.base import EngineError
from engines.cores import default_threads

CACHE_BYTES = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}
"""What one value takes in the KV cache, by its type: a block of 32 values holds one scale, or a scale and a minimum."""
PLAIN_SAMPLING = {"temperature": 0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
"""What the servers are told where a request does not say it. Their own: 0.8, 40, 0.95, 0.05, and 1.0 or (that of
llama-cpp-python, in force at temperature 0 too) 1.1."""
CACHE_TYPES = tuple(CACHE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaOptions:
    """What all three have.

    n_ctx: context of one request, in tokens. None: what the model was made for, at most 4096.
    n_threads: None is all cores but one.   n_gpu_layers: a number, "all", or None for llama.cpp's own choice.
    n_batch, n_ubatch: the most tokens of a prompt evaluated in one call, and in one piece of it.
    """

    n_ctx: int | None = None
    n_threads: int | None = None
    n_batch: int = 2048
    n_ubatch: int = 512
    n_gpu_layers: int | Literal["all"] | None = None
    flash_attn: bool | Literal["auto"] = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    mmap: bool = True
    mlock: bool = False

    def in_force(self, context_tokens: int) -> dict[str, Any]:
        """Every option with its default filled in; a free port and llama.cpp's own choices stay None."""
        return {**asdict(self), "n_ctx": context_tokens, "n_threads": self.threads}

    @property
    def threads(self) -> int:
        """How many threads compute."""
        return self.n_threads or default_threads()


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppOptions(LlamaOptions):
    """Options of `llama-cpp`.

    prefix_cache: reuse the computed prompt of the request before, as far as both begin the same.
    grammar: GBNF text that every reply keeps to.
    """

    prefix_cache: bool = True
    grammar: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaServerOptions(LlamaOptions):
    """Options of `llama-server`.

    n_parallel: slots, that is, requests generated at the same time; further ones wait. Each has a context of n_ctx.
    cont_batching: let a request join those that are being generated; off: it waits until all slots are idle.
    prefix_cache: reuse the computed prompt of an earlier request that begins the same.
    cache_ram_mib: memory for computed prompts whose slot was given to another; None: llama.cpp's own choice (8,192).
    grammar: GBNF text that every reply keeps to.
    port: None is a free one.   ready_timeout_s: how long loading may take.
    binary: another llama-server to start than the embedded one, by path or by a name on PATH.
    """

    n_parallel: int = 4
    cont_batching: bool = True
    prefix_cache: bool = True
    cache_ram_mib: int | None = None
    grammar: str | None = None
    port: int | None = None
    ready_timeout_s: float = 300.0
    binary: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppServerOptions(LlamaOptions):
    """Options of `llama-cpp-server`, whose flash attention is on or off, and chosen by nobody else.

    state_cache_bytes: how much memory its cache of whole contexts may take, for prompts that begin like one before the
        last; 0: it has none. The beginning that a prompt shares with the one before it is reused in any case.
    ready_timeout_s: how long loading may take.
    """

    flash_attn: bool | Literal["auto"] = False
    state_cache_bytes: int = 0
    ready_timeout_s: float = 300.0


Options = TypeVar("Options", bound=LlamaOptions)

_COUNTS = ("n_ctx", "n_parallel", "n_threads", "n_batch", "n_ubatch")
_SWITCHES = ("mmap", "mlock", "prefix_cache", "cont_batching")
_OPTIONAL = ("n_ctx", "n_threads", "n_gpu_layers", "port", "grammar", "cache_ram_mib", "binary")


def parse_options(kind: type[Options], given: Mapping[str, Any], engine: str) -> Options:
    """The options of a scenario, checked.

    Raises EngineError if one is unknown or has a value that it cannot have.
    """
    known = [field.name for field in fields(kind)]
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise EngineError(f"{engine} has no option {name!r}; {hint}")
        if wanted := _wrong(name, value):
            raise EngineError(f"option {name} of {engine} is {value!r}; it must be {wanted}")
    found = kind(**given)
    if found.cache_type_v not in ("f32", "f16", "bf16") and found.flash_attn is False:
        raise EngineError(
            f"{engine} has cache_type_v {found.cache_type_v} with flash attention alone; set flash_attn: true"
        )
    return found


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
        "grammar": (isinstance(value, str) and "::=" in value, "the text of a GBNF grammar, such as 'root ::= [a-z]+'"),
        "binary": (isinstance(value, str) and value.strip() != "", "the path or the name of a program"),
        "cache_ram_mib": (whole and value >= 0, "a whole number of MiB from 0 up"),
        "state_cache_bytes": (whole and value >= 0, "a whole number from 0 up"),
        "port": (whole and 0 < value < 65536, "a port from 1 to 65535"),
        "ready_timeout_s": ((whole or isinstance(value, float)) and value > 0, "a number of seconds above 0"),
    }
    rules |= dict.fromkeys(_COUNTS, (whole and value > 0, "a whole number above 0"))
    rules |= dict.fromkeys(_SWITCHES, (isinstance(value, bool), "true or false"))
    fine, wanted = rules[name]
    return None if fine else wanted
