"""What a level asks of vLLM, its options, and how its log, its pages and its scores are read; without vLLM."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import engines
from engines.base import EngineError, EngineSpec, LevelUnsupported, ModelError, ModelReference
from engines.models.checkpoint import Checkpoint
from engines.models.types import ModelSource
from engines.vllm.log import is_refusal, root_cause
from engines.vllm.model import VllmModel
from engines.vllm.options import VllmOptions
from engines.vllm.scores import check_length, columns, page_rows, scores_of, whole_vocabulary
from engines.vllm.server import cache_facts, command_line

TINY = Path(engines.__file__).parent / "models" / "tiny"


def model(level: str | None = None, name: str = "tiny", **options: Any) -> VllmModel:
    """A model as vLLM would be told to load it."""
    return VllmModel.of(EngineSpec("vllm", ModelReference(name), level), VllmOptions(**options))


def changed_tiny(folder: Path, **keys: Any) -> str:
    """A copy of `tiny` with other keys in its config.json."""
    config = json.loads((TINY / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))
    (folder / "model.safetensors").write_bytes((TINY / "model.safetensors").read_bytes())
    return str(folder)


@pytest.mark.parametrize(
    ("level", "dtype", "quantization", "loaded"),
    [
        (None, "float16", None, "fp16"),
        ("fp32", "float32", None, "fp32"),
        ("bf16", "bfloat16", None, "bf16"),
        ("fp8", "auto", "fp8", "fp8"),
        ("bitsandbytes", "auto", "bitsandbytes", "bitsandbytes"),
    ],
)
def test_a_level_becomes_a_type_or_a_method(
    level: str | None, dtype: str, quantization: str | None, loaded: str
) -> None:
    """Plain levels set the type, fp8 and bitsandbytes the method; none means as stored, which `auto` would narrow."""
    plan = model(level).plan
    assert (plan.dtype, plan.quantization, plan.level) == (dtype, quantization, loaded)
    assert model(level).arguments().get("quantization") == quantization


def test_a_few_weights_of_another_type_do_not_decide(tmp_path: Path) -> None:
    """Experts are often chosen by a bias in F32; the rest would take twice the memory."""
    folder = changed_tiny(tmp_path)
    header = b'{"gate.bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "model-gate.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert model(None, folder).plan.level == "fp16"
    assert Checkpoint(ModelSource("m", "folder", tmp_path)).natural_level() == "f16"


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors"])
def test_methods_of_checkpoints_are_read_from_them(method: str, tmp_path: Path) -> None:
    """A quantized folder loads at its own level; at another, and a plain folder at such a level, it is a skip."""
    folder = changed_tiny(tmp_path, quantization_config={"quant_method": method, "bits": 4})
    assert model(None, folder).plan.level == model(method, folder).plan.level == method
    with pytest.raises(LevelUnsupported, match=f"quantized already, with {method}: name the level {method}"):
        model("fp16", folder)
    with pytest.raises(LevelUnsupported, match="tiny is not: quantize it"):
        model(method)


def test_a_method_for_experts_alone_is_refused_where_there_are_none(tmp_path: Path) -> None:
    """vLLM would load such a model unquantized and call it quantized."""
    with pytest.raises(LevelUnsupported, match="quantizes only experts"):
        model(quantization="int8_per_channel_weight_only")
    folder = changed_tiny(tmp_path, num_local_experts=8)
    assert model(None, folder, quantization="experts_int8").plan.quantization == "experts_int8"


def test_contradictions_are_refused() -> None:
    """A level together with a method, or with another type, has no meaning."""
    with pytest.raises(EngineError, match="not both"):
        model("fp16", quantization="fp8")
    with pytest.raises(EngineError, match="level fp16 computes in float16: leave the option dtype: float32 out"):
        model("fp16", dtype="float32")


def test_a_gguf_file_is_refused(tmp_path: Path) -> None:
    """vLLM takes folders."""
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"not some\.gguf"):
        model(name=str(tmp_path / "some.gguf"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": "half"}, "dtype is one of auto, float32"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization is above 0 and at most 1"),
        ({"max_num_seqs": 0}, "max_num_seqs is 1 or more"),
        ({"extra": {"seed": 3}}, "seed is an option of its own"),
        ({"scheduling_policy": "fair"}, "fcfs or priority"),
        ({"port": 0}, "port is from 1"),
        ({"max_modle_len": 4}, "did you mean 'max_model_len'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    """The sentence names the option, before anything is started, for both engines."""
    for name in ("vllm", "vllm-server"):
        with pytest.raises(EngineError, match=sentence):
            engines.create(EngineSpec(name, ModelReference("tiny"), options=options))


def test_arguments_reach_vllm_under_its_names() -> None:
    """Ours that are no arguments of vLLM's stay here; `extra` goes through; the environment holds the cache's size."""
    found = model("fp32", kv_cache_space_gib=3, max_model_len=512, port=8000, extra={"block_size": 64})
    arguments = found.arguments()
    assert {"dtype": "float32", "max_model_len": 512, "block_size": 64, "max_logprobs": -1}.items() <= arguments.items()
    assert not {"kv_cache_space_gib", "extra", "port", "ready_timeout_s", "max_num_seqs"} & arguments.keys()
    assert found.environment()["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert found.environment()["VLLM_NO_USAGE_STATS"] == "1"


def test_a_cpus_cache_holds_one_context_at_least_and_four_gib_at_most_by_default() -> None:
    """vLLM's own default would take nearly all of the machine's memory."""
    assert model().cpu_cache_gib == 1
    assert model(max_num_seqs=10_000).cpu_cache_gib == 4
    assert model(max_num_seqs=1, max_model_len=3 << 20).cpu_cache_gib == 6
    assert "VLLM_CPU_KVCACHE_SPACE" not in model(gpu_memory_utilization=0.5).environment()


def test_the_memory_it_needs_follows_the_level_and_the_cache() -> None:
    """Twice the weights in f32; a token of f32 takes twice the cache of one of f16, of fp8 half."""
    narrow, wide = model("fp16"), model("fp32")
    assert wide.memory_needed().parts["weights"] == 2 * narrow.memory_needed().parts["weights"] > 6_000_000
    assert wide.kv_bytes_per_token == 4096
    assert narrow.kv_bytes_per_token == 2048
    assert model("fp16", kv_cache_dtype="fp8").kv_bytes_per_token == 1024


@pytest.mark.parametrize(
    ("level", "options", "bytes_per_weight"),
    [("fp8", {}, 1.0), ("bitsandbytes", {}, 0.5), (None, {"quantization": "torchao"}, 0.5)],
)
def test_what_is_quantized_while_loading_needs_less_than_its_files(
    level: str | None, options: dict[str, Any], bytes_per_weight: float
) -> None:
    """Else a model in 4 bits is skipped on a GPU that it fits."""
    found = model(level, **options)
    assert found.shape is not None
    assert found.shape.parameters is not None
    assert found.memory_needed().parts["weights"] == round(found.shape.parameters * bytes_per_weight)
    assert found.memory_needed().parts["weights"] < found.weight_bytes


@pytest.mark.parametrize(
    ("keys", "tokens"),
    [
        ({}, 1024),
        ({"sliding_window": 128}, 0),
        ({"attention_chunk_size": 128}, 0),
        ({"sliding_window": 128, "use_sliding_window": False}, 1024),
    ],
)
def test_the_cache_of_a_sliding_window_is_not_that_of_the_context(
    tmp_path: Path, keys: dict[str, Any], tokens: int
) -> None:
    """vLLM fills what is free: the need is a context, but not where most layers keep a part of it."""
    found = model("fp16", changed_tiny(tmp_path, **keys), gpu_memory_utilization=0.5)
    assert found.memory_needed().parts["kv_cache"] == tokens * 2048


def test_an_adapter_is_a_folder_in_pefts_layout(tmp_path: Path) -> None:
    """vLLM gets the rank in advance; anything else is refused."""
    spec = EngineSpec("vllm", ModelReference("tiny", lora=str(tmp_path)))
    with pytest.raises(ModelError, match=r"no adapter_config\.json"):
        VllmModel.of(spec, VllmOptions()).arguments()
    (tmp_path / "adapter_config.json").write_text('{"r": 9}')
    assert VllmModel.of(spec, VllmOptions()).arguments()["max_lora_rank"] == 16
    (tmp_path / "adapter_config.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelError, match=r"adapter_config\.json is not JSON"):
        VllmModel.of(spec, VllmOptions()).arguments()


def test_arguments_as_a_command_line() -> None:
    """Switches have two names, mappings are JSON."""
    line = command_line({"enforce_eager": True, "enable_prefix_caching": False, "max_model_len": 8, "a": {"b": 1}})
    assert line == ["--enforce-eager", "--no-enable-prefix-caching", "--max-model-len", "8", "--a", '{"b": 1}']


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (
            "RuntimeError: Engine core initialization failed. See above.\nValueError: too small. Do x.",
            "ValueError: too small",
        ),
        ("(Worker pid=3) ERROR 11-21 [x.py:9] torch.cuda.OutOfMemoryError: no memory", "OutOfMemoryError: no memory"),
        (
            "ValidationError: 1 validation error for ModelConfig Value error, Unknown quantization method: x. [type=",
            "ValidationError: Unknown quantization method: x",
        ),
        ("INFO all is well", None),
    ],
)
def test_the_cause_of_a_failure_is_found_in_the_log(log: str, cause: str | None) -> None:
    """The cause is the first sentence of an error that does not point to another."""
    assert root_cause(log) == cause


def test_refusals_are_distinguished_from_other_failures() -> None:
    """A refusal of the build skips a cell; another failure fails it."""
    assert is_refusal("ValueError: fp8 quantization is currently not supported in cpu")
    assert not is_refusal("OutOfMemoryError: CUDA out of memory")


def test_the_cache_is_read_from_the_metrics_page() -> None:
    """Labels state the blocks of the cache."""
    page = '# HELP x\nvllm:cache_config_info{block_size="128",engine="0",num_gpu_blocks="2048"} 1.0\n'
    assert cache_facts(page) == {"block_size": "128", "engine": "0", "num_gpu_blocks": "2048"}
    assert cache_facts("") == {}


@given(st.integers(2, 40), st.integers(1, 12), st.randoms(use_true_random=False))
def test_whole_rows_become_columns_by_token(vocabulary: int, rows: int, random: Any) -> None:
    """Columns do not depend on vLLM's order, with the true token first and again among the most likely."""
    truth = np.log(np.random.default_rng(random.randrange(1 << 30)).dirichlet(np.ones(vocabulary), rows))
    true = [random.randrange(vocabulary) for _ in range(rows)]
    page: list[Any] = [None]
    for row, token in zip(truth, true, strict=True):
        order = [token, *np.argsort(-row).tolist()]
        page.append({str(one): {"logprob": float(row[one])} for one in order})
    scores = whole_vocabulary(scores_of(page_rows(page, 1), true, 1, vocabulary), vocabulary)
    assert scores.tokens is None
    np.testing.assert_allclose(scores.logprobs, truth, rtol=1e-6)
    np.testing.assert_allclose(scores.true_logprobs, truth[np.arange(rows), true], rtol=1e-6)


def test_the_likeliest_fall_and_what_is_missing_is_unknown() -> None:
    """Rows may differ in length; what is missing is NaN."""
    page = [None, {"7": {"logprob": -5.0}, "1": {"logprob": -0.1}}, {"1": {"logprob": -0.2}}]
    scores = scores_of(page_rows(page, 1), [7, 1], 1, 2)
    assert scores.tokens is not None
    assert scores.tokens[0].tolist() == [1, 7]
    np.testing.assert_allclose(scores.logprobs, [[-0.1, -5.0], [-0.2, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(scores.true_logprobs, [-5.0, -0.2], rtol=1e-6)


def test_every_text_has_as_many_columns_with_the_true_token_beside_the_likeliest_or_among_them() -> None:
    """The two likeliest were asked for; a text whose true token is a third one has a longer row."""
    likeliest = {"3": {"logprob": -0.4}, "1": {"logprob": -1.2}}
    among = scores_of(page_rows([None, likeliest], 1), [1], 1, 2)
    beside = scores_of(page_rows([None, {"7": {"logprob": -5.0}, **likeliest}], 1), [7], 1, 2)
    for scores in (among, beside):
        assert scores.tokens is not None
        assert scores.tokens.tolist() == [[3, 1]]
        np.testing.assert_allclose(scores.logprobs, [[-0.4, -1.2]], rtol=1e-6)
    np.testing.assert_allclose(beside.true_logprobs, [-5.0], rtol=1e-6)


def test_an_invalid_sequence_is_refused() -> None:
    """The first token has nothing before it; the text and one more token must fit."""
    with pytest.raises(EngineError, match="start at a position from 1"):
        check_length(5, 0, 100)
    with pytest.raises(EngineError, match="raise max_model_len"):
        check_length(100, 1, 100)
    assert columns(512, 258) == 258
    assert columns(512, 50_257) == 16_384
