"""Levels of the engine `transformers`: made while loading, or of a checkpoint, on the CPU and on a GPU."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import needs
import numpy as np
import pytest

from engines.base import EngineInfo, LevelUnsupported, ModelReference, Request, collect
from engines.huggingface.engine import Transformers
from engines.huggingface.loading import weight_bytes
from engines.models.source import resolve
from tests.engines.huggingface.running import MARKS, TEXT, reply_of, running, spec_of, text_of

PLAIN = ("fp32", "fp16", "bf16")
QUANTIZED = ("int8", "int8-torchao", "nf4", "fp4", "fp8")

pytestmark = MARKS


def scale_bytes_saved() -> int:
    """Return the bytes that bitsandbytes saves of the 4 of a scale: 2 if the processor computes in bf16."""
    from bitsandbytes.functional import has_avx512bf16

    return 2 if has_avx512bf16() else 0


@pytest.mark.slow
@pytest.mark.parametrize("level", [*PLAIN, *QUANTIZED])
def test_every_level_that_runs_here_generates_and_scores(level: str) -> None:
    """The level as loaded is the level asked for, its weights take what it says, and its text is near that of fp32."""

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert (info.level, info.device) == (level, "cpu")
        assert engine.memory_needed().parts["weights"] <= info.memory["weights"]  # type: ignore[union-attr]
        four_bit = 0.6 - scale_bytes_saved() / 64
        expected = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "nf4": four_bit, "fp4": four_bit}.get(level, 1.05)
        assert info.memory["weights"] / (info.parameters or 1) == pytest.approx(expected, rel=0.05)
        assert len(text_of(await collect(engine.generate(Request(TEXT, 12, exact=True))))) == 12
        scores = await engine.score(list(TEXT.encode()), 1)
        assert scores.logprobs.shape == (len(TEXT) - 1, 258)
        assert np.exp(scores.logprobs).sum(axis=1) == pytest.approx(1, abs=1e-4)
        assert scores.true_logprobs.mean() == pytest.approx(-1.09, abs=0.05)

    running(spec_of(level), body)


def save_wide(folder: Path) -> None:
    """`tiny` in bf16 with all that is added up between layers 2**14 times as large, which the norms take out again."""
    import torch
    from transformers import AutoModelForCausalLM

    source = resolve(ModelReference("tiny")).path
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.clone())
        model.model.embed_tokens.weight *= 2**14
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= 2**14
            layer.mlp.down_proj.weight *= 2**14
    model.save_pretrained(folder)
    shutil.copy(source / "tokenizer.json", folder)


@pytest.mark.slow
def test_int8_keeps_the_range_of_a_bf16_checkpoint(tmp_path: Path) -> None:
    """Sums that fp16 cannot hold do not overflow between the layers that are quantized."""
    needs.library("bitsandbytes")
    save_wide(tmp_path)

    async def body(engine: Transformers, _: EngineInfo) -> float:
        return float((await engine.score(list(TEXT.encode()), 1)).true_logprobs.mean())

    assert running(spec_of("int8", str(tmp_path)), body) == pytest.approx(-1.09, abs=0.05)
    assert np.isnan(running(spec_of("fp16", str(tmp_path)), body))


def test_without_a_level_the_checkpoint_s_own_type_is_loaded() -> None:
    """`tiny` is stored in f16, and that is what runs and what is said."""

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert info.level == "fp16"
        assert info.memory["weights"] == pytest.approx(info.weight_bytes, rel=0.01)
        assert info.kv_bytes_per_token == 2 * 4 * 2 * 64 * 2

    running(spec_of(None), body)


def marked_as(folder: Path, quantization: dict[str, Any]) -> str:
    """A copy of `tiny` whose config.json says that it was quantized."""
    source = resolve(ModelReference("tiny")).path
    copy = shutil.copytree(source, folder / "model")
    config = json.loads((source / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "quantization_config": quantization}))
    return str(copy)


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_checkpoint_s_level_is_the_only_one_it_has(method: str, tmp_path: Path) -> None:
    """Other levels are refused before loading; its own, on a CPU too, names the libraries that are not installed."""
    if find_spec("gptqmodel") is not None:
        pytest.skip("gptqmodel is installed here")
    assert Transformers.devices(method) == ("cpu", "cuda")
    model = marked_as(tmp_path, {"quant_method": method, "bits": 4, "group_size": 128, "zero_point": True})
    with pytest.raises(LevelUnsupported, match=f"quantized beforehand to {method}"):
        Transformers(spec_of("fp16", model)).prepare()
    with pytest.raises(LevelUnsupported, match=f"name a model that was quantized with {method.upper()}"):
        Transformers(spec_of(method)).prepare()
    for level in (method, None):
        with pytest.raises(
            LevelUnsupported, match=f"{method} needs libraries that are not installed here: pip install"
        ):
            reply_of(spec_of(level, model), Request(TEXT, 1))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["nf4", "int8"])
def test_a_quantized_checkpoint_is_loaded_unchanged(level: str, tmp_path: Path) -> None:
    """Saved in 4 or 8 bits, it runs without a level being named, and says which it has."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    source = resolve(ModelReference("tiny")).path
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    how = BitsAndBytesConfig(**(four if level == "nf4" else {"load_in_8bit": True}))
    AutoModelForCausalLM.from_pretrained(source, quantization_config=how, device_map="cpu").save_pretrained(tmp_path)
    shutil.copy(source / "tokenizer.json", tmp_path)

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert info.level == level
        assert len(text_of(await collect(engine.generate(Request(TEXT, 8, exact=True))))) == 8

    running(spec_of(None, str(tmp_path)), body)
    running(spec_of(level, str(tmp_path)), body)
    with pytest.raises(LevelUnsupported, match=level):
        Transformers(spec_of("fp8", str(tmp_path))).prepare()


@pytest.mark.slow
def test_a_compressed_tensors_checkpoint_is_weighed_as_it_runs(tmp_path: Path) -> None:
    """The library unpacks it at the first token: what is told of its memory is what it takes from then on."""
    needs.library("compressed_tensors")
    source = resolve(ModelReference("tiny")).path
    save_compressed(source, tmp_path)

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert info.level == "compressed-tensors"
        assert len(text_of(await collect(engine.generate(Request(TEXT, 8, exact=True))))) == 8
        assert info.memory["weights"] == weight_bytes(engine.model)

    running(spec_of(None, str(tmp_path)), body)
    with pytest.raises(LevelUnsupported, match="quantized beforehand to compressed-tensors"):
        Transformers(spec_of("fp16", str(tmp_path))).prepare()


def save_compressed(source: Path, folder: Path) -> None:
    """A model with the weights of its linear layers in 8 bits, one scale for each row, packed."""
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        QuantizationStatus,
        apply_quantization_config,
    )
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(num_bits=8, strategy="channel"))
    config = QuantizationConfig(
        config_groups={"all": scheme},
        ignore=["lm_head"],
        quantization_status=QuantizationStatus.FROZEN,
        format="pack-quantized",
    )
    apply_quantization_config(model, config)
    for module in model.modules():
        if hasattr(module, "weight_scale"):
            module.weight_scale.data.copy_(module.weight.abs().amax(1, keepdim=True) / 127)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    shutil.copy(source / "tokenizer.json", folder)


def test_a_level_that_would_change_nothing_is_refused(tmp_path: Path) -> None:
    """torchao silently leaves GPT-2's Conv1D layers as they are, which is no int8 model."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=1, n_embd=256, n_head=4, vocab_size=258)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    shutil.copy(resolve(ModelReference("tiny")).path / "tokenizer.json", tmp_path)
    with pytest.raises(LevelUnsupported, match="has no effect on GPT2LMHeadModel"):
        reply_of(spec_of("int8-torchao", str(tmp_path)), Request(TEXT, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("level", ["fp16", "bf16", "int8", "int8-torchao", "int4-torchao", "nf4", "fp8"])
@pytest.mark.parametrize("batching", ["none", "continuous"])
def test_on_a_gpu(level: str, batching: str) -> None:
    """Every level runs on the first GPU; one that GPU or libraries lack is a skip."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch can use")

    async def body(engine: Transformers, info: EngineInfo) -> None:
        assert (info.level, info.device) == (level, "cuda:0")
        assert info.memory["device_peak"] >= info.memory["weights"]
        assert len(text_of(await collect(engine.generate(Request(TEXT, 12, exact=True))))) == 12

    try:
        running(spec_of(level, batching=batching, n_ctx=512, device="cuda"), body)
    except LevelUnsupported as error:
        pytest.skip(str(error))
    assert torch.cuda.memory_allocated() < 20_000_000
