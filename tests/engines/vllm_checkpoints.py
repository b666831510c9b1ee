"""Checkpoints for tests of vLLM, made of `tiny` by hand: quantized beforehand, and an adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import engines
from engines.models import safetensors_io

TINY = Path(engines.__file__).parent / "models" / "tiny"
_EIGHT_BITS = {"num_bits": 8, "type": "int", "symmetric": True}


def w8a8(folder: Path) -> Path:
    """8 bits a weight, a scale for each row, activations rounded as they come: the layout of compressed-tensors."""
    from safetensors.numpy import save_file

    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(TINY / name, folder)
    group = {
        "targets": ["Linear"],
        "weights": {**_EIGHT_BITS, "strategy": "channel", "dynamic": False},
        "input_activations": {**_EIGHT_BITS, "strategy": "token", "dynamic": True},
    }
    section = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }
    config = json.loads((TINY / "config.json").read_text()) | {"quantization_config": section}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_quantized(), folder / "model.safetensors")
    return folder


def _quantized() -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for name, tensor in safetensors_io.read(TINY / "model.safetensors").items():
        values = tensor.load()
        if "_proj." in name:
            scale = np.abs(values).max(axis=1, keepdims=True) / 127
            tensors[name] = np.clip(np.round(values / scale), -127, 127).astype(np.int8)
            tensors[f"{name}_scale"] = scale.astype(np.float32)
        else:
            tensors[name] = values.astype(np.float16)
    return tensors


def adapter(folder: Path, rank: int = 8) -> Path:
    """An adapter of random values over the queries, large enough to be heard."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(7)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 4 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "tiny",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for layer in range(4):
        stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{stem}.lora_A.weight"] = random.normal(0, 0.1, (rank, 256)).astype(np.float32)
        tensors[f"{stem}.lora_B.weight"] = random.normal(0, 0.1, (256, rank)).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder
