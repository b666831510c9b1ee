"""Common parts of the engines `vllm` and `vllm-server`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from engines.base import EngineError, EngineSpec, LevelUnsupported, MemoryEstimate, StartFailed
from engines.options import read_options
from engines.vllm.levels import LEVELS, WHILE_LOADING, check_name
from engines.vllm.model import VllmModel
from engines.vllm.options import DTYPES, VllmOptions


class VllmEngine:
    """Model, levels, devices, and the cause of a failed start. Options: `VllmOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._options = read_options(VllmOptions, spec.options, spec.engine)
        check_name(spec.level)

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        return LEVELS

    @classmethod
    def devices(cls, level: str | None) -> tuple[str, ...]:
        """Return the devices of a level. vLLM quantizes while loading only on GPUs."""
        return ("cuda",) if level in WHILE_LOADING else ("cpu", "cuda")

    def prepare(self) -> Sequence[Path]:
        """Find or fetch the model and choose how its level is loaded."""
        return self._model.weights

    def memory_needed(self) -> MemoryEstimate | None:
        return self._model.memory_needed()

    @cached_property
    def _model(self) -> VllmModel:
        """Model of the spec. Finding it may take minutes."""
        return VllmModel.of(self._spec, self._options)

    def _failed(self, cause: str, *, refused: bool) -> EngineError:
        """Return the error of a failed start. `refused`: the build lacks the level, if it is a quantized one."""
        level = self._model.plan.level
        if refused and level not in DTYPES:
            return LevelUnsupported(f"this build of vllm cannot load the level {level}: {cause}")
        return StartFailed(f"{self._spec.engine} did not start: {cause}")

    def _facts(self, context_tokens: int, cache_tokens: int) -> dict[str, Any]:
        """Return the fields of EngineInfo from the model. `cache_tokens` is the capacity of the KV cache."""
        model = self._model
        per_token = model.kv_bytes_per_token
        return {
            "name": self._spec.engine,
            "model": model.source.name,
            "model_hash": model.model_hash,
            "weight_bytes": model.weight_bytes,
            "context_tokens": context_tokens,
            "parameters": model.shape.parameters if model.shape else None,
            "kv_bytes_per_token": per_token,
            "memory": {"kv_cache": round(cache_tokens * per_token)} if per_token and cache_tokens else {},
        }
