"""A Llama in the Hugging Face layout, as what a GGUF file holds.

Covers the plain architecture with a byte-level vocabulary without merges; the rest is for llama.cpp's own converter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import ModelError
from engines.models import safetensors_file
from engines.models.safetensors_file import StoredTensor
from engines.models.source import ModelSource, weight_files
from engines.models.weights import Field, FloatArray, Layout, Tensor, Weights

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
_LEVELS = {"F32": "f32", "BF16": "bf16", "F16": "f16"}
_NORMAL, _CONTROL, _UNUSED = 1, 3, 5


def read(source: ModelSource) -> Weights:
    """The model of a folder; nothing is loaded yet.

    Raises ModelError if it is not a Llama of the covered kind, naming the converter to use.
    """
    config = json.loads((source.path / "config.json").read_text(encoding="utf-8"))
    _check(source, config)
    stored: dict[str, StoredTensor] = {}
    for path in weight_files(source):
        stored |= safetensors_file.read(path)
    heads = int(config["num_attention_heads"])
    layout = Layout(
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        tied_embeddings="lm_head.weight" not in stored or bool(config.get("tie_word_embeddings")),
    )
    tensors = _tensors(source, stored, layout)
    fields = (*_model_fields(source, config, layout), *_vocabulary_fields(source, config))
    return Weights("llama", layout, fields, tensors)


def natural_level(source: ModelSource) -> str:
    """The level that keeps the weights as the folder stores them."""
    dtypes = {tensor.dtype for path in weight_files(source) for tensor in safetensors_file.read(path).values()}
    return next((level for dtype, level in _LEVELS.items() if dtype in dtypes), "f32")


def _check(source: ModelSource, config: Mapping[str, Any]) -> None:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    wrong = {
        f"architecture {config.get('model_type')}": config.get("model_type") != "llama",
        "attention biases": config.get("attention_bias"),
        "MLP biases": config.get("mlp_bias"),
        "scaled rotary positions": rope.get("rope_type", rope.get("type", "default")) != "default",
        f"activation {config.get('hidden_act')}": config.get("hidden_act", "silu") != "silu",
        "quantized weights": "quantization_config" in config,
    }
    if found := [what for what, is_wrong in wrong.items() if is_wrong]:
        raise ModelError(_use_converter(source, found[0]))


def _use_converter(source: ModelSource, what: str) -> str:
    return (
        f"{source.name} has {what}, which is not converted here; "
        f"convert it with llama.cpp's convert_hf_to_gguf.py and name the .gguf file"
    )


def _tensors(source: ModelSource, stored: Mapping[str, StoredTensor], layout: Layout) -> tuple[Tensor, ...]:
    names = {"model.embed_tokens.weight": "token_embd.weight"}
    for layer in range(layout.layers):
        for ours, theirs in _LAYER_NAMES.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    names["model.norm.weight"] = "output_norm.weight"
    if not layout.tied_embeddings:
        names["lm_head.weight"] = "output.weight"
    if missing := sorted(names.keys() - stored.keys()):
        raise ModelError(f"the weights of {source.name} lack {missing[0]}; fetch them again")
    ignored = ("lm_head.weight", "rotary_emb.inv_freq")
    if extra := sorted(name for name in stored.keys() - names.keys() if not name.endswith(ignored)):
        raise ModelError(_use_converter(source, f"a tensor {extra[0]}"))
    return tuple(_tensor(stored[ours], theirs, layout) for ours, theirs in names.items())


def _tensor(stored: StoredTensor, name: str, layout: Layout) -> Tensor:
    heads = {"attn_q.weight": layout.heads, "attn_k.weight": layout.kv_heads}.get(name.split(".", 2)[-1])
    if heads is None:
        return Tensor(name, stored.shape, stored.load)
    return Tensor(name, stored.shape, lambda: interleave(stored.load(), heads))


def interleave(rows: FloatArray, heads: int) -> FloatArray:
    """Reorder the rows of a query or key projection within each head.

    Hugging Face rotates pairs (i, i + half a head); llama.cpp's Llama rotates neighbours (2i, 2i + 1).
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _model_fields(source: ModelSource, config: Mapping[str, Any], layout: Layout) -> tuple[Field, ...]:
    head = int(config.get("head_dim") or config["hidden_size"] // layout.heads)
    rope = config.get("rope_parameters") or {}
    theta = float(config.get("rope_theta") or rope.get("rope_theta") or 10_000.0)
    return (
        Field("general.architecture", "STRING", "llama"),
        Field("general.type", "STRING", "model"),
        Field("general.name", "STRING", source.name),
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


def _vocabulary_fields(source: ModelSource, config: Mapping[str, Any]) -> tuple[Field, ...]:
    texts, kinds = _vocabulary(source, int(config["vocab_size"]))
    fields = [
        Field("tokenizer.ggml.model", "STRING", "gpt2"),
        Field("tokenizer.ggml.pre", "STRING", "gpt-2"),
        Field("tokenizer.ggml.tokens", "ARRAY", texts, "STRING"),
        Field("tokenizer.ggml.token_type", "ARRAY", kinds, "INT32"),
        # llama.cpp loads no gpt2 vocabulary without merges; the two rarest bytes merge to no token, so nothing changes.
        Field("tokenizer.ggml.merges", "ARRAY", [f"{chr(256)} {chr(257)}"], "STRING"),
        Field("tokenizer.ggml.add_bos_token", "BOOL", False),
        Field("tokenizer.ggml.add_eos_token", "BOOL", False),
    ]
    for role in ("bos", "eos"):
        token = config.get(f"{role}_token_id")
        if isinstance(token, int):
            fields.append(Field(f"tokenizer.ggml.{role}_token_id", "UINT32", token))
    return tuple(fields)


def _vocabulary(source: ModelSource, size: int) -> tuple[list[str], list[int]]:
    content = _tokenizer_json(source)
    model = content.get("model", {})
    if model.get("type") != "BPE" or model.get("merges") or model.get("byte_fallback") or content.get("normalizer"):
        raise ModelError(_use_converter(source, "a tokenizer other than bytes without merges"))
    texts = [f"<|unused {index}|>" for index in range(size)]
    kinds = [_UNUSED] * size
    for text, index in model["vocab"].items():
        texts[index], kinds[index] = text, _NORMAL
    for token in content.get("added_tokens", []):
        texts[token["id"]], kinds[token["id"]] = token["content"], _CONTROL if token["special"] else _NORMAL
    return texts, kinds


def _tokenizer_json(source: ModelSource) -> dict[str, Any]:
    path: Path = source.path / "tokenizer.json"
    if not path.is_file():
        raise ModelError(_use_converter(source, "no tokenizer.json"))
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
