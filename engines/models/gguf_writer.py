"""Writing a model as GGUF at a level."""

from __future__ import annotations

from pathlib import Path

from engines.models.quantize import quantize, stored_bytes, tensor_type
from engines.models.weights import Weights

_ALIGNMENT_BYTES = 32
_QUANTIZATION_VERSION = 2
# Rows are quantized one by one, so that parts give the bytes of the whole.
_PART_VALUES = 1 << 23


def write(weights: Weights, level: str, path: Path) -> None:
    """Write the model; tensors are read, quantized and written one at a time, large ones in parts.

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
    """llama.cpp's number of a level (general.file_type)."""
    from gguf import LlamaFileType

    return int(LlamaFileType["ALL_F32" if level == "f32" else f"MOSTLY_{level.upper()}"])


def level_of(number: int) -> str | None:
    """The level of llama.cpp's number, None if it is not known."""
    from gguf import LlamaFileType

    names = {int(member): member.name for member in LlamaFileType}
    found = names.get(number)
    return None if found in (None, "GUESSED") else found.removeprefix("ALL_").removeprefix("MOSTLY_").lower()


def _write_header(weights: Weights, level: str, types: list[str], path: Path) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, weights.architecture)
    try:
        for field in weights.fields:
            item_kind = GGUFValueType[field.item_kind] if field.item_kind else None
            if field.key != "general.architecture":  # the writer has put it first
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
