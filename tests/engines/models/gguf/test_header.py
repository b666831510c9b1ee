"""The reader of GGUF metadata."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from gguf import GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.base import ModelError
from engines.models.gguf.header import read_header


def _file(path: Path, texts: list[str]) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_file_type(15)
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_uint64("a.long", 1 << 40)
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_array("a.texts", texts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_fields_come_back(tmp_path: Path, texts: list[str]) -> None:
    """Every kind of field that the gguf package writes is read."""
    header = read_header(_file(tmp_path / "a.gguf", texts))
    assert header["general.architecture"] == "llama"
    assert header["general.file_type"] == 15
    assert (header["a.float"], header["a.bool"], header["a.long"]) == (0.5, True, 1 << 40)
    assert header["a.numbers"] == [1, 2, 3]
    assert header["a.texts"] == texts


@given(st.binary(max_size=100), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_header_or_one_sentence(tmp_path: Path, data: bytes, with_magic: bool) -> None:
    """A damaged file raises ModelError, nothing else."""
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + data if with_magic else data)
    with suppress(ModelError):
        assert isinstance(read_header(path), dict)


@given(st.integers(min_value=4, max_value=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_truncation_is_an_error(tmp_path: Path, length: int) -> None:
    """A file cut anywhere inside its metadata is named as damaged."""
    whole = _file(tmp_path / "whole.gguf", ["x" * 100]).read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[: min(length, len(whole) - 1)])
    with pytest.raises(ModelError, match="damaged GGUF"):
        read_header(cut)
