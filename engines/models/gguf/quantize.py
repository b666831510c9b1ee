"""Quantization: the type of each tensor at a level, and the arithmetic.

The choice follows llama.cpp (`llama_tensor_get_type_impl` and `tensor_type_fallback` in src/llama-quant.cpp, without an
importance matrix), for dense models. A level is a default type, and some levels give the most sensitive tensors a
better one. The arithmetic is ggml's, called in the library that xllamacpp ships.
"""

from __future__ import annotations

import ctypes
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.base import EngineError
from engines.models.types import FloatArray, Layout

_DEFAULT_TYPES = {
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "q8_0": "Q8_0",
    "q6_k": "Q6_K",
    "q5_k_m": "Q5_K",
    "q5_0": "Q5_0",
    "q4_k_m": "Q4_K",
    "q4_0": "Q4_0",
    "q3_k_m": "Q3_K",
    "q2_k": "Q2_K",
}
LEVELS = tuple(_DEFAULT_TYPES)
_FLOAT_TYPES = ("F32", "F16", "BF16")
# Rows that are no multiple of 256: llama.cpp takes this type with blocks of 32 instead.
_FALLBACKS = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
_NEVER_QUANTIZED = ("_norm.weight", "position_embd.weight")
_BLOCK = re.compile(r"blk\.(\d+)\.(.+)\.weight")


def tensor_type(level: str, name: str, shape: tuple[int, ...], layout: Layout) -> str:
    """Return the GGML type of a tensor at a level, such as "Q6_K"; `shape` is (rows, columns)."""
    if len(shape) < 2 or not name.endswith("weight") or name.endswith(_NEVER_QUANTIZED):
        return "F32"
    default = _DEFAULT_TYPES[level]
    if default in _FLOAT_TYPES:
        return default
    columns = shape[-1]
    if name == "output.weight" or (layout.tied_embeddings and name == "token_embd.weight"):
        block = 32 if default in ("Q8_0", "Q5_0", "Q4_0") else 256
        chosen = "Q8_0" if columns % block or default == "Q8_0" else "Q6_K"
    else:
        chosen = _inner_type(level, name, layout)
    if columns % 256:
        chosen = _FALLBACKS.get(chosen, chosen)
    return "F16" if columns % 32 else chosen


def quantize(values: FloatArray, type_name: str) -> NDArray[np.uint8]:
    """Return the bytes of a tensor in a GGML type; `values` is (rows, columns) or a vector.

    Raises EngineError if the library that quantizes is missing.
    """
    import gguf

    values = np.ascontiguousarray(values, dtype=np.float32)
    kind = gguf.GGMLQuantizationType[type_name]
    if type_name in _FLOAT_TYPES:
        with np.errstate(over="ignore"):  # values beyond f16 become infinite, as in llama.cpp
            floats: NDArray[Any] = gguf.quantize(values, kind)
        return floats.reshape(-1).view(np.uint8)
    columns, result = values.shape[-1], np.empty(stored_bytes(values.shape, type_name), dtype=np.uint8)
    data, target, rows = values.ctypes.data, result.ctypes.data, values.size // columns
    written = _ggml().ggml_quantize_chunk(int(kind), data, target, 0, rows, columns, None)
    if written != result.size:
        raise EngineError(
            f"quantizing to {type_name} gave {written} bytes, not {result.size}; install another version of xllamacpp"
        )
    return result


def stored_bytes(shape: tuple[int, ...], type_name: str) -> int:
    """Return the size of a tensor of this shape in this type."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    return int(np.prod(shape, dtype=np.int64)) // int(block) * int(block_bytes)


def _inner_type(level: str, name: str, layout: Layout) -> str:
    default, match = _DEFAULT_TYPES[level], _BLOCK.fullmatch(name)
    if match is None:
        return default
    layer, part = int(match[1]), match[2]
    better = "Q6_K" if level in ("q4_k_m", "q5_k_m") and _uses_more_bits(layer, layout.layers) else default
    if part in ("attn_v", "attn_qkv"):  # one matrix for all three is treated like the values
        grouped = layout.heads // layout.kv_heads >= 4
        special = {"q2_k": "Q4_K" if grouped else "Q3_K", "q3_k_m": "Q5_K" if layer < 2 else "Q4_K"}
        chosen = special.get(level, better)
        # llama.cpp recognises its 70B by 80 layers with grouped queries: the tensor is small there, the gain is not.
        is_70b = layout.layers == 80 and layout.heads != layout.kv_heads
        return "Q5_K" if is_70b and chosen in ("Q3_K", "Q4_K") else chosen
    if part == "ffn_down":
        return {"q2_k": "Q3_K", "q3_k_m": "Q5_K" if layer < layout.layers // 16 else "Q4_K"}.get(level, better)
    if part == "attn_output":
        return {"q2_k": "Q3_K", "q3_k_m": "Q4_K"}.get(level, default)
    return default


def _uses_more_bits(layer: int, layers: int) -> bool:
    """Return True for the first and last eighth of the layers and every third between (`use_more_bits`)."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


@cache
def _ggml() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    found = sorted(Path(spec.origin).parent.glob("xllamacpp*.so")) if spec and spec.origin else []
    if not found:
        raise EngineError("quantizing needs the xllamacpp package; install it with: pip install xllamacpp")
    library = ctypes.CDLL(str(found[0]))
    quantize_chunk = library.ggml_quantize_chunk
    quantize_chunk.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    return library
