"""Common parts of the llama.cpp engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engines.base import EngineError, EngineSpec, LevelUnsupported, ModelError, ModelReference, device_environment
from engines.llamacpp import base
from engines.llamacpp.base import RUNTIME_BYTES, GgufEngine, logged_device, logged_memory, prepared_model
from engines.llamacpp.options import LlamaCppOptions, LlamaServerOptions
from tests.engines.lora_file import write_adapter

LOG = """
load_tensors:   CPU_Mapped model buffer size =    12.25 MiB
load_tensors:        CUDA1 model buffer size =   100.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =     4.00 MiB
llama_context:  CUDA_Host  output buffer size =     0.50 MiB
sched_reserve:       CUDA1 compute buffer size =     8.50 MiB
"""
ON_CPU = "load_tensors:   CPU_Mapped model buffer size =    12.26 MiB"
MIB = 1 << 20


def _spec(level: str = "q8_0", lora: str | None = None, devices: tuple[str, ...] = ()) -> EngineSpec:
    return EngineSpec("llama-cpp", ModelReference("tiny", lora=lora), level, devices=devices)


def _engine(spec: EngineSpec | None = None, **options: object) -> GgufEngine[LlamaCppOptions]:
    return GgufEngine(replace(spec or _spec(), options=options), LlamaCppOptions)


def test_buffers_are_added_by_purpose() -> None:
    """Weights, cache and the rest, from all devices together."""
    assert logged_memory(LOG) == {
        "weights": round(112.25 * MIB),
        "kv_cache": 4 * MIB,
        "runtime": 9 * MIB,
    }
    assert logged_memory("nothing of the kind") == {}


def test_copies_of_mapped_weights_are_separate() -> None:
    """The mapped file holds all weights; without a mapping each weight is in one place."""
    loaded = "  CPU{} model buffer size =  1.75 MiB\n  CPU_REPACK model buffer size =  1.50 MiB\n"
    assert logged_memory(loaded.format("_Mapped")) == {"weights": 1.75 * MIB, "weight_copies": 1.5 * MIB}
    assert logged_memory(loaded.format("")) == {"weights": 3.25 * MIB}


def test_the_device_is_where_the_weights_are() -> None:
    """An accelerator that has some of them counts, for the rest stays on the host in any case."""
    assert logged_device(LOG) == "cuda:1"
    assert logged_device(ON_CPU) == "cpu"
    assert logged_device("") is None


def test_the_cache_of_tiny_is_computed_from_its_shape() -> None:
    """4 layers, 2 heads of 64, keys and values: 1,024 values a token, each type with its own size."""
    assert _engine()._info(1024, "").kv_bytes_per_token == 2 * 1024
    mixed = _engine(cache_type_k="q8_0", cache_type_v="f32")
    assert mixed._info(1024, "").kv_bytes_per_token == 512 * (34 / 32 + 4)


def test_the_estimate_has_weights_cache_and_runtime() -> None:
    """All slots have a cache of their own."""
    spec = replace(_spec(), options={"n_ctx": 512, "n_parallel": 3})
    estimate = GgufEngine(spec, LlamaServerOptions).memory_needed()
    assert estimate is not None
    assert estimate.device == "cpu"
    assert estimate.parts == {
        "weights": prepared_model(_spec()).path.stat().st_size,
        "kv_cache": 3 * 512 * 2048,
        "runtime": RUNTIME_BYTES["llama-cpp"],
    }


def test_the_estimate_follows_the_device_and_knows_nothing_of_a_split() -> None:
    """Everything on the GPU, everything on the host, or no estimate."""
    on_gpu = _engine(_spec(devices=("0",))).memory_needed()
    assert on_gpu is not None
    assert on_gpu.device == "cuda"
    assert _engine(n_gpu_layers=3).memory_needed() is None


def test_nothing_is_estimated_where_llama_cpp_may_choose_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cell must not be skipped for want of host memory that its weights would not take."""
    monkeypatch.setattr(base, "NVIDIA_DRIVER", tmp_path)
    assert _engine().memory_needed() is None
    assert _engine(_spec(devices=("cpu",))).memory_needed() is not None


def test_facts_are_those_of_the_file() -> None:
    """The level as loaded and the number of weights come from the GGUF file."""
    facts = _engine(_spec("q4_0"))._info(1024, "")
    assert (facts.model, facts.level, facts.parameters) == ("tiny", "q4_0", 3_214_080)


def test_only_the_named_devices_are_shown_to_a_process() -> None:
    """Without named devices the engine chooses."""
    assert device_environment(()) == {}
    assert device_environment(("cpu",)) == {"CUDA_VISIBLE_DEVICES": ""}
    assert device_environment(("0", "2")) == {"CUDA_VISIBLE_DEVICES": "0,2"}


def test_a_gpu_that_the_build_lacks_is_refused() -> None:
    """llama.cpp computes on the CPU then and says nothing; layers that were meant to stay there are fine."""
    with pytest.raises(LevelUnsupported, match="put no layer on GPU 0, 1: this build"):
        _engine(_spec(devices=("0", "1")))._info(1024, ON_CPU)
    assert _engine(_spec(devices=("0",)))._info(1024, LOG).device == "cuda:1"
    assert _engine(_spec(devices=("0",)), n_gpu_layers=0)._info(1024, ON_CPU).device == "cpu"
    assert _engine(_spec(devices=("cpu",)))._info(1024, ON_CPU).device == "cpu"
    assert _engine()._info(1024, ON_CPU).device == "cpu"


def test_an_adapter_is_a_gguf_file(tmp_path: Path) -> None:
    """Anything else is refused with the converter to use."""
    adapter = write_adapter(tmp_path / "adapter.gguf")
    assert prepared_model(_spec(lora=str(adapter))).lora == adapter
    with pytest.raises(ModelError, match=r"there is no file 'absent\.gguf' for the adapter"):
        prepared_model(_spec(lora="absent.gguf"))
    with pytest.raises(ModelError, match=r"convert_lora_to_gguf\.py"):
        prepared_model(_spec(lora=str(tmp_path)))


def test_model_and_level_are_checked_first() -> None:
    """A missing model or a level of another engine is refused."""
    with pytest.raises(EngineError, match="needs a model"):
        _engine(EngineSpec("llama-cpp"))
    with pytest.raises(LevelUnsupported, match="no level 'fp8'"):
        _engine(_spec("fp8"))


@pytest.mark.parametrize(("level", "imatrix"), [("q4_k_m", False), ("q2_k", False), ("q8_0", None), ("f16", None)])
def test_levels_that_are_made_here_have_no_imatrix(level: str, imatrix: bool | None) -> None:
    """Levels of 8 bits and more use none; for other files it is unknown."""
    assert _engine(_spec(level))._info(1024, "").imatrix is imatrix
    path = prepared_model(_spec(level)).path
    assert _engine(EngineSpec("llama-cpp", ModelReference(str(path))))._info(1024, "").imatrix is None
