"""A Llama in the Hugging Face layout, as what a GGUF file holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from engines.models.checkpoint import Checkpoint
from engines.models.safetensors_io import StoredTensor
from engines.models.types import Field, FloatArray, Layout, Tensor, Weights

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NOT_NEEDED = ("lm_head.weight", "rotary_emb.inv_freq")


def read(checkpoint: Checkpoint) -> Weights:
    """The model of a folder, without its vocabulary; nothing is loaded yet.

    Raises ModelError if it is not a plain Llama, naming the converter to use.
    """
    config = checkpoint.config
    _check(checkpoint)
    stored = checkpoint.tensors()
    heads = int(config["num_attention_heads"])
    layout = Layout(
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        tied_embeddings="lm_head.weight" not in stored or bool(config.get("tie_word_embeddings")),
    )
    names = _names(layout)
    checkpoint.check_names(names, stored, _NOT_NEEDED)
    tensors = tuple(_tensor(stored[ours], theirs, layout) for ours, theirs in names.items())
    return Weights("llama", layout, _fields(checkpoint, layout), tensors)


def _check(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    checkpoint.refuse(
        {
            "attention biases": config.get("attention_bias"),
            "MLP biases": config.get("mlp_bias"),
            "scaled rotary positions": rope.get("rope_type", rope.get("type", "default")) != "default",
            f"activation {config.get('hidden_act')}": config.get("hidden_act", "silu") != "silu",
        }
    )


def _names(layout: Layout) -> dict[str, str]:
    """The name in a GGUF file by that in the checkpoint, in file order."""
    names = {"model.embed_tokens.weight": "token_embd.weight"}
    for layer in range(layout.layers):
        for ours, theirs in _LAYER_NAMES.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    names["model.norm.weight"] = "output_norm.weight"
    if not layout.tied_embeddings:
        names["lm_head.weight"] = "output.weight"
    return names


def _tensor(stored: StoredTensor, name: str, layout: Layout) -> Tensor:
    heads = {"attn_q.weight": layout.heads, "attn_k.weight": layout.kv_heads}.get(name.split(".", 2)[-1])
    if heads is None:
        return Tensor(name, stored.shape, stored.load, stored.load_rows)
    return Tensor(name, stored.shape, lambda: interleave(stored.load(), heads))


def interleave(rows: FloatArray, heads: int) -> FloatArray:
    """Reorder the rows of a query or key projection within each head.

    Hugging Face rotates pairs (i, i + half a head); llama.cpp's Llama rotates neighbours (2i, 2i + 1).
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _fields(checkpoint: Checkpoint, layout: Layout) -> tuple[Field, ...]:
    config: Mapping[str, Any] = checkpoint.config
    head = int(config.get("head_dim") or config["hidden_size"] // layout.heads)
    rope = config.get("rope_parameters") or {}
    theta = float(config.get("rope_theta") or rope.get("rope_theta") or 10_000.0)
    return (
        Field("general.architecture", "STRING", "llama"),
        Field("general.type", "STRING", "model"),
        Field("general.name", "STRING", checkpoint.source.name),
        Field("llama.block_count", "UINT32", layout.layers),
        Field("llama.context_length", "UINT32", int(config["max_position_embeddings"])),
        Field("llama.embedding_length", "UINT32", int(config["hidden_size"])),
        Field("llama.feed_forward_length", "UINT32", int(config["intermediate_size"])),
        Field("llama.attention.head_count", "UINT32", layout.heads),
        Field("llama.attention.head_count_kv", "UINT32", layout.kv_heads),
        Field("llama.attention.key_length", "UINT32", head),
        Field("llama.attention.value_length", "UINT32", head),
        Field("llama.attention.layer_norm_rms_epsilon", "FLOAT32", float(config["rms_norm_eps"])),
        Field("llama.rope.dimension_count", "UINT32", head),
        Field("llama.rope.freq_base", "FLOAT32", theta),
        Field("llama.vocab_size", "UINT32", int(config["vocab_size"])),
    )
