"""Which tensor gets which type, and the quantizing itself."""

from __future__ import annotations

import re
from collections import Counter

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.models.gguf.quantize import LEVELS, quantize, stored_bytes, tensor_type
from engines.models.types import Layout

# Relative root-mean-square error on normally distributed weights; measured, then a tenth added.
ERROR_BOUNDS = {
    "F32": 0.0,
    "F16": 0.0003,
    "BF16": 0.0019,
    "Q8_0": 0.006,
    "Q6_K": 0.02,
    "Q5_K": 0.04,
    "Q5_1": 0.042,
    "Q5_0": 0.047,
    "Q4_K": 0.079,
    "Q4_0": 0.095,
    "Q3_K": 0.17,
    "Q2_K": 0.33,
}
MATRICES = {
    "attn_q": (4096, 4096),
    "attn_k": (4096, 4096),
    "attn_v": (4096, 4096),
    "attn_output": (4096, 4096),
    "ffn_gate": (11008, 4096),
    "ffn_up": (11008, 4096),
    "ffn_down": (4096, 11008),
}


def _restored(values: NDArray[np.float32], type_name: str) -> NDArray[np.float32]:
    data = quantize(values, type_name)
    numpy_type = {"F32": np.float32, "F16": np.float16}.get(type_name, np.uint8)
    rows = data.view(numpy_type).reshape(values.shape[0], -1)
    restored: NDArray[np.float32] = gguf.dequantize(rows, gguf.GGMLQuantizationType[type_name])
    return restored


@pytest.mark.parametrize("type_name", ERROR_BOUNDS)
def test_quantized_weights_come_back_within_bounds(type_name: str) -> None:
    """The gguf package's own dequantizing gives the weights back, as exactly as the type can."""
    values = np.random.default_rng(1).standard_normal((64, 768)).astype(np.float32)
    error = np.sqrt(np.mean((_restored(values, type_name) - values) ** 2) / np.mean(values**2))
    assert error <= ERROR_BOUNDS[type_name]
    assert error >= ERROR_BOUNDS[type_name] / 2


@pytest.mark.parametrize("type_name", ["Q8_0", "Q5_0", "Q4_0", "BF16"])
def test_simple_types_are_those_of_the_gguf_package(type_name: str) -> None:
    """Nearly every byte equals the gguf package's for types that it quantizes (ties may round differently)."""
    values = np.random.default_rng(2).standard_normal((16, 256)).astype(np.float32)
    theirs = gguf.quantize(values, gguf.GGMLQuantizationType[type_name]).reshape(-1)
    assert np.mean(quantize(values, type_name) == theirs) > 0.99


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_bfloat16_is_the_nearest_value(numbers: list[float]) -> None:
    """BF16 keeps NaN and infinity and is off by at most half a step elsewhere."""
    values = np.array(numbers, dtype=np.float32)
    back = (quantize(values, "BF16").view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(np.isnan(back), np.isnan(values))
    finite = np.isfinite(values) & np.isfinite(back)
    exact = values[finite].astype(np.float64)
    assert np.all(np.abs(back[finite] - exact) <= np.abs(exact) * 2.0**-8 + 1e-38)


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 3), st.sampled_from(sorted(ERROR_BOUNDS)))
def test_stored_size_is_what_quantizing_writes(rows: int, blocks: int, type_name: str) -> None:
    """The size written into the header is the size of the data."""
    values = np.ones((rows, blocks * 256), dtype=np.float32)
    assert quantize(values, type_name).nbytes == stored_bytes(values.shape, type_name)


def _seven_billion(level: str) -> Counter[str]:
    layout = Layout(layers=32, heads=32, kv_heads=32, tied_embeddings=False)
    shapes = {f"blk.{layer}.{name}.weight": shape for layer in range(32) for name, shape in MATRICES.items()}
    shapes |= {"token_embd.weight": (32000, 4096), "output.weight": (32000, 4096)}
    return Counter(tensor_type(level, name, shape, layout) for name, shape in shapes.items())


@pytest.mark.parametrize(
    ("level", "counts"),
    [
        ("q3_k_m", {"Q3_K": 129, "Q4_K": 92, "Q5_K": 4, "Q6_K": 1}),
        ("q4_k_m", {"Q4_K": 193, "Q6_K": 33}),
        ("q5_k_m", {"Q5_K": 193, "Q6_K": 33}),
        ("q6_k", {"Q6_K": 226}),
        ("q4_0", {"Q4_0": 225, "Q6_K": 1}),
        ("q8_0", {"Q8_0": 226}),
        ("bf16", {"BF16": 226}),
    ],
)
def test_mix_of_a_seven_billion_llama(level: str, counts: dict[str, int]) -> None:
    """A 32-layer Llama gets the counts of types that llama.cpp prints when it loads such files."""
    assert _seven_billion(level) == counts


def test_two_bit_level_keeps_the_sensitive_tensors_at_three() -> None:
    """Values, attention outputs and ffn_down of q2_k have three bits; grouped queries give the values four."""
    grouped = Layout(layers=4, heads=32, kv_heads=8, tied_embeddings=False)
    single = Layout(layers=4, heads=32, kv_heads=32, tied_embeddings=False)
    names = ("attn_q", "attn_v", "attn_output", "ffn_down", "ffn_up")
    found = {name: tensor_type("q2_k", f"blk.1.{name}.weight", MATRICES[name], single) for name in names}
    assert found == {"attn_q": "Q2_K", "attn_v": "Q3_K", "attn_output": "Q3_K", "ffn_down": "Q3_K", "ffn_up": "Q2_K"}
    assert tensor_type("q2_k", "blk.1.attn_v.weight", (1024, 4096), grouped) == "Q4_K"


@pytest.mark.parametrize("level", LEVELS)
def test_norms_stay_float_and_tied_embeddings_are_the_output(level: str) -> None:
    """Norms are F32 at every level; a tied embedding has the type of an output tensor."""
    layout = Layout(layers=4, heads=4, kv_heads=2, tied_embeddings=True)
    assert tensor_type(level, "blk.0.attn_norm.weight", (256,), layout) == "F32"
    expected = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}.get(level, "Q6_K")
    assert tensor_type(level, "token_embd.weight", (258, 256), layout) == expected


@pytest.mark.parametrize(
    ("level", "fallback"),
    [("q2_k", "Q4_0"), ("q4_k_m", "Q5_0"), ("q5_k_m", "Q5_1"), ("q6_k", "Q8_0"), ("q4_0", "Q4_0"), ("q8_0", "Q8_0")],
)
def test_rows_that_do_not_fit_fall_back(level: str, fallback: str) -> None:
    """Rows that are no multiple of 256 get the type llama.cpp takes; rows that are no multiple of 32 get F16."""
    layout = Layout(layers=40, heads=4, kv_heads=4, tied_embeddings=True)
    assert tensor_type(level, "blk.6.ffn_up.weight", (64, 288), layout) == fallback
    assert tensor_type(level, "blk.6.ffn_up.weight", (64, 40), layout) == "F16"
    assert re.fullmatch("Q8_0|Q6_K", tensor_type(level, "token_embd.weight", (258, 288), layout))
