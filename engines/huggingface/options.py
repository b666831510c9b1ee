"""The options of the `transformers` engine, and what a request's sampling is called in `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Literal

from engines.base import EngineError, Request
from engines.cores import default_threads
from engines.options import DEFAULT_CONTEXT_TOKENS, Positive, read_options

ENGINE = "transformers"
PAGE_TOKENS = 256
_OFF = {"repetition_penalty": 1.0}  # many models' generation_config.json asks for more, in force when greedy too
_CACHE_QUANTIZERS = {"quanto": "optimum.quanto", "hqq": "hqq"}


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the engine.

    device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1".   attention: None is the library's choice.
    cache: the KV cache; "none" computes the whole sequence anew for each token.
    batching: "none", one request at a time through `generate`, others wait; or "continuous", the library's manager.
    max_batch: requests side by side (continuous).   prefix_cache: share equal beginnings of prompts (continuous).
    n_ctx: longest prompt and reply together in tokens; None: what the model was made for, at most 4096.
    n_threads: of torch, None is all cores but one.   compile: let torch compile the decoding, needs cache: static.
    max_memory: most bytes or "2GiB" per device, {"0": "10GiB", "cpu": "20GiB"}; what does not fit goes to the next.
    """

    device: str = "auto"
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    cache: Literal["dynamic", "static", "offloaded", "quantized", "none"] = "dynamic"
    batching: Literal["none", "continuous"] = "none"
    max_batch: Positive = 8
    prefix_cache: bool = True
    n_ctx: Positive | None = None
    n_threads: Positive | None = None
    compile: bool = False
    max_memory: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda") and not self.device.removeprefix("cuda:").isdigit():
            raise ValueError(f"device is auto, cpu, cuda or cuda:N, not {self.device!r}")
        if self.batching == "continuous" and self.cache != "dynamic":
            raise ValueError(f"continuous batching has a cache of its own; leave cache: {self.cache} away")
        if self.compile and self.cache != "static":
            raise ValueError("compile needs cache: static")

    @property
    def threads(self) -> int:
        """Threads of torch."""
        return self.n_threads or default_threads()

    @property
    def continuous(self) -> bool:
        """Whether the library's own continuous batching is asked for."""
        return self.batching == "continuous"

    def context(self, made_for: int | None) -> int:
        """Prompt and reply together, in tokens, for a model that was made for so many."""
        return self.n_ctx or min(made_for or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)

    def pages(self, context_tokens: int) -> int:
        """Pages of the continuous cache: as many as `max_batch` whole contexts need."""
        return -(-context_tokens // PAGE_TOKENS) * self.max_batch

    def in_force(self, context_tokens: int, device: str, attention: str) -> dict[str, Any]:
        """Every option with its default filled in."""
        found = {"n_ctx": context_tokens, "n_threads": self.threads, "device": device, "attention": attention}
        return {**asdict(self), **found}


def parse_options(given: Mapping[str, Any]) -> Options:
    """The options of a scenario, checked; EngineError if one is unknown or has a value that it cannot have."""
    return read_options(Options, given, ENGINE)


def sampling_arguments(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """What to hand to `generate` for a request's sampling: what is absent is 0 or off, as in the other engines.

    Neither the library's defaults (`top_k` 50) nor those of the model's generation_config.json count.
    """
    temperature = sampling.get("temperature") or 0
    if temperature == 0:
        return {"do_sample": False, **_OFF}
    cuts = {"top_k": sampling.get("top_k") or 0, "top_p": 1.0 if sampling.get("top_p") is None else sampling["top_p"]}
    return {"do_sample": True, "temperature": temperature, **cuts, "min_p": None, **_OFF}


def cache_arguments(options: Options, device: str) -> dict[str, Any]:
    """What to hand to `generate` for the cache; EngineError where this environment cannot have it."""
    if options.cache == "none":
        return {"use_cache": False}
    if options.cache == "dynamic":
        return {"use_cache": True}
    if options.cache == "static":
        return {"cache_implementation": "static", "disable_compile": not options.compile}
    if options.cache == "offloaded":
        if device == "cpu":
            raise EngineError("cache: offloaded moves the cache from a GPU to the host; write cache: dynamic on a CPU")
        return {"cache_implementation": "offloaded"}
    backend = next((name for name, module in _CACHE_QUANTIZERS.items() if find_spec(module) is not None), None)
    if backend is None:
        raise EngineError("cache: quantized needs a library: pip install optimum-quanto (or hqq)")
    return {"cache_implementation": "quantized", "cache_config": {"backend": backend, "nbits": 4}}


def new_tokens(request: Request, prompt_tokens: int, context_tokens: int) -> int:
    """How many tokens may be generated; EngineError if the prompt leaves no room."""
    room = context_tokens - prompt_tokens
    if room <= 0:
        raise EngineError(
            f"the prompt has {prompt_tokens} tokens and the context of {context_tokens} has no room for a reply; "
            "raise n_ctx or shorten the prompt"
        )
    return min(request.max_tokens, room)
