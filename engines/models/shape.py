"""Sizes of a model, from its configuration or its GGUF header; no weights are loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.base import ModelError
from engines.models import safetensors_io
from engines.models.gguf import header as gguf_header
from engines.models.source import weight_files
from engines.models.types import ModelSource

# Keys of config.json, which differ between architectures.
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
# Architectures whose caches do not hold a key and a value for every head, layer and token.
_OTHER_CACHES = ("kv_lora_rank", "ssm_cfg", "mamba_d_state", "linear_num_key_heads")
_NO_PARAMETERS = (".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes of a decoder.

    Attributes:
        kv_heads, head_size: Number and size of the heads of keys and values.
        context_tokens: Context length the model was made for.
        parameters: Number of weights, tied ones once; None if they can be neither counted nor computed.
    """

    layers: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context_tokens: int | None
    parameters: int | None

    def kv_bytes_per_token(self, bytes_per_value: float = 2.0) -> float:
        """Return the size of a token in the KV cache: a key and a value for each layer and KV head.

        Args:
            bytes_per_value: Mean of the two, if keys and values have different types.
        """
        return 2 * self.layers * self.kv_heads * self.head_size * bytes_per_value


def shape_of(path: Path) -> ModelShape | None:
    """Return the shape of a model folder in the Hugging Face layout or of a `.gguf` file; None if unknown.

    Raises ModelError if the file is damaged.
    """
    return _of_folder(path) if path.is_dir() else _of_gguf(path)


def computed_parameters(config: Mapping[str, Any]) -> int | None:
    """Return the number of weights of a GPT-2 or a Llama by its config.json; None for other architectures."""
    layers, heads, width = (_first(config, keys) for keys in (_LAYERS, _HEADS, _WIDTH))
    vocabulary = _whole(config.get("vocab_size"))
    if not (layers and heads and width and vocabulary):
        return None
    if config.get("model_type") == "gpt2":
        inner, context = _whole(config.get("n_inner")) or 4 * width, _first(config, _CONTEXT) or 1024
        block = 4 * width * width + 2 * width * inner + 9 * width + inner
        return (vocabulary + context) * width + layers * block + 2 * width
    if config.get("model_type") == "llama":
        head = _whole(config.get("head_dim")) or width // heads
        kv_heads = _first(config, _KV_HEADS) or heads
        attention = 2 * width * head * (heads + kv_heads)
        block = attention + 3 * width * int(config["intermediate_size"]) + 2 * width
        return vocabulary * width * (1 if config.get("tie_word_embeddings") else 2) + layers * block + width
    return None


def _of_folder(path: Path) -> ModelShape | None:
    config = _config(path / "config.json")
    layers, heads, width = (_first(config, keys) for keys in (_LAYERS, _HEADS, _WIDTH))
    vocabulary = _whole(config.get("vocab_size"))
    if not (layers and heads and width and vocabulary) or any(config.get(key) for key in _OTHER_CACHES):
        return None
    return ModelShape(
        layers=layers,
        kv_heads=1 if config.get("multi_query") else _first(config, _KV_HEADS) or heads,
        head_size=_whole(config.get("head_dim")) or width // heads,
        vocabulary=vocabulary,
        context_tokens=_first(config, _CONTEXT),
        parameters=_parameters(path, config),
    )


def _config(path: Path) -> Mapping[str, Any]:
    """Return config.json; for a multimodal model, its part about text."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error}); fetch or write it again") from error
    if not isinstance(content, Mapping):
        return {}
    text = content.get("text_config")
    return text if isinstance(text, Mapping) else content


def _parameters(path: Path, config: Mapping[str, Any]) -> int | None:
    """Count the weights in the files, if these hold plain weights, else compute them."""
    files = sorted(path.glob("*.safetensors"))
    if not files or "quantization_config" in config:
        return computed_parameters(config)
    files = weight_files(ModelSource(path.name, "folder", path))
    sizes = {name: tensor.shape for file in files for name, tensor in safetensors_io.read(file).items()}
    tied = bool(config.get("tie_word_embeddings", config.get("model_type") == "gpt2"))
    return sum(
        math.prod(shape)
        for name, shape in sizes.items()
        if not name.endswith(_NO_PARAMETERS) and not (tied and "lm_head" in name)
    )


def _of_gguf(path: Path) -> ModelShape | None:
    header = gguf_header.read_header(path)
    architecture = str(header.get("general.architecture"))

    def size(key: str) -> int | None:
        return _whole(header.get(f"{architecture}.{key}"))

    layers, heads, width = size("block_count"), size("attention.head_count"), size("embedding_length")
    tokens = header.get("tokenizer.ggml.tokens")
    vocabulary = size("vocab_size") or (len(tokens) if isinstance(tokens, list) else None)
    per_layer = isinstance(header.get(f"{architecture}.attention.head_count_kv"), list)
    if not (layers and heads and width and vocabulary) or per_layer or size("attention.kv_lora_rank"):
        return None
    parts = weight_files(ModelSource(path.stem, "gguf", path))
    shapes = {name: shape for part in parts for name, shape in gguf_header.read_tensor_shapes(part).items()}
    return ModelShape(
        layers=layers,
        kv_heads=size("attention.head_count_kv") or heads,
        head_size=size("attention.key_length") or width // heads,
        vocabulary=vocabulary,
        context_tokens=size("context_length"),
        parameters=sum(math.prod(shape) for name, shape in shapes.items() if "rope_freqs" not in name),
    )


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((found for key in keys if (found := _whole(config.get(key)))), None)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
