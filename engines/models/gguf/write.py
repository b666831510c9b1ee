"""Writing a model as GGUF at a level, from a folder or from a GGUF file in full precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from engines.base import LevelUnsupported
from engines.models.gguf.quantize import quantize, stored_bytes, tensor_type
from engines.models.types import Field, FloatArray, Layout, ModelSource, Tensor, Weights

_ALIGNMENT_BYTES = 32
_QUANTIZATION_VERSION = 2
# Rows are quantized one by one, so parts give the same bytes as the whole.
_PART_VALUES = 1 << 23


def write(weights: Weights, level: str, path: Path) -> None:
    """Write the model. Tensors are read, quantized and written one at a time, large ones in parts.

    Raises OSError if the file cannot be written.
    """
    types = [tensor_type(level, tensor.name, tensor.shape, weights.layout) for tensor in weights.tensors]
    _write_header(weights, level, types, path)
    with path.open("ab") as file:
        file.write(_padding(file.tell()))
        for tensor, type_name in zip(weights.tensors, types, strict=True):
            for values in tensor.parts(_PART_VALUES):
                file.write(quantize(values, type_name).data)
            file.write(_padding(stored_bytes(tensor.shape, type_name)))


def file_type(level: str) -> int:
    """Return llama.cpp's number of a level (general.file_type)."""
    from gguf import LlamaFileType

    return int(LlamaFileType["ALL_F32" if level == "f32" else f"MOSTLY_{level.upper()}"])


def level_of(number: int) -> str | None:
    """Return the level of llama.cpp's number, None if unknown."""
    from gguf import LlamaFileType

    found = next((member.name for member in LlamaFileType if member == number), "GUESSED")
    return None if found == "GUESSED" else found.removeprefix("ALL_").removeprefix("MOSTLY_").lower()


def _write_header(weights: Weights, level: str, types: list[str], path: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, weights.architecture)
    try:
        for field in weights.fields:
            item_kind = GGUFValueType[field.item_kind] if field.item_kind else None
            if field.key != "general.architecture":  # the writer adds it first
                writer.add_key_value(field.key, field.value, GGUFValueType[field.kind], item_kind)
        writer.add_file_type(file_type(level))
        writer.add_quantization_version(_QUANTIZATION_VERSION)
        for tensor, type_name in zip(weights.tensors, types, strict=True):
            size = stored_bytes(tensor.shape, type_name)
            kind = GGMLQuantizationType[type_name]
            writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), size, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    finally:
        writer.close()


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % _ALIGNMENT_BYTES)


# Dense decoders, whose tensors follow the rules in `quantize`.
_ARCHITECTURES = ("gpt2", "llama", "qwen2", "qwen3")
_NOT_COPIED = ("GGUF.", "general.file_type", "general.quantization_version", "general.alignment", "split.")


def read(source: ModelSource) -> Weights:
    """Return the model of a GGUF file in f32, f16 or bf16; nothing is loaded yet.

    Raises LevelUnsupported if levels cannot be made from it here.
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
