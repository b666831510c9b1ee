"""What the engines `vllm` and `vllm-server` have alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.base import EngineError, EngineSpec, LevelUnsupported, MemoryEstimate, StartFailed
from engines.options import read_options
from engines.vllm.levels import LEVELS, WHILE_LOADING, check_name
from engines.vllm.model import VllmModel
from engines.vllm.options import DTYPES, VllmOptions


class VllmEngine:
    """The model, its levels and where they run; what a failed start means. Options: `VllmOptions`."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._options = read_options(VllmOptions, spec.options, spec.engine)
        check_name(spec.level)
        self._found: VllmModel | None = None

    @classmethod
    def levels(cls) -> tuple[str, ...]:
        """The types it computes in, the methods it quantizes with while loading, those of checkpoints made before."""
        return LEVELS

    @classmethod
    def devices(cls, level: str | None) -> tuple[str, ...]:
        """vLLM quantizes while loading on GPUs alone."""
        return ("cuda",) if level in WHILE_LOADING else ("cpu", "cuda")

    def prepare(self) -> Sequence[Path]:
        """Find or fetch the model and settle how its level is had."""
        return self._model.weights

    def memory_needed(self) -> MemoryEstimate | None:
        """From below; see `VllmModel.memory_needed`."""
        return self._model.memory_needed()

    @property
    def _model(self) -> VllmModel:
        """The model; finding it may take minutes."""
        if self._found is None:
            self._found = VllmModel.of(self._spec, self._options)
        return self._found

    def _failed(self, cause: str, *, refused: bool) -> EngineError:
        """What a failed start means. refused: the build has no such level, if it is one that is quantized."""
        level = self._model.plan.level
        if refused and level not in DTYPES:
            return LevelUnsupported(f"this build of vllm cannot load the level {level}: {cause}")
        return StartFailed(f"{self._spec.engine} did not start: {cause}")

    def _facts(self, context_tokens: int, cache_tokens: int) -> dict[str, Any]:
        """The fields of EngineInfo that the model tells. cache_tokens: what the KV cache has room for."""
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
