"""Tensors of a GPT-2 and a Llama, with random values."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPREAD = 0.02  # standard deviation of the initial weights in both architectures
_PIECE_VALUES = 1 << 22


def shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a checkpoint, under their Hugging Face names; tied weights once.

    Raises ValueError for other architectures.
    """
    if config["model_type"] == "gpt2":
        return _gpt2(config)
    if config["model_type"] == "llama":
        return _llama(config)
    raise ValueError(f"no random weights exist for {config['model_type']}")


def pieces(name: str, shape: tuple[int, ...], seed: int) -> Iterator[NDArray[np.float16]]:
    """Yield the values of a tensor in parts of a few megabytes, determined by name, shape and seed.

    Scales of normalisations are 1, biases 0, everything else is normally distributed.
    """
    count = int(np.prod(shape, dtype=np.int64))
    if len(shape) == 1:
        yield np.full(count, 0.0 if name.endswith(".bias") else 1.0, dtype=np.float16)
        return
    random = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode())]))
    for start in range(0, count, _PIECE_VALUES):
        values = random.standard_normal(min(_PIECE_VALUES, count - start), dtype=np.float32)
        yield (values * np.float32(SPREAD)).astype(np.float16)


def _gpt2(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, vocabulary, context = config["n_embd"], config["vocab_size"], config["n_positions"]
    norm = {"weight": (width,), "bias": (width,)}
    # Conv1D: rows are inputs, columns are outputs.
    block = {
        "ln_1": norm,
        "attn.c_attn": {"weight": (width, 3 * width), "bias": (3 * width,)},
        "attn.c_proj": {"weight": (width, width), "bias": (width,)},
        "ln_2": norm,
        "mlp.c_fc": {"weight": (width, 4 * width), "bias": (4 * width,)},
        "mlp.c_proj": {"weight": (4 * width, width), "bias": (width,)},
    }
    found: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (vocabulary, width),
        "transformer.wpe.weight": (context, width),
    }
    for layer in range(config["n_layer"]):
        for part, tensors in block.items():
            found |= {f"transformer.h.{layer}.{part}.{kind}": shape for kind, shape in tensors.items()}
    return found | {f"transformer.ln_f.{kind}": shape for kind, shape in norm.items()}


def _llama(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    block = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, queries),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
    }
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for layer in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in block.items()}
    found["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], width)
    return found
