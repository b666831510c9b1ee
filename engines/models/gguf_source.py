"""A GGUF file in full precision as the start for other levels."""

from __future__ import annotations

from typing import Any

import numpy as np

from engines.base import LevelUnsupported
from engines.models.source import ModelSource
from engines.models.weights import Field, FloatArray, Layout, Tensor, Weights

# Dense decoders whose tensors all follow the rules in `quantize`.
_ARCHITECTURES = ("gpt2", "llama", "qwen2", "qwen3")
_NOT_COPIED = ("GGUF.", "general.file_type", "general.quantization_version", "general.alignment", "split.")


def read(source: ModelSource) -> Weights:
    """The model of a GGUF file in f32, f16 or bf16; nothing is loaded yet.

    Raises LevelUnsupported if levels cannot be derived from it here.
    """
    from gguf import GGUFReader

    reader = GGUFReader(str(source.path))
    values = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("tokenizer.")}
    architecture = str(values.get("general.architecture"))
    has_experts, is_split = values.get(f"{architecture}.expert_count"), values.get("split.count", 1) > 1
    if architecture not in _ARCHITECTURES or has_experts or is_split:
        raise LevelUnsupported(
            f"levels of {source.path.name} ({architecture}) are not made here; "
            "make the file with llama.cpp's llama-quantize and name it"
        )
    heads = int(values[f"{architecture}.attention.head_count"])
    layout = Layout(
        layers=int(values[f"{architecture}.block_count"]),
        heads=heads,
        kv_heads=int(values.get(f"{architecture}.attention.head_count_kv", heads)),
        tied_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )
    fields = tuple(_field(field) for key, field in reader.fields.items() if not key.startswith(_NOT_COPIED))
    return Weights(architecture, layout, fields, tuple(_tensor(tensor) for tensor in reader.tensors))


def _field(field: Any) -> Field:
    kinds = [kind.name for kind in field.types]
    return Field(field.name, kinds[0], field.contents(), kinds[-1] if len(kinds) > 1 else None)


def _tensor(tensor: Any) -> Tensor:
    shape = tuple(int(size) for size in reversed(tensor.shape))

    def load_rows(start: int, stop: int) -> FloatArray:
        from gguf import dequantize

        values: FloatArray = np.asarray(dequantize(tensor.data[start:stop], tensor.tensor_type), dtype=np.float32)
        return values

    return Tensor(tensor.name, shape, lambda: load_rows(0, shape[0]).reshape(shape), load_rows)
