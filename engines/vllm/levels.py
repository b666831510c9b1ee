"""Quantization levels of vLLM: engine arguments of a level, and the checkpoints that allow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import EngineError, LevelUnsupported, ModelError
from engines.models import safetensors_io
from engines.models.source import json_file
from engines.models.types import ModelSource
from engines.vllm.options import DTYPES, VllmOptions

WHILE_LOADING = ("fp8", "bitsandbytes")
BEFOREHAND = ("awq", "gptq", "compressed-tensors")
LEVELS = (*DTYPES, *WHILE_LOADING, *BEFOREHAND)
BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0}
LEAST_BYTES_PER_WEIGHT = 0.5  # of any other method that quantizes while loading
_STORED = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
# vLLM's name of a method includes the kernels it uses.
_SAME_METHOD = {"awq_marlin": "awq", "auto_awq": "awq", "gptq_marlin": "gptq", "auto_gptq": "gptq"}
# These silently leave every other layer unchanged; measured: the same logits as fp16, bit for bit.
_FOR_EXPERTS_ALONE = ("int8_per_channel_weight_only", "experts_int8")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_WINDOWS = ("sliding_window", "attention_chunk_size")


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """Arguments of vLLM for a level."""

    level: str  # resulting level of the weights
    dtype: str  # compute type
    quantization: str | None  # method, None for plain weights


def level_plan(level: str | None, options: VllmOptions, source: ModelSource, weights: Sequence[Path]) -> LevelPlan:
    """Return how to load a folder at a level; None loads it as stored.

    Raises LevelUnsupported if the level cannot be made from this checkpoint, EngineError if options contradict.
    """
    check_name(level)
    if options.quantization is not None and level is not None:
        raise EngineError(f"write the level {level} or the option quantization: {options.quantization}, not both")
    stored = stored_method(source)
    if stored is not None:
        if level not in (None, stored) or options.quantization not in (None, stored):
            why = f"{source.name} is quantized already, with {stored}"
            raise LevelUnsupported(f"{why}: name the level {stored}, or none, or its folder in full precision")
        return LevelPlan(stored, options.dtype or "auto", None)  # vLLM takes the method from the checkpoint itself
    if level in BEFOREHAND:
        why = f"level {level} needs a checkpoint that is quantized to it, which {source.name} is not"
        raise LevelUnsupported(f"{why}: quantize it with a tool for {level} and name that folder")
    if level in WHILE_LOADING or options.quantization is not None:
        method = options.quantization or str(level)
        if method in _FOR_EXPERTS_ALONE and not any(_config(source).get(key) for key in _EXPERTS):
            why = f"{method} quantizes only experts, and {source.name} has none"
            raise LevelUnsupported(f"{why}: it would have no effect")
        return LevelPlan(level_of(method), options.dtype or "auto", method)
    named = next((level for level, dtype in DTYPES.items() if dtype == options.dtype), None)
    plain = level or named or _stored_type(weights)
    if options.dtype not in (None, "auto", DTYPES.get(plain)):
        raise EngineError(f"level {plain} computes in {DTYPES[plain]}: leave the option dtype: {options.dtype} out")
    return LevelPlan(plain, DTYPES[plain], None)


def check_name(level: str | None) -> None:
    """Raise LevelUnsupported for a level that no checkpoint has."""
    if level is not None and level not in LEVELS:
        raise LevelUnsupported(f"vllm has no level {level!r}; it has {', '.join(LEVELS)}")


def stored_method(source: ModelSource) -> str | None:
    """Return the quantization method in a checkpoint's config.json; None if it is not quantized."""
    config = _config(source)
    section = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(section, dict):
        return None
    return level_of(str(section.get("quant_method", "unknown")))


def has_window(source: ModelSource) -> bool:
    """Return True if layers keep only a window of the context in the KV cache, by the model's config.json."""
    config = _config(source)
    config = {**config, **(config.get("text_config") or {})}
    return any(config.get(key) for key in _WINDOWS) and config.get("use_sliding_window") is not False


def level_of(method: str) -> str:
    """Return the level that a method of vLLM makes, regardless of its kernels."""
    return _SAME_METHOD.get(method, method)


def _config(source: ModelSource) -> dict[str, Any]:
    content: dict[str, Any] = json_file(source.path / "config.json")
    return content


def _stored_type(weights: Sequence[Path]) -> str:
    """Return the type of most of the weights. vLLM's own `auto` would narrow float32."""
    tensors = (tensor for path in weights for tensor in safetensors_io.read(path).values())
    found = safetensors_io.commonest_type(tensors, _STORED)
    if found is not None:
        return _STORED[found]
    raise ModelError("the weights are neither F32, F16 nor BF16; name the level to load them at")
