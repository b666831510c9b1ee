"""Options of the three llama.cpp engines, under the names of llama.cpp, and their valid values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from engines.base import EngineError
from engines.cores import default_threads
from engines.options import read_options

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
"""Bytes of one value in the KV cache, by type: a block of 32 values has one scale, or a scale and a minimum."""
PLAIN_SAMPLING = {"temperature": 0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
"""Sampling sent to the servers for settings that a request leaves out. Their defaults are 0.8, 40, 0.95, 0.05, and 1.0
or 1.1 (llama-cpp-python, in force at temperature 0 too)."""
ALL_LAYERS = -2
"""llama.cpp's number for all layers on a GPU."""
CacheType = Annotated[
    Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"],
    Field(description=f"one of {', '.join(CACHE_BYTES)}"),
]
Count = Annotated[int, Field(gt=0, description="a whole number above 0")]
Bytes = Annotated[int, Field(ge=0, description="a whole number from 0 up")]
Switch = Annotated[bool, Field(description="true or false")]
Grammar = Annotated[str, Field(pattern="::=", description="the text of a GBNF grammar, such as 'root ::= [a-z]+'")]
Seconds = Annotated[float, Field(gt=0, description="a number of seconds above 0")]
Layers = Annotated[
    Annotated[int, Field(ge=0)] | Literal["all"], Field(description='a whole number from 0 up, or "all"')
]
FlashAttention = Annotated[bool | Literal["auto"], Field(description='true, false or "auto"')]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaOptions:
    """Common options.

    Attributes:
        n_ctx: Context of one request in tokens. None is the model's maximum, at most 4096.
        n_threads: None is all cores but one.
        n_gpu_layers: A number, "all", or None for llama.cpp's choice.
        n_batch: Maximum prompt tokens evaluated in one call.
        n_ubatch: Maximum prompt tokens evaluated in one part of a call.
    """

    n_ctx: Count | None = None
    n_threads: Count | None = None
    n_batch: Count = 2048
    n_ubatch: Count = 512
    n_gpu_layers: Layers | None = None
    flash_attn: FlashAttention = "auto"
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    mmap: Switch = True
    mlock: Switch = False

    def in_force(self, context_tokens: int) -> dict[str, Any]:
        """Return all options with defaults filled in. A free port and llama.cpp's own choices stay None."""
        return {**asdict(self), "n_ctx": context_tokens, "n_threads": self.threads}

    @property
    def threads(self) -> int:
        return self.n_threads or default_threads()

    @property
    def slots(self) -> int:
        """Requests generated at the same time."""
        return 1

    @property
    def load_mode(self) -> str:
        """Member of llama.cpp's llama_load_mode."""
        chosen = ["MMAP"] * self.mmap + ["MLOCK"] * self.mlock
        return "LLAMA_LOAD_MODE_" + ("_".join(chosen) or "NONE")

    @property
    def flash_attn_type(self) -> str:
        """Member of llama.cpp's llama_flash_attn_type."""
        return "LLAMA_FLASH_ATTN_TYPE_" + {True: "ENABLED", False: "DISABLED", "auto": "AUTO"}[self.flash_attn]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppOptions(LlamaOptions):
    """Options of `llama-cpp`.

    Attributes:
        prefix_cache: Reuse the computed prompt of the previous request, as far as both begin alike.
        grammar: GBNF text that every reply follows.
    """

    prefix_cache: Switch = True
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaServerOptions(LlamaOptions):
    """Options of `llama-server`.

    Attributes:
        n_parallel: Slots: requests generated at the same time; further ones wait. Each has a context of n_ctx.
        cont_batching: Let a request join those in progress. If off, it waits until all slots are idle.
        prefix_cache: Reuse the computed prompt of an earlier request that begins alike.
        cache_ram_mib: Memory for computed prompts whose slot was reassigned. None is llama.cpp's choice (8,192).
        grammar: GBNF text that every reply follows.
        port: None is a free one.
        ready_timeout_s: Time limit of loading.
        binary: llama-server to start instead of the embedded one, by path or by a name on PATH.
    """

    n_parallel: Count = 4
    cont_batching: Switch = True
    prefix_cache: Switch = True
    cache_ram_mib: Annotated[int, Field(ge=0, description="a whole number of MiB from 0 up")] | None = None
    grammar: Grammar | None = None
    port: Annotated[int, Field(ge=1, le=65535, description="a port from 1 to 65535")] | None = None
    ready_timeout_s: Seconds = 300.0
    binary: Annotated[str, Field(pattern=r"\S", description="the path or the name of a program")] | None = None

    @property
    def slots(self) -> int:
        return self.n_parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppServerOptions(LlamaOptions):
    """Options of `llama-cpp-server`. Its flash attention is on or off, without an automatic choice.

    Attributes:
        state_cache_bytes: Memory for its cache of whole contexts, for prompts that begin like one before the last. 0 is
            no cache. The common beginning with the previous prompt is reused in any case.
        ready_timeout_s: Time limit of loading.
    """

    flash_attn: FlashAttention = False
    state_cache_bytes: Bytes = 0
    ready_timeout_s: Seconds = 300.0


Options = TypeVar("Options", bound=LlamaOptions)


def parse_options(kind: type[Options], given: Mapping[str, Any], engine: str) -> Options:
    """Return the checked options of a scenario. Raises EngineError for an unknown or invalid one."""
    found = read_options(kind, given, engine)
    if found.cache_type_v not in ("f32", "f16", "bf16") and found.flash_attn is False:
        raise EngineError(
            f"{engine} has cache_type_v {found.cache_type_v} only with flash attention; set flash_attn: true"
        )
    return found
