"""Common parts of the llama.cpp engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.base import EngineError, EngineSpec, LevelUnsupported, ModelError, ModelReference, device_environment
from engines.llamacpp import base
from engines.llamacpp.base import (
    RUNTIME_BYTES,
    known_facts,
    kv_bytes_per_token,
    logged_device,
    logged_memory,
    memory_estimate,
    prepared_model,
    require_device,
    require_model,
)
from engines.llamacpp.options import LlamaCppOptions, LlamaServerOptions
from tests.engines.lora_file import write_adapter

LOG = """
load_tensors:   CPU_Mapped model buffer size =    12.25 MiB
load_tensors:        CUDA1 model buffer size =   100.00 MiB
llama_kv_cache:      CUDA1 KV buffer size =     4.00 MiB
llama_context:  CUDA_Host  output buffer size =     0.50 MiB
sched_reserve:       CUDA1 compute buffer size =     8.50 MiB
"""
MIB = 1 << 20


def _spec(level: str = "q8_0", lora: str | None = None, devices: tuple[str, ...] = ()) -> EngineSpec:
    return EngineSpec("llama-cpp", ModelReference("tiny", lora=lora), level, devices=devices)


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
    assert logged_device("load_tensors:   CPU_Mapped model buffer size =    12.26 MiB") == "cpu"
    assert logged_device("") is None


def test_the_cache_of_tiny_is_computed_from_its_shape() -> None:
    """4 layers, 2 heads of 64, keys and values: 1,024 values a token, each type with its own size."""
    model = prepared_model(_spec())
    assert kv_bytes_per_token(LlamaCppOptions(), model) == 2 * 1024
    mixed = LlamaCppOptions(cache_type_k="q8_0", cache_type_v="f32")
    assert kv_bytes_per_token(mixed, model) == 512 * (34 / 32 + 4)


def test_the_estimate_has_weights_cache_and_runtime() -> None:
    """All slots have a cache of their own."""
    model, options = prepared_model(_spec()), LlamaServerOptions(n_ctx=512, n_parallel=3)
    estimate = memory_estimate(_spec(), options, model)
    assert estimate is not None
    assert estimate.device == "cpu"
    assert estimate.parts == {
        "weights": model.path.stat().st_size,
        "kv_cache": 3 * 512 * 2048,
        "runtime": RUNTIME_BYTES["llama-cpp"],
    }


def test_the_estimate_follows_the_device_and_knows_nothing_of_a_split() -> None:
    """Everything on the GPU, everything on the host, or no estimate."""
    model = prepared_model(_spec())
    on_gpu = memory_estimate(_spec(devices=("0",)), LlamaCppOptions(), model)
    assert on_gpu is not None
    assert on_gpu.device == "cuda"
    assert memory_estimate(_spec(), LlamaCppOptions(n_gpu_layers=3), model) is None


def test_nothing_is_estimated_where_llama_cpp_may_choose_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cell must not be skipped for want of host memory that its weights would not take."""
    model = prepared_model(_spec())
    monkeypatch.setattr(base, "NVIDIA_DRIVER", tmp_path)
    assert memory_estimate(_spec(), LlamaCppOptions(), model) is None
    assert memory_estimate(_spec(devices=("cpu",)), LlamaCppOptions(), model) is not None


def test_facts_are_those_of_the_file() -> None:
    """The level as loaded and the number of weights come from the GGUF file."""
    facts = known_facts(LlamaCppOptions(), prepared_model(_spec("q4_0")))
    assert (facts["model"], facts["level"], facts["parameters"]) == ("tiny", "q4_0", 3_214_080)


def test_only_the_named_devices_are_shown_to_a_process() -> None:
    """Without named devices the engine chooses."""
    assert device_environment(()) == {}
    assert device_environment(("cpu",)) == {"CUDA_VISIBLE_DEVICES": ""}
    assert device_environment(("0", "2")) == {"CUDA_VISIBLE_DEVICES": "0,2"}


def test_a_gpu_that_the_build_lacks_is_refused() -> None:
    """llama.cpp computes on the CPU then and says nothing; layers that were meant to stay there are fine."""
    with pytest.raises(LevelUnsupported, match="put no layer on GPU 0, 1: this build"):
        require_device(_spec(devices=("0", "1")), LlamaCppOptions(), "cpu")
    require_device(_spec(devices=("0",)), LlamaCppOptions(), "cuda:0")
    require_device(_spec(devices=("0",)), LlamaCppOptions(n_gpu_layers=0), "cpu")
    require_device(_spec(devices=("cpu",)), LlamaCppOptions(), "cpu")
    require_device(_spec(), LlamaCppOptions(), "cpu")


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
        require_model(EngineSpec("llama-cpp"))
    with pytest.raises(LevelUnsupported, match="no level 'fp8'"):
        require_model(_spec("fp8"))


@pytest.mark.parametrize(("level", "imatrix"), [("q4_k_m", False), ("q2_k", False), ("q8_0", None), ("f16", None)])
def test_levels_that_are_made_here_have_no_imatrix(level: str, imatrix: bool | None) -> None:
    """Levels of 8 bits and more use none; for other files it is unknown."""
    model = prepared_model(_spec(level))
    assert known_facts(LlamaCppOptions(), model)["imatrix"] is imatrix
    given = prepared_model(EngineSpec("llama-cpp", ModelReference(str(model.path))))
    assert known_facts(LlamaCppOptions(), given)["imatrix"] is None
