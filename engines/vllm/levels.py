"""Quantization levels of vLLM: what a level asks of the engine, and whether a checkpoint can be had at it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import EngineError, LevelUnsupported, ModelError
from engines.models import safetensors_io
from engines.models.types import ModelSource
from engines.vllm.options import DTYPES, VllmOptions

WHILE_LOADING = ("fp8", "bitsandbytes")
BEFOREHAND = ("awq", "gptq", "compressed-tensors")
LEVELS = (*DTYPES, *WHILE_LOADING, *BEFOREHAND)
BYTES_PER_WEIGHT = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0}
_STORED = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}
# vLLM names the kernels that it takes for a method in its name.
_SAME_METHOD = {"awq_marlin": "awq", "auto_awq": "awq", "gptq_marlin": "gptq", "auto_gptq": "gptq"}
# These leave every other layer as it is, without a word; measured: the same logits as fp16, bit for bit.
_FOR_EXPERTS_ALONE = ("int8_per_channel_weight_only", "experts_int8")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


@dataclass(frozen=True, slots=True)
class LevelPlan:
    """How vLLM is told to load.

    level: what the weights will be.   dtype: in which type it computes.   quantization: the method, None: plain.
    """

    level: str
    dtype: str
    quantization: str | None


def level_plan(level: str | None, options: VllmOptions, source: ModelSource, weights: Sequence[Path]) -> LevelPlan:
    """What loading a folder at a level takes; without a level it is loaded as it is stored.

    Raises LevelUnsupported where the level cannot be made from this checkpoint, EngineError where options contradict.
    """
    check_name(level)
    if options.quantization is not None and level is not None:
        raise EngineError(f"write the level {level} or the option quantization: {options.quantization}, not both")
    stored = stored_method(source)
    if stored is not None:
        return _already(level, options, source, stored)
    if level in BEFOREHAND:
        raise LevelUnsupported(
            f"level {level} needs a checkpoint that was quantized so beforehand, which {source.name} is not: "
            f"quantize it with a tool for {level} and name that folder"
        )
    if level in WHILE_LOADING or options.quantization is not None:
        method = options.quantization or str(level)
        if method in _FOR_EXPERTS_ALONE and not any(_config(source).get(key) for key in _EXPERTS):
            raise LevelUnsupported(
                f"{method} quantizes experts alone, and {source.name} has none: it would change nothing"
            )
        return LevelPlan(level_of(method), options.dtype or "auto", method)
    plain = level or _named(options.dtype) or _stored_type(weights)
    if options.dtype not in (None, "auto", DTYPES.get(plain)):
        raise EngineError(f"level {plain} computes in {DTYPES[plain]}: leave the option dtype: {options.dtype} out")
    return LevelPlan(plain, DTYPES[plain], None)


def check_name(level: str | None) -> None:
    """Raises LevelUnsupported for a level that no checkpoint could have."""
    if level is not None and level not in LEVELS:
        raise LevelUnsupported(f"vllm has no level {level!r}; it has {', '.join(LEVELS)}")


def stored_method(source: ModelSource) -> str | None:
    """The method that a checkpoint is quantized with, as its config.json has it; None: it is not."""
    config = _config(source)
    section = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(section, dict):
        return None
    return level_of(str(section.get("quant_method", "unknown")))


def level_of(method: str) -> str:
    """The level that a method of vLLM makes, whatever kernels it takes."""
    return _SAME_METHOD.get(method, method)


def _config(source: ModelSource) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    return content


def _already(level: str | None, options: VllmOptions, source: ModelSource, stored: str) -> LevelPlan:
    if level not in (None, stored) or options.quantization not in (None, stored):
        raise LevelUnsupported(
            f"{source.name} is quantized already, with {stored}: name the level {stored}, or none, "
            f"or its folder in full precision"
        )
    return LevelPlan(stored, options.dtype or "auto", None)  # vLLM takes the method from the checkpoint itself


def _named(dtype: str | None) -> str | None:
    return next((level for level, name in DTYPES.items() if name == dtype), None)


def _stored_type(weights: Sequence[Path]) -> str:
    """The type of the weights: vLLM's own `auto` would narrow float32."""
    for path in weights:
        dtypes = {tensor.dtype for tensor in safetensors_io.read(path).values()}
        if found := next((level for dtype, level in _STORED.items() if dtype in dtypes), None):
            return found
    raise ModelError("the weights are neither F32, F16 nor BF16; name the level that they are to be loaded at")
