"""GGUF files at every level, from folders and from other GGUF files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from engines.base import LevelUnsupported, ModelError, ModelReference
from engines.models.gguf import file as ggufs
from engines.models.gguf import folder as gguf_folder
from engines.models.gguf import write
from engines.models.gguf.file import gguf_file, gguf_level, weight_bytes
from engines.models.gguf.header import read_header
from engines.models.gguf.quantize import LEVELS
from engines.models.source import resolve
from engines.models.types import ModelSource

TINY = resolve(ModelReference("tiny"))


@pytest.fixture
def folder(tmp_path: Path) -> ModelSource:
    """A copy of `tiny` that a test may spoil."""
    shutil.copytree(TINY.path, tmp_path / "model")
    return resolve(ModelReference(str(tmp_path / "model")))


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_of_tiny_states_its_level(level: str) -> None:
    """The file names its level, holds every tensor once and is not built again."""
    path = gguf_file(TINY, level)
    assert gguf_level(path) == level
    assert weight_bytes(path) == path.stat().st_size
    assert ggufs.context_tokens(path) == 1024
    tensors = gguf.GGUFReader(str(path)).tensors
    assert len({tensor.name for tensor in tensors}) == len(tensors) == 4 * 9 + 2
    written = path.stat().st_mtime_ns
    assert gguf_file(TINY, level) == path
    assert path.stat().st_mtime_ns == written


@pytest.mark.slow
def test_lower_levels_are_smaller() -> None:
    """Sizes decrease along the list of levels; f16 and bf16 are equal."""
    sizes = [weight_bytes(gguf_file(TINY, level)) for level in LEVELS]
    assert sizes == sorted(sizes, reverse=True)


def test_without_a_level_the_precision_of_the_source_is_kept() -> None:
    """`tiny` is stored in f16, so that is its file."""
    assert gguf_file(TINY) == gguf_file(TINY, "f16")


def test_full_precision_gguf_gives_the_same_levels_as_the_folder(tmp_path: Path) -> None:
    """Quantizing a user's own f16 file gives the very bytes that quantizing the folder gives."""
    own = shutil.copy(gguf_file(TINY, "f16"), tmp_path / "own.gguf")
    source = resolve(ModelReference(str(own)))
    assert gguf_file(source) == gguf_file(source, "f16") == source.path
    from_file = gguf.GGUFReader(str(gguf_file(source, "q4_k_m")))
    from_folder = gguf.GGUFReader(str(gguf_file(TINY, "q4_k_m")))
    assert from_file.fields.keys() == from_folder.fields.keys()
    for ours, theirs in zip(from_file.tensors, from_folder.tensors, strict=True):
        assert (ours.name, ours.tensor_type) == (theirs.name, theirs.tensor_type)
        assert np.array_equal(ours.data, theirs.data)


def test_quantized_gguf_has_its_own_level_only(tmp_path: Path) -> None:
    """A level cannot be made from an already quantized file."""
    own = shutil.copy(gguf_file(TINY, "q8_0"), tmp_path / "own.gguf")
    source = resolve(ModelReference(str(own)))
    assert gguf_file(source, "q8_0") == source.path
    with pytest.raises(LevelUnsupported, match=r"own\.gguf is q8_0 already; q4_0 needs a file in f32, f16 or bf16"):
        gguf_file(source, "q4_0")


def test_unknown_level_is_unsupported() -> None:
    """A level of another engine is refused with the list of ours."""
    with pytest.raises(LevelUnsupported, match="no level 'fp8' for GGUF models; known are f32, f16"):
        gguf_file(TINY, "fp8")


def test_damaged_gguf_is_one_sentence(tmp_path: Path) -> None:
    """A file that only looks like a model is told as damaged."""
    (tmp_path / "own.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    with pytest.raises(ModelError, match="damaged GGUF file"):
        gguf_file(resolve(ModelReference(str(tmp_path / "own.gguf"))))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bloom"}, "architecture bloom"),
        ({"attention_bias": True}, "attention biases"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "scaled rotary positions"),
        ({"hidden_act": "gelu"}, "activation gelu"),
        ({"quantization_config": {}}, "quantized weights"),
    ],
)
def test_other_architectures_name_the_converter(folder: ModelSource, changes: dict[str, Any], words: str) -> None:
    """The message names the unsupported part and the converter."""
    _change(folder.path / "config.json", **changes)
    with pytest.raises(ModelError, match=words) as caught:
        gguf_file(folder, "f16")
    assert f"python convert_hf_to_gguf.py {folder.path} --outfile model.gguf" in str(caught.value)


def test_other_tokenizers_name_the_converter(folder: ModelSource) -> None:
    """A vocabulary with merges is not converted here."""
    content = json.loads((folder.path / "tokenizer.json").read_text())
    content["model"]["merges"] = [["a", "b"]]
    (folder.path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(
        ModelError, match=r"tokenizer that is neither bytes nor like those of GPT-2 and Llama 3.*convert_hf_to_gguf\.py"
    ):
        gguf_file(folder, "f16")


def test_every_token_that_ends_a_reply_is_named(folder: ModelSource) -> None:
    """The ids come from generation_config.json, else config.json. By default llama.cpp ends at token 11."""
    keys = [f"tokenizer.ggml.{role}_token_id" for role in ("eos", "eot", "eom")]
    _change(folder.path / "config.json", eos_token_id=[256])
    _change(folder.path / "generation_config.json", eos_token_id=[257, 256])
    header = read_header(gguf_file(folder, "f16"))
    assert [header.get(key) for key in keys] == [257, 256, None]
    (folder.path / "generation_config.json").unlink()
    header = read_header(gguf_file(folder, "f16"))
    assert [header.get(key) for key in keys] == [256, None, None]


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (None, "no end-of-sequence token"),
        ([97, 98, 99, 257], "more end-of-sequence tokens than llama.cpp knows"),
        (50_256, "special tokens beyond its vocabulary"),
    ],
)
def test_ends_that_a_file_cannot_name_are_refused(folder: ModelSource, ends: Any, words: str) -> None:
    """Rather than a model whose replies end at commas."""
    _change(folder.path / "generation_config.json", eos_token_id=ends)
    with pytest.raises(ModelError, match=words):
        gguf_file(folder, "f16")


def test_a_token_without_weights_is_left_out(folder: ModelSource) -> None:
    """A token for padding that was added in training, beside embeddings that were not made larger."""
    content = json.loads((folder.path / "tokenizer.json").read_text())
    padding = {**content["added_tokens"][0], "id": 258, "content": "[PAD]"}
    _change(folder.path / "tokenizer.json", added_tokens=[*content["added_tokens"], padding])
    whole, found = (read_header(gguf_file(source, "f16")) for source in (TINY, folder))
    assert found["tokenizer.ggml.tokens"] == whole["tokenizer.ggml.tokens"]
    assert found["tokenizer.ggml.token_type"] == whole["tokenizer.ggml.token_type"]


def test_another_configuration_gives_another_file(folder: ModelSource) -> None:
    """Another configuration of the same weights gives another file."""
    before = gguf_file(folder, "q8_0")
    _change(folder.path / "config.json", rms_norm_eps=1e-6)
    assert gguf_file(folder, "q8_0") != before


@pytest.mark.slow
@pytest.mark.parametrize("level", ["f16", "q4_k_m"])
def test_parts_of_large_tensors_give_the_same_file(level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A matrix that does not fit into memory is quantized some rows at a time, which changes no byte."""
    for source in (gguf_folder.read(TINY), write.read(ModelSource("own", "gguf", gguf_file(TINY, "f16")))):
        write.write(source, level, tmp_path / "whole.gguf")
        monkeypatch.setattr(write, "_PART_VALUES", 1000)
        write.write(source, level, tmp_path / "parts.gguf")
        monkeypatch.undo()
        assert (tmp_path / "parts.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_missing_weights_are_named(folder: ModelSource) -> None:
    """A checkpoint with fewer layers than its configuration says lacks a tensor by name."""
    _change(folder.path / "config.json", num_hidden_layers=5)
    with pytest.raises(ModelError, match=r"lack model\.layers\.4\."):
        gguf_file(folder, "f16")
