"""Models with random weights, of real architectures and sizes, so that speed and memory are those of real models.

Their text is meaningless. Configuration and tokenizer exist at once. An engine builds the weights at first use, and the
cache keeps them (`engines.models.cache`).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from engines.base import ModelError
from engines.models import cache, safetensors_io
from engines.models.builtin import random_weights, vocabulary

_SEED = 20240517
# Increment when the same seed gives other files than before.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Model with random weights. `kind` describes architecture and parameters."""

    kind: str
    config: Mapping[str, Any]


def _gpt2(parameters: str, layers: int, heads: int, width: int) -> Synthetic:
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": 50_257,
        "n_positions": 1024,
        "n_ctx": 1024,
        "n_embd": width,
        "n_layer": layers,
        "n_head": heads,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": random_weights.SPREAD,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
    }
    return Synthetic(f"GPT-2, {parameters} parameters", _ends(config))


def _llama(parameters: str, **sizes: Any) -> Synthetic:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **sizes,
        "head_dim": 64,
        "hidden_act": "silu",
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes["rope_theta"]},
        "rms_norm_eps": 1e-5,
        "initializer_range": random_weights.SPREAD,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
    }
    return Synthetic(f"Llama, {parameters} parameters", _ends(config))


def _ends(config: Mapping[str, Any]) -> dict[str, Any]:
    size = config["vocab_size"]
    return {**config, "bos_token_id": size - 2, "eos_token_id": size - 1, "dtype": "float16", "torch_dtype": "float16"}


MODELS = {
    "gpt2-small": _gpt2("124 M", layers=12, heads=12, width=768),
    "gpt2-medium": _gpt2("355 M", layers=24, heads=16, width=1024),
    "gpt2-large": _gpt2("774 M", layers=36, heads=20, width=1280),
    "llama-160m": _llama(
        "162 M",
        vocab_size=32_000,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=12,
        rope_theta=10_000.0,
        tie_word_embeddings=False,
    ),
    "llama-1b": _llama(
        "1.24 B",
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        rope_theta=500_000.0,
        tie_word_embeddings=True,
    ),
}


def description(name: str) -> str:
    """Return one line about a model."""
    model = MODELS[name]
    size = weight_bytes(name)
    stored = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    context = _context_tokens(model.config)
    return f"{model.kind}, random weights, {stored} in f16, context {context:,}; built when first used"


def folder(name: str) -> Path:
    """Return the model's folder in the Hugging Face layout, with everything but the weights.

    Raises ModelError if it cannot be written.
    """
    for file_name in ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"):
        cache.build_once(f"{_stem(name)}/{file_name}", partial(_write, MODELS[name].config, file_name))
    return cache.directory() / _stem(name)


def weights(name: str) -> Path:
    """Return the file of weights, built at first use.

    Raises ModelError if there is too little space or it cannot be written.
    """
    shapes = random_weights.shapes(MODELS[name].config)

    def build(path: Path) -> None:
        needed, free = weight_bytes(name), shutil.disk_usage(path.parent).free
        if free < needed:
            raise ModelError(
                f"building {name} takes {needed / 1e6:,.0f} MB in {path.parent}, where {free / 1e6:,.0f} MB are free; "
                "free space there or set HARNESS_CACHE to another folder"
            )
        safetensors_io.write_f16(path, shapes, lambda tensor: random_weights.pieces(tensor, shapes[tensor], _SEED))

    return cache.build_once(f"{_stem(name)}/model.safetensors", build)


def weight_bytes(name: str) -> int:
    """Return the size of the file of weights, built or not."""
    return safetensors_io.file_bytes(random_weights.shapes(MODELS[name].config))


def _stem(name: str) -> str:
    return f"{name}-seed{_SEED}-v{_VERSION}"


def _write(config: Mapping[str, Any], file_name: str, path: Path) -> None:
    """Write a file of the model's folder under another path."""
    content = config
    if file_name == "generation_config.json":
        content = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"], "do_sample": False}
    elif file_name == "tokenizer_config.json":
        content = vocabulary.tokenizer_config(_context_tokens(config))
    elif file_name == "tokenizer.json":
        content = vocabulary.tokenizer_json(config["vocab_size"])
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _context_tokens(config: Mapping[str, Any]) -> int:
    return int(config.get("n_positions") or config["max_position_embeddings"])
