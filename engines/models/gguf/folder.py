"""Content of a GGUF file for a model folder in the Hugging Face layout, a Llama or a GPT-2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from engines.models.checkpoint import Checkpoint
from engines.models.gguf import vocabulary
from engines.models.safetensors_io import StoredTensor
from engines.models.types import Field, FloatArray, Layout, ModelSource, Tensor, Weights

_LLAMA_NAMES = {
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
_LLAMA_NOT_NEEDED = ("lm_head.weight", "rotary_emb.inv_freq")
_GPT2_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
# Conv1D stores (inputs, outputs), every other layer (outputs, inputs).
_TRANSPOSED = re.compile(r"blk\.\d+\.(attn_qkv|attn_output|ffn_up|ffn_down)\.weight")
_GPT2_NOT_NEEDED = ("lm_head.weight", ".attn.bias", ".attn.masked_bias")
_GPT2_DEFAULTS = {"n_positions": 1024, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}


def read(source: ModelSource) -> Weights:
    """Return the model of a folder; nothing is loaded yet.

    Raises ModelError for other architectures, naming the converter to use.
    """
    checkpoint = Checkpoint(source)
    kinds = {"gpt2": _gpt2, "llama": _llama}
    architecture = checkpoint.config.get("model_type")
    checkpoint.refuse(
        {
            f"architecture {architecture}": architecture not in kinds,
            "quantized weights": "quantization_config" in checkpoint.config,
        }
    )
    found = kinds[str(architecture)](checkpoint)
    general = {"architecture": found.architecture, "type": "model", "name": source.name}
    fields = [Field(f"general.{key}", "STRING", value) for key, value in general.items()]
    return replace(found, fields=(*fields, *found.fields, *vocabulary.fields(checkpoint)))


def _llama(checkpoint: Checkpoint) -> Weights:
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
    stored = checkpoint.tensors()
    heads = int(config["num_attention_heads"])
    layout = Layout(
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        tied_embeddings="lm_head.weight" not in stored or bool(config.get("tie_word_embeddings")),
    )
    names = {"model.embed_tokens.weight": "token_embd.weight"}  # those in a GGUF file, in its order
    for layer in range(layout.layers):
        for ours, theirs in _LLAMA_NAMES.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    names["model.norm.weight"] = "output_norm.weight"
    if not layout.tied_embeddings:
        names["lm_head.weight"] = "output.weight"
    checkpoint.check_names(names, stored, _LLAMA_NOT_NEEDED)
    tensors = tuple(_llama_tensor(stored[ours], theirs, layout) for ours, theirs in names.items())
    return Weights("llama", layout, _llama_fields(config, layout), tensors)


def _llama_tensor(stored: StoredTensor, name: str, layout: Layout) -> Tensor:
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


def _llama_fields(config: Mapping[str, Any], layout: Layout) -> tuple[Field, ...]:
    head = int(config.get("head_dim") or config["hidden_size"] // layout.heads)
    rope = config.get("rope_parameters") or {}
    theta = float(config.get("rope_theta") or rope.get("rope_theta") or 10_000.0)
    return (
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


def _gpt2(checkpoint: Checkpoint) -> Weights:
    config: dict[str, Any] = {**_GPT2_DEFAULTS, **checkpoint.config}
    checkpoint.refuse(
        {
            f"activation {config['activation_function']}": config["activation_function"] != "gelu_new",
            "unscaled attention": config.get("scale_attn_weights") is False,
            "attention scaled by layer": config.get("scale_attn_by_inverse_layer_idx"),
            "cross attention": config.get("add_cross_attention"),
            "an output apart from its embeddings": config.get("tie_word_embeddings") is False,
        }
    )
    # Published checkpoints use the names of the model without its head, saved ones those with it.
    stored = {name.removeprefix("transformer."): tensor for name, tensor in checkpoint.tensors().items()}
    heads = int(config["n_head"])
    layout = Layout(layers=int(config["n_layer"]), heads=heads, kv_heads=heads, tied_embeddings=True)
    names = {"wte.weight": "token_embd.weight", "wpe.weight": "position_embd.weight"}
    for layer in range(layout.layers):
        for ours, theirs in _GPT2_NAMES.items():
            names |= {f"h.{layer}.{ours}.{kind}": f"blk.{layer}.{theirs}.{kind}" for kind in ("weight", "bias")}
    names |= {f"ln_f.{kind}": f"output_norm.{kind}" for kind in ("weight", "bias")}
    checkpoint.check_names(names, stored, _GPT2_NOT_NEEDED)
    tensors = tuple(_gpt2_tensor(stored[ours], theirs) for ours, theirs in names.items())
    width = int(config["n_embd"])
    fields = (
        Field("gpt2.block_count", "UINT32", layout.layers),
        Field("gpt2.context_length", "UINT32", int(config["n_positions"])),
        Field("gpt2.embedding_length", "UINT32", width),
        Field("gpt2.feed_forward_length", "UINT32", int(config.get("n_inner") or 4 * width)),
        Field("gpt2.attention.head_count", "UINT32", heads),
        Field("gpt2.attention.layer_norm_epsilon", "FLOAT32", float(config["layer_norm_epsilon"])),
        Field("gpt2.vocab_size", "UINT32", int(config["vocab_size"])),
    )
    return Weights("gpt2", layout, fields, tensors)


def _gpt2_tensor(stored: StoredTensor, name: str) -> Tensor:
    if not _TRANSPOSED.fullmatch(name):
        return Tensor(name, stored.shape, stored.load, stored.load_rows)
    return Tensor(name, stored.shape[::-1], lambda: np.ascontiguousarray(stored.load().T))
