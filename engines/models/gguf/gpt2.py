"""A GPT-2 in the Hugging Face layout, as what a GGUF file holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from engines.models.checkpoint import Checkpoint
from engines.models.safetensors_io import StoredTensor
from engines.models.types import Field, FloatArray, Layout, Tensor, Weights

_LAYER_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
# Conv1D keeps (inputs, outputs) where everything else has (outputs, inputs).
_TRANSPOSED = re.compile(r"blk\.\d+\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight")
_NOT_NEEDED = ("lm_head.weight", ".attn.bias", ".attn.masked_bias")
_DEFAULTS = {"n_positions": 1024, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}


def read(checkpoint: Checkpoint) -> Weights:
    """The model of a folder, without its vocabulary; nothing is loaded yet.

    Raises ModelError if it is not a plain GPT-2, naming the converter to use.
    """
    config: dict[str, Any] = {**_DEFAULTS, **checkpoint.config}
    _check(checkpoint, config)
    # Published checkpoints have the names of the model without its head; saved ones have those with it.
    stored = {name.removeprefix("transformer."): tensor for name, tensor in checkpoint.tensors().items()}
    heads = int(config["n_head"])
    layout = Layout(layers=int(config["n_layer"]), heads=heads, kv_heads=heads, tied_embeddings=True)
    names = _names(layout)
    checkpoint.check_names(names, stored, _NOT_NEEDED)
    tensors = tuple(_tensor(stored[ours], theirs) for ours, theirs in names.items())
    return Weights("gpt2", layout, _fields(checkpoint, config, layout), tensors)


def _check(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    checkpoint.refuse(
        {
            f"activation {config['activation_function']}": config["activation_function"] != "gelu_new",
            "unscaled attention": config.get("scale_attn_weights") is False,
            "attention scaled by layer": config.get("scale_attn_by_inverse_layer_idx"),
            "cross attention": config.get("add_cross_attention"),
            "an output apart from its embeddings": config.get("tie_word_embeddings") is False,
        }
    )


def _names(layout: Layout) -> dict[str, str]:
    """The name in a GGUF file by that in the checkpoint, in file order."""
    names = {"wte.weight": "token_embd.weight", "wpe.weight": "position_embd.weight"}
    for layer in range(layout.layers):
        for ours, theirs in _LAYER_NAMES.items():
            names |= {f"h.{layer}.{ours}.{kind}": f"blk.{layer}.{theirs}.{kind}" for kind in ("weight", "bias")}
    return names | {f"ln_f.{kind}": f"output_norm.{kind}" for kind in ("weight", "bias")}


def _tensor(stored: StoredTensor, name: str) -> Tensor:
    if not _TRANSPOSED.fullmatch(name):
        return Tensor(name, stored.shape, stored.load, stored.load_rows)
    return Tensor(name, stored.shape[::-1], lambda: _transposed(stored))


def _transposed(stored: StoredTensor) -> FloatArray:
    return np.ascontiguousarray(stored.load().T)


def _fields(checkpoint: Checkpoint, config: Mapping[str, Any], layout: Layout) -> tuple[Field, ...]:
    width = int(config["n_embd"])
    return (
        Field("general.architecture", "STRING", "gpt2"),
        Field("general.type", "STRING", "model"),
        Field("general.name", "STRING", checkpoint.source.name),
        Field("gpt2.block_count", "UINT32", layout.layers),
        Field("gpt2.context_length", "UINT32", int(config["n_positions"])),
        Field("gpt2.embedding_length", "UINT32", width),
        Field("gpt2.feed_forward_length", "UINT32", int(config.get("n_inner") or 4 * width)),
        Field("gpt2.attention.head_count", "UINT32", layout.heads),
        Field("gpt2.attention.layer_norm_epsilon", "FLOAT32", float(config["layer_norm_epsilon"])),
        Field("gpt2.vocab_size", "UINT32", int(config["vocab_size"])),
    )
