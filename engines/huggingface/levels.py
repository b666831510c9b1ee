"""Levels of the `transformers` engine: their names in the library, and the devices they run on."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engines.base import LevelUnsupported, ModelError

PLAIN = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
BITSANDBYTES = ("int8", "nf4", "fp4")
TORCHAO = ("int8-torchao", "int4-torchao", "fp8")
FROM_CHECKPOINT = {"gptq": "GPTQ", "awq": "AWQ", "compressed-tensors": "compressed-tensors"}
LEVELS = (*PLAIN, "int8", "int8-torchao", "int4-torchao", "nf4", "fp4", "fp8", *FROM_CHECKPOINT)
_CUDA_ONLY = ("int4-torchao",)  # no packing of torchao 0.18 runs on a CPU
# Modules that load such checkpoints, on GPUs and on CPUs. Their distributions have the same names.
_LIBRARIES = {"gptq": ("optimum", "gptqmodel"), "awq": ("gptqmodel",), "compressed-tensors": ("compressed_tensors",)}
_GROUP = 64
# Lower bounds: without scales and what stays unquantized (embeddings, norms).
_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.0, "int8-torchao": 1.0, "fp8": 1.0}


def places(level: str) -> tuple[str, ...]:
    """Return the devices that a level runs on: "cpu", "cuda"."""
    return ("cuda",) if level in _CUDA_ONLY else ("cpu", "cuda")


def require_libraries(level: str | None) -> None:
    """Raise LevelUnsupported if libraries for a checkpoint's level are missing.

    The message of transformers would be that a GPU is needed.
    """
    lacking = [module for module in _LIBRARIES.get(level or "", ()) if find_spec(module) is None]
    if lacking:
        names = " ".join(module.replace("_", "-") for module in lacking)
        raise LevelUnsupported(f"{level} needs libraries that are not installed here: pip install {names}")


def bytes_per_weight(level: str) -> float:
    """Return the minimum size of a weight."""
    return _BYTES.get(level, 0.5)


def checkpoint_level(folder: Path) -> str | None:
    """Return the level of a quantized checkpoint, by its config.json; None for a plain one."""
    config = _config(folder)
    quantization = config.get("quantization_config") or (config.get("text_config") or {}).get("quantization_config")
    if not quantization:
        return None
    method = str(quantization.get("quant_method", "unknown"))
    if method == "bitsandbytes" or quantization.get("load_in_8bit") or quantization.get("load_in_4bit"):
        return str(quantization.get("bnb_4bit_quant_type", "fp4")) if quantization.get("load_in_4bit") else "int8"
    return method


def _is_bfloat16(folder: Path) -> bool:
    """Return True if a checkpoint's config.json states bfloat16 weights."""
    config = _config(folder)
    settings = {**(config.get("text_config") or {}), **config}
    return str(settings.get("dtype") or settings.get("torch_dtype")).removeprefix("torch.") == "bfloat16"


def level_to_load(requested: str | None, folder: Path, name: str) -> str | None:
    """Return the level to request from the library; None to load the checkpoint unchanged.

    Raises LevelUnsupported if the checkpoint does not allow the level.
    """
    if requested is not None and requested not in LEVELS:
        raise LevelUnsupported(f"engine 'transformers' has no level {requested!r}; it has {', '.join(LEVELS)}")
    found = checkpoint_level(folder)
    if found is not None and requested not in (None, found):
        why = f"{name} was quantized beforehand to {found} and cannot be loaded as {requested}"
        raise LevelUnsupported(f"{why}; leave the level out, or name the unquantized model")
    if found is None and requested in FROM_CHECKPOINT:
        why = f"{requested} cannot be made while loading and {name} is a plain checkpoint"
        raise LevelUnsupported(f"{why}; name a model that was quantized with {FROM_CHECKPOINT[requested]}")
    return None if found else requested


def loading_arguments(level: str | None, device: str, folder: Path) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a level; None loads the checkpoint unchanged."""
    import torch

    if level is None:
        return {"dtype": "auto"}
    if level in PLAIN:
        return {"dtype": getattr(torch, PLAIN[level])}
    narrow = torch.float16 if device.startswith("cuda") and not torch.cuda.is_bf16_supported() else torch.bfloat16
    if level in TORCHAO:
        from transformers import TorchAoConfig

        return {"dtype": narrow, "quantization_config": TorchAoConfig(quant_type=torchao_recipe(level, device))}
    from transformers import BitsAndBytesConfig

    if level == "int8":  # its kernels take fp16; the other layers keep the range of a bf16 checkpoint
        between = narrow if _is_bfloat16(folder) else torch.float16
        return {"dtype": between, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=level, bnb_4bit_compute_dtype=narrow)
    return {"dtype": narrow, "quantization_config": four_bits}


def torchao_recipe(level: str, device: str) -> Any:
    """Return torchao's configuration of a level: weights only, except fp8 on GPUs that multiply fp8."""
    import torch
    import torchao.quantization as recipes

    if level == "int8-torchao":
        return recipes.Int8WeightOnlyConfig()
    if level == "int4-torchao":
        return recipes.Int4WeightOnlyConfig(group_size=_GROUP, int4_packing_format="tile_packed_to_4d")
    if device.startswith("cuda") and torch.cuda.get_device_capability() >= (8, 9):
        return recipes.Float8DynamicActivationFloat8WeightConfig()
    return recipes.Float8WeightOnlyConfig()


def loaded_level(model: Any, wanted: str | None, folder: Path) -> str:
    """Return the level of the loaded weights.

    Raises LevelUnsupported if the library has silently quantized nothing.
    """
    if wanted is None and (found := checkpoint_level(folder)):
        return found
    kinds = {type(module.weight).__name__ for module in model.modules() if hasattr(module, "weight")}
    quantized = kinds - {"Parameter", "Tensor", "NoneType"}
    if wanted is not None and wanted not in PLAIN:
        if not quantized:
            why = f"{wanted} has no effect on {type(model).__name__}"
            raise LevelUnsupported(f"{why}: it has no linear layer that the library quantizes")
        return wanted
    names = {dtype: level for level, dtype in PLAIN.items()}
    dtype = str(model.dtype).removeprefix("torch.")
    return names.get(dtype, dtype)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); fetch or write it again") from error
    return found
