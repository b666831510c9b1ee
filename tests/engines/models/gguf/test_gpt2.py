"""The conversion of GPT-2 to GGUF gives the same model, and random models are the same in every engine."""

from __future__ import annotations

import asyncio
import ctypes
import http.client
import json
from pathlib import Path
from typing import Any

import gguf
import needs
import numpy as np
import pytest
from models_made_small import write

from engines.base import EngineSpec, ModelError, ModelReference
from engines.llamacpp.server import LlamaServer
from engines.models import safetensors_io
from engines.models.gguf import file as ggufs
from engines.models.gguf.quantize import LEVELS
from engines.models.gguf.write import file_type
from engines.models.source import resolve, weight_files
from engines.models.tokenizer import tokenizer
from engines.models.types import ModelSource

NEW_TOKENS, TOP = 32, 20
TEXT = "It was a truth, acknowledged!\n\n I'll pay 12345; 3.14 \t x__y  'S caf\u00e9 na\u00efve \u00bd \u4f60 done."


def _generate(url: str, ids: list[int]) -> dict[str, Any]:
    """The greedy continuation, with the likeliest tokens at each step, as llama.cpp's server gives them."""
    body = {"prompt": ids, "n_predict": NEW_TOKENS, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
    connection.request("POST", "/completion", json.dumps(body | {"n_probs": TOP, "return_tokens": True}))
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


async def _by_llama_cpp(
    model: str, prompts: list[list[int]], n_ctx: int, log: Path
) -> tuple[list[dict[str, Any]], list[int]]:
    options = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": False, "n_parallel": 1, "n_ctx": n_ctx}
    engine = LlamaServer(EngineSpec("llama-server", ModelReference(model), "f32", options, log_path=log))
    await engine.start()
    try:
        url = engine.endpoint().url
        answers = [await asyncio.to_thread(_generate, url, prompt) for prompt in prompts]
        return answers, await engine.tokenize(TEXT)
    finally:
        await engine.stop()


def _log_probabilities(folder: Path, ids: list[int]) -> Any:
    """After every position, by transformers in float32: (tokens, vocabulary)."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0], -1).numpy()


@pytest.mark.engines
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of torch
@pytest.mark.parametrize(
    ("name", "small", "tolerance"),
    # llama.cpp looks GELU up in a table of f16, which costs 1e-3; a Llama has no GELU.
    [("gpt2-small", True, 3e-3), ("llama-160m", True, 1e-4), ("gpt2-small", False, 3e-3), ("llama-160m", False, 1e-4)],
)
def test_llama_cpp_and_transformers_give_the_same_probabilities(
    name: str, small: bool, tolerance: float, tmp_path: Path
) -> None:
    """Both agree in f32 on the same ids. An error in one layer would change the most likely tokens."""
    for library in ("torch", "transformers"):
        needs.library(library)
    source = write(tmp_path / name, name) if small else resolve(ModelReference(name))
    weight_files(source)
    own = tokenizer(source)
    assert own is not None
    size, context = (397, 64) if small else (30_000, 512)
    random = np.random.default_rng(0)
    prompts = [random.integers(0, size, count).tolist() for count in (3, 17, 31 if small else 200)]
    model = str(source.path) if small else name
    answers, ids = asyncio.run(_by_llama_cpp(model, prompts, context, tmp_path / "log"))
    for prompt, answer in zip(prompts, answers, strict=True):
        reply = answer["tokens"]
        assert len(reply) == NEW_TOKENS
        assert answer["content"] == own.decode(reply)
        expected = _log_probabilities(source.path, prompt + reply)[len(prompt) - 1 :]
        for row, step in zip(expected, answer["completion_probabilities"], strict=False):
            found = [abs(row[top["id"]] - top["logprob"]) for top in step["top_logprobs"]]
            assert max(found) < tolerance
    assert ids == own.encode(TEXT) == _library_ids(source.path)


def _library_ids(folder: Path) -> list[int]:
    from transformers import AutoTokenizer

    ids: list[int] = AutoTokenizer.from_pretrained(folder)(TEXT, add_special_tokens=False).input_ids
    return ids


@pytest.mark.engines
@pytest.mark.parametrize(("name", "width"), [("gpt2-small", 256), ("gpt2-small", 96), ("llama-160m", 256)])
def test_levels_are_those_that_llama_cpp_makes(name: str, width: int, tmp_path: Path) -> None:
    """Every level has the same tensors in the same types with the same bytes as llama.cpp's own quantizing gives."""
    needs.library("llama_cpp")
    import llama_cpp

    source = write(tmp_path / "model", name, **{"n_embd" if name.startswith("gpt2") else "hidden_size": width})
    start, theirs_path = ggufs.gguf_file(source, "f16"), tmp_path / "theirs.gguf"
    for level in LEVELS[3:]:
        wanted = llama_cpp.llama_model_quantize_default_params()
        wanted.ftype, wanted.nthread = file_type(level), 1
        paths = (str(start).encode(), str(theirs_path).encode())
        assert llama_cpp.llama_model_quantize(*paths, ctypes.byref(wanted)) == 0
        theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(str(theirs_path)).tensors}
        ours = {tensor.name: tensor for tensor in gguf.GGUFReader(str(ggufs.gguf_file(source, level))).tensors}
        assert {key: one.tensor_type for key, one in ours.items()} == {
            key: one.tensor_type for key, one in theirs.items()
        }
        assert all(np.array_equal(ours[key].data, theirs[key].data) for key in ours), level


def test_a_converted_gpt2_is_whole(tmp_path: Path) -> None:
    """All tensors under llama.cpp's names, weights turned round, biases and positions in f32."""
    source = write(tmp_path / "model", "gpt2-small", n_layer=2)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(str(ggufs.gguf_file(source, "f16"))).tensors}
    assert len(found) == 2 * 12 + 4
    assert found["blk.1.attn_qkv.weight"].data.shape == (768, 256)
    stored = safetensors_io.read(source.path / "model.safetensors")
    assert np.array_equal(
        found["blk.1.attn_qkv.weight"].data.astype(np.float32), stored["transformer.h.1.attn.c_attn.weight"].load().T
    )
    assert {found[name].tensor_type.name for name in ("position_embd.weight", "blk.0.ffn_up.bias")} == {"F32"}


def _changed(source: ModelSource, **changes: Any) -> None:
    path = source.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"activation_function": "relu"}, "activation relu"),
        ({"scale_attn_by_inverse_layer_idx": True}, "attention scaled by layer"),
        ({"scale_attn_weights": False}, "unscaled attention"),
        ({"add_cross_attention": True}, "cross attention"),
        ({"tie_word_embeddings": False}, "an output apart from its embeddings"),
    ],
)
def test_other_kinds_of_gpt2_name_the_converter(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Unsupported parts of a GPT-2 are not silently dropped."""
    source = write(tmp_path / "model", "gpt2-small", n_layer=1)
    _changed(source, **changes)
    with pytest.raises(ModelError, match=rf"{words}.*python convert_hf_to_gguf\.py .*model --outfile model\.gguf"):
        ggufs.gguf_file(source, "f16")


def test_a_tokenizer_with_merges_is_converted(tmp_path: Path) -> None:
    """GPT-2's own kind of vocabulary: pairs that merge, as one text or as two, split by the pattern of ByteLevel."""
    for number, merges in enumerate([["a b"], [["a", "b"]]]):
        source = write(tmp_path / f"model{number}", "gpt2-small", n_layer=1, n_positions=32 + number)
        path = source.path / "tokenizer.json"
        content = json.loads(path.read_text())
        content["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        content["model"] |= {"merges": merges, "ignore_merges": False}
        path.write_text(json.dumps(content))
        fields = gguf.GGUFReader(str(ggufs.gguf_file(source, "f16"))).fields
        assert fields["tokenizer.ggml.merges"].contents() == ["a b"]
        assert fields["tokenizer.ggml.pre"].contents() == "gpt-2"
