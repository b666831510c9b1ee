"""The safetensors reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.base import ModelError
from engines.models import safetensors_io


def _write(path: Path, header: Mapping[str, object], data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(("dtype", "numpy_type"), [("F32", np.float32), ("F16", np.float16), ("F64", np.float64)])
def test_values_are_read_exactly(tmp_path: Path, dtype: str, numpy_type: type) -> None:
    """Stored values are read as float32, in their shape."""
    values = np.arange(-3, 3, dtype=numpy_type).reshape(2, 3) / 4
    header = {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, values.nbytes]},
    }
    loaded = safetensors_io.read(_write(tmp_path / "a.safetensors", header, values.tobytes()))["w"].load()
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, values.astype(np.float32))


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    """BF16 values are exact."""
    values = np.array([1.0, -2.5, 3.0e38], dtype=np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = {"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}
    loaded = safetensors_io.read(_write(tmp_path / "a.safetensors", header, upper.tobytes()))["w"].load()
    assert np.array_equal(loaded, (upper.astype(np.uint32) << 16).view(np.float32))


def test_other_types_are_refused_by_name(tmp_path: Path) -> None:
    """Weights in a type that is no float here are one sentence."""
    header = {"w": {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}}
    with pytest.raises(ModelError, match="type I8"):
        safetensors_io.read(_write(tmp_path / "a.safetensors", header, b"ab"))["w"].load()


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_file_or_one_sentence(tmp_path: Path, data: bytes) -> None:
    """A file that is no safetensors raises ModelError, nothing else."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with suppress(ModelError):
        assert isinstance(safetensors_io.read(path), dict)


def test_truncated_data_is_noticed_before_loading(tmp_path: Path) -> None:
    """A download that broke off is told when the file is opened."""
    header = {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    with pytest.raises(ModelError, match="lies outside the file"):
        safetensors_io.read(_write(tmp_path / "a.safetensors", header, b"1234"))
