"""Options of the `transformers` engine, and the sampling arguments of `generate`."""

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
_OFF = {"repetition_penalty": 1.0}  # many models' generation_config.json sets more, in force when greedy too
_CACHE_QUANTIZERS = {"quanto": "optimum.quanto", "hqq": "hqq"}


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the engine."""

    device: str = "auto"  # "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1"
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None  # None is the library's choice
    # KV cache; "none" recomputes the whole sequence for each token.
    cache: Literal["dynamic", "static", "offloaded", "quantized", "none"] = "dynamic"
    batching: Literal["none", "continuous"] = "none"  # one request at a time, or the library's manager
    max_batch: Positive = 8  # concurrent requests of continuous batching
    prefix_cache: bool = True  # share equal beginnings of prompts in continuous batching
    n_ctx: Positive | None = None  # tokens of prompt and reply together; None is the model's maximum, at most 4096
    n_threads: Positive | None = None  # of torch; None is all cores but one
    compile: bool = False  # compile the decoding with torch; needs `cache: static`
    # Maximum bytes or "2GiB" per device, {"0": "10GiB", "cpu": "20GiB"}. The rest goes to the next device.
    max_memory: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "cuda") and not self.device.removeprefix("cuda:").isdigit():
            raise ValueError(f"device is auto, cpu, cuda or cuda:N, not {self.device!r}")
        if self.batching == "continuous" and self.cache != "dynamic":
            raise ValueError(f"continuous batching has a cache of its own; leave cache: {self.cache} out")
        if self.compile and self.cache != "static":
            raise ValueError("compile needs cache: static")

    @property
    def threads(self) -> int:
        return self.n_threads or default_threads()

    @property
    def continuous(self) -> bool:
        return self.batching == "continuous"

    def context(self, made_for: int | None) -> int:
        """Return the maximum tokens of prompt and reply, given the model's maximum."""
        return self.n_ctx or min(made_for or DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS)

    def pages(self, context_tokens: int) -> int:
        """Return the pages of the continuous cache: enough for `max_batch` whole contexts."""
        return -(-context_tokens // PAGE_TOKENS) * self.max_batch

    def in_force(self, context_tokens: int, device: str, attention: str) -> dict[str, Any]:
        """Return all options with their defaults filled in."""
        found = {"n_ctx": context_tokens, "n_threads": self.threads, "device": device, "attention": attention}
        return {**asdict(self), **found}


def parse_options(given: Mapping[str, Any]) -> Options:
    """Return the checked options of a scenario. Raises EngineError for an unknown or invalid one."""
    return read_options(Options, given, ENGINE)


def sampling_arguments(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `generate` for a request's sampling. An absent setting is 0 or off.

    Neither the library's defaults (`top_k` 50) nor those of the model's generation_config.json apply.
    """
    temperature = sampling.get("temperature") or 0
    if temperature == 0:
        return {"do_sample": False, **_OFF}
    cuts = {"top_k": sampling.get("top_k") or 0, "top_p": 1.0 if sampling.get("top_p") is None else sampling["top_p"]}
    return {"do_sample": True, "temperature": temperature, **cuts, "min_p": None, **_OFF}


def cache_arguments(options: Options, device: str) -> dict[str, Any]:
    """Return the arguments of `generate` for the cache. Raises EngineError if it is unavailable here."""
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
    """Return the maximum number of new tokens. Raises EngineError if the prompt fills the context."""
    room = context_tokens - prompt_tokens
    if room <= 0:
        why = f"the prompt has {prompt_tokens} tokens and the context of {context_tokens} has no room for a reply"
        raise EngineError(f"{why}; raise n_ctx or shorten the prompt")
    return min(request.max_tokens, room)
