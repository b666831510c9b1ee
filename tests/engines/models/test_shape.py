"""Sizes of models, told without loading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engines.base import ModelError, ModelReference
from engines.models.gguf.file import gguf_file
from engines.models.shape import computed_parameters, shape_of
from engines.models.source import resolve

TINY = resolve(ModelReference("tiny"))
LLAMA_1B = {
    "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32, "head_dim": 64,
    "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128_256, "tie_word_embeddings": True,
    "max_position_embeddings": 131_072,
}  # fmt: skip
GPT2 = {
    "model_type": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "vocab_size": 50_257, "n_positions": 1024,
}  # fmt: skip


def _folder(path: Path, config: dict[str, Any]) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_a_folder_and_its_gguf_file_have_the_same_shape() -> None:
    """Folder and file of a model have equal sizes at every level."""
    of_folder = shape_of(TINY.path)
    assert of_folder is not None
    assert (of_folder.layers, of_folder.kv_heads, of_folder.head_size) == (4, 2, 64)
    assert (of_folder.vocabulary, of_folder.context_tokens) == (258, 1024)
    assert of_folder.parameters == 3_214_080
    for level in ("f16", "q4_0"):
        assert shape_of(gguf_file(TINY, level)) == of_folder


def test_the_formula_counts_what_the_files_hold() -> None:
    """The size of a built-in architecture is known without its files."""
    assert computed_parameters(json.loads((TINY.path / "config.json").read_text())) == 3_214_080


@pytest.mark.parametrize(
    ("config", "parameters"), [(GPT2, 124_439_808), (LLAMA_1B, 1_235_814_400), (LLAMA_1B | {"model_type": "x"}, None)]
)
def test_published_parameter_counts(tmp_path: Path, config: dict[str, Any], parameters: int | None) -> None:
    """GPT-2 and Llama-3.2-1B have the numbers of weights that their authors state; of others nothing is claimed."""
    found = shape_of(_folder(tmp_path, config))
    assert found is not None
    assert found.parameters == parameters


def test_a_token_takes_a_key_and_a_value_of_every_kv_head(tmp_path: Path) -> None:
    """Llama-3.2-1B: 16 layers x 8 heads x 64 values, twice, of 2 bytes; GPT-2 has as many KV heads as heads."""
    llama = shape_of(_folder(tmp_path, LLAMA_1B))
    assert llama is not None
    assert llama.kv_bytes_per_token() == 32_768
    assert llama.kv_bytes_per_token(1.0625) == 17_408
    gpt2 = shape_of(_folder(tmp_path, GPT2))
    assert gpt2 is not None
    assert gpt2.kv_bytes_per_token() == 2 * 12 * 768 * 2


@pytest.mark.parametrize(
    "config",
    [{}, {"model_type": "mamba", "num_hidden_layers": 4, "hidden_size": 8, "vocab_size": 9},
     LLAMA_1B | {"kv_lora_rank": 512}],
)  # fmt: skip
def test_unknown_shapes_are_none(tmp_path: Path, config: dict[str, Any]) -> None:
    """A missing number of heads or another kind of cache gives None."""
    assert shape_of(_folder(tmp_path, config)) is None


def test_names_of_keys_differ_between_architectures(tmp_path: Path) -> None:
    """Falcon's single KV head, MPT's names, and the text part of a model that sees."""
    falcon = {"model_type": "falcon", "n_layer": 2, "n_head": 4, "hidden_size": 8, "vocab_size": 9, "multi_query": True}
    mpt = {"model_type": "mpt", "n_layers": 2, "n_heads": 4, "d_model": 8, "vocab_size": 9, "max_seq_len": 77}
    found = [shape_of(_folder(tmp_path, config)) for config in (falcon, mpt, {"text_config": mpt})]
    assert [(one.layers, one.kv_heads, one.head_size, one.context_tokens) for one in found if one] == [
        (2, 1, 2, None),
        (2, 4, 2, 77),
        (2, 4, 2, 77),
    ]


def test_a_damaged_configuration_is_an_error(tmp_path: Path) -> None:
    """The sentence names the file."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not JSON"):
        shape_of(tmp_path)
