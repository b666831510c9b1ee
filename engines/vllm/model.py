"""Arguments and environment of vLLM for a model, for both engines."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engines.base import NO_USAGE_REPORTS, EngineError, EngineSpec, MemoryEstimate, ModelError, device_environment
from engines.cores import cpu_quota_cores, default_threads, one_of_each_core
from engines.models import source as models
from engines.models.shape import ModelShape, shape_of
from engines.models.types import ModelSource
from engines.vllm.levels import BYTES_PER_WEIGHT, LEAST_BYTES_PER_WEIGHT, LevelPlan, has_window, level_plan
from engines.vllm.options import VllmOptions

LORA_ID = 1
LORA_NAME = "lora"
_GIB = 1 << 30
_LARGEST_DEFAULT_CACHE_GIB = 4
_USUAL_REQUESTS = 128
_DEFAULT_CONTEXT_TOKENS = 4096
# Measured for `tiny` with the CPU build: all processes together, without weights and KV cache.
RUNTIME_BYTES = 1_400_000_000
_BOUND = re.compile(r"local_rank=\d+, core ids=\[([\d, ]+)\]")
_QUIET = {**NO_USAGE_REPORTS, "HF_HUB_OFFLINE": "1"}  # the model is on disk already


@dataclass(frozen=True, slots=True)
class VllmModel:
    """Result of prepare(): the model and how it is loaded."""

    spec: EngineSpec
    options: VllmOptions
    source: ModelSource
    weights: tuple[Path, ...]
    plan: LevelPlan
    shape: ModelShape | None
    model_hash: str

    @classmethod
    def of(cls, spec: EngineSpec, options: VllmOptions) -> VllmModel:
        """Find or fetch the model and choose how it is loaded. Raises ModelError or LevelUnsupported."""
        if spec.model is None:
            raise EngineError(f"{spec.engine} needs a model; name one, for example model: tiny")
        source = models.resolve(spec.model)
        if source.kind == "gguf":
            raise ModelError(f"vllm loads folders in the Hugging Face layout, not {source.path.name}; name such a one")
        weights = tuple(models.weight_files(source))
        plan = level_plan(spec.level, options, source, weights)
        # Hashed before start(), which is timed.
        return cls(spec, options, source, weights, plan, shape_of(source.path), models.content_hash(source))

    @property
    def weight_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.weights)

    @property
    def context_tokens(self) -> int:
        """Context that will be in force, as far as known before the start."""
        made_for = self.shape.context_tokens if self.shape else None
        return self.options.max_model_len or made_for or _DEFAULT_CONTEXT_TOKENS

    @property
    def kv_bytes_per_token(self) -> float | None:
        """Size of a token in the KV cache, None if the model's shape is unknown."""
        if self.shape is None:
            return None
        cache = self.options.kv_cache_dtype or "auto"
        narrow = cache.startswith(("fp8", "int8"))
        wide = self.plan.dtype == "float32" if cache == "auto" else cache == "float32"
        return self.shape.kv_bytes_per_token(1.0 if narrow else 4.0 if wide else 2.0)

    @property
    def lora(self) -> Path | None:
        """Folder of the adapter. Raises ModelError if it is not in PEFT's layout."""
        assert self.spec.model is not None
        if self.spec.model.lora is None:
            return None
        path = Path(self.spec.model.lora).expanduser()
        if not (path / "adapter_config.json").is_file():
            raise ModelError(f"the adapter {path} has no adapter_config.json; name a folder in PEFT's layout")
        return path.resolve()

    def arguments(self) -> dict[str, Any]:
        """Return vLLM's engine arguments, under its names."""
        ours: dict[str, Any] = {
            "model": str(self.source.path),
            "served_model_name": self.source.name,
            "max_logprobs": -1,  # no limit: scoring needs the whole vocabulary
        }
        if self.lora is not None:
            adapter = models.json_file(self.lora / "adapter_config.json")
            ours |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _allowed_rank(int(adapter.get("r", 16)))}
        ours |= self.options.engine_arguments()
        ours["dtype"] = self.plan.dtype
        return ours | ({"quantization": self.plan.quantization} if self.plan.quantization else {})

    def environment(self) -> dict[str, str]:
        """Return vLLM's environment variables. The scenario's `env` takes precedence."""
        settings = {**_QUIET, "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}  # a process with threads must not be forked
        if self._sized_by_us:
            settings["VLLM_CPU_KVCACHE_SPACE"] = str(self.cpu_cache_gib)
        if self.device == "cpu" and self.threads is not None:
            settings |= _on_threads(self.threads, one_of_each_core(), cpu_quota_cores())
        return {**settings, **device_environment(self.spec.devices), **self.spec.env}

    @property
    def threads(self) -> int | None:
        """Threads that compute on a CPU, as in the other engines; None if vLLM divides them among several ranks."""
        if self.options.tensor_parallel_size > 1:
            return None
        return self.options.n_threads or default_threads()

    @property
    def _sized_by_us(self) -> bool:
        return self.options.gpu_memory_utilization is None or self.options.kv_cache_space_gib is not None

    @property
    def cpu_cache_gib(self) -> int:
        """Size of the KV cache on a CPU, because vLLM's default would take nearly all memory.

        By default it fits `max_num_seqs` whole contexts, at most 4 GiB, but at least one context.
        """
        if self.options.kv_cache_space_gib is not None:
            return self.options.kv_cache_space_gib
        one = self.context_tokens * (self.kv_bytes_per_token or 0) / _GIB
        all_of_them = one * (self.options.max_num_seqs or _USUAL_REQUESTS)
        return max(1, math.ceil(one), min(_LARGEST_DEFAULT_CACHE_GIB, math.ceil(all_of_them)))

    def memory_needed(self) -> MemoryEstimate:
        """Return a lower bound: the weights at their level, the KV cache, and on a CPU the measured runtime.

        On a CPU the whole cache is allocated at once. On a GPU it fills what is free; one context is needed to start.
        The cache of models with a sliding window is left out: most of their layers keep less than the context.
        """
        device = self.device
        size = BYTES_PER_WEIGHT.get(self.plan.level, LEAST_BYTES_PER_WEIGHT if self.plan.quantization else None)
        counted = self.shape.parameters if self.shape else None
        weights = round(counted * size) if counted and size else self.weight_bytes
        if device == "cpu" and self._sized_by_us:
            parts = {"weights": weights, "kv_cache": self.cpu_cache_gib * _GIB, "runtime": RUNTIME_BYTES}
            return MemoryEstimate(device, parts)
        tokens = 0 if has_window(self.source) else self.context_tokens
        cache = round(tokens * (self.kv_bytes_per_token or 0))
        return MemoryEstimate(device, {"weights": weights, "kv_cache": cache})

    def threads_in_force(self, log: str) -> int | None:
        """Return the threads that compute: by vLLM's log of their binding, else as configured; None on a GPU."""
        if self.device != "cpu":
            return None
        bound = [len(cores.split(",")) for cores in _BOUND.findall(log)]
        configured = self.environment().get("OMP_NUM_THREADS", "")
        return sum(bound) or (int(configured) if configured.isdecimal() else self.threads)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Device that will compute, as far as known before the start."""
        on_gpu = self.spec.devices != ("cpu",) and Path("/dev/nvidiactl").exists()
        return "cuda" if on_gpu else "cpu"


def _on_threads(threads: int, cores: Sequence[int], quota: float | None) -> dict[str, str]:
    """Return the variables that bind each thread to a core, as vLLM does.

    Not under a quota: all control groups on the machine would bind their threads to the same cores. Nor with fewer
    cores than threads.
    """
    if threads > len(cores) or (quota is not None and quota < len(cores)):
        return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    return {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores[:threads]))}


def _allowed_rank(rank: int) -> int:
    """Return the smallest maximum that vLLM accepts for adapters of this rank."""
    return next((size for size in (8, 16, 32, 64, 128, 256, 320, 512) if size >= rank), rank)
