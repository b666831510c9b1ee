"""The options of the llama.cpp engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.base import EngineError, EngineSpec, ModelReference
from engines.llamacpp.base import GgufModel, on_devices
from engines.llamacpp.options import (
    LlamaCppOptions,
    LlamaCppServerOptions,
    LlamaOptions,
    LlamaServerOptions,
    parse_options,
)
from engines.llamacpp.python_server import LlamaCppServer, arguments
from engines.llamacpp.server_process import server_parameters
from engines.models.types import ModelSource

MODEL = GgufModel(ModelSource("tiny", "gguf", Path("model.gguf")), Path("model.gguf"), Path("adapter.gguf"))


def _server(**given: Any) -> LlamaServerOptions:
    return parse_options(LlamaServerOptions, given, "llama-server")


def _parameters(**given: Any) -> dict[str, Any]:
    return server_parameters(_server(**given), Path("model.gguf"), "tiny", 1024)


def test_no_options_are_the_defaults() -> None:
    """Defaults are as documented, with four slots."""
    assert _server() == LlamaServerOptions()
    assert _server().n_parallel == 4


def test_unknown_option_names_the_one_that_was_meant() -> None:
    """A slip is answered with the nearest option."""
    with pytest.raises(EngineError, match="no option 'n_paralel'; did you mean 'n_parallel'"):
        _server(n_paralel=2)
    with pytest.raises(EngineError, match="no option 'zzz'; known are n_ctx"):
        _server(zzz=2)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("n_ctx", 0, "a whole number above 0"),
        ("n_parallel", True, "a whole number above 0"),
        ("n_parallel", None, "a whole number above 0"),
        ("n_gpu_layers", -1, 'a whole number from 0 up, or "all"'),
        ("flash_attn", "on", 'true, false or "auto"'),
        ("cache_type_k", "q3_k", "one of f32, f16"),
        ("mmap", 1, "true or false"),
        ("cont_batching", "yes", "true or false"),
        ("grammar", "a word", "the text of a GBNF grammar"),
        ("port", 70000, "a port from 1 to 65535"),
        ("cache_ram_mib", -1, "a whole number of MiB from 0 up"),
        ("ready_timeout_s", 0, "a number of seconds above 0"),
        ("ready_timeout_s", "10", "a number of seconds above 0"),
    ],
)
def test_invalid_values_are_refused(name: str, value: object, words: str) -> None:
    """A value that an option cannot have is named together with what it must be."""
    with pytest.raises(EngineError) as caught:
        _server(**{name: value})
    assert f"option {name} of llama-server is {value!r}; it must be {words}" in str(caught.value)


def test_context_is_per_slot() -> None:
    """The server gets the context of all slots together, since it divides it."""
    assert _parameters(n_parallel=3)["n_ctx"] == 3 * 1024


def test_switches_reach_the_server() -> None:
    """Choices become the members of xllamacpp's enumerations."""
    found = _parameters(flash_attn=False, cache_type_k="q8_0", mmap=False, mlock=True, n_gpu_layers="all", port=9999)
    assert found["flash_attn_type"]["member"] == "LLAMA_FLASH_ATTN_TYPE_DISABLED"
    assert found["cache_type_k"]["member"] == "GGML_TYPE_Q8_0"
    assert found["load_mode"]["member"] == "LLAMA_LOAD_MODE_MLOCK"
    assert (found["n_gpu_layers"], found["port"]) == (-2, 9999)


def test_prefix_cache_off_leaves_no_cache_behind() -> None:
    """Off means neither reuse within a slot nor the copy of old prompts in memory."""
    found = _parameters(prefix_cache=False)
    assert (found["cache_prompt"], found["cache_ram_mib"]) == (False, 0)
    assert "cache_ram_mib" not in _parameters()


def test_prompts_kept_in_memory_can_be_bounded() -> None:
    """The default is 8 GiB; without a prefix cache it is 0 under any limit."""
    assert _parameters(cache_ram_mib=32)["cache_ram_mib"] == 32
    assert _parameters(cache_ram_mib=32, prefix_cache=False)["cache_ram_mib"] == 0


def test_options_in_force_have_no_gaps_where_we_choose() -> None:
    """Reported options include our own defaults."""
    found = LlamaServerOptions().in_force(1024)
    assert found["n_ctx"] == 1024
    assert found["n_threads"] >= 1
    assert found["port"] is None


def test_grammar_and_adapter_reach_the_server() -> None:
    """Grammar and adapter are made in the server's process, from its parameters."""
    options = _server(grammar="root ::= [a-z]+", cont_batching=False)
    found = server_parameters(options, Path("model.gguf"), "tiny", 1024, lora=Path("adapter.gguf"))
    assert found["sampling.grammar"]["arguments"][1] == "root ::= [a-z]+"
    assert found["lora_adapters"]["list"][0]["arguments"] == ["adapter.gguf", 1.0]
    assert found["cont_batching"] is False


@pytest.mark.parametrize("kind", [LlamaCppOptions, LlamaServerOptions, LlamaCppServerOptions])
def test_a_quantized_value_cache_needs_flash_attention(kind: type[LlamaOptions]) -> None:
    """llama.cpp has it with flash attention alone, and says so too late."""
    with pytest.raises(EngineError, match="set flash_attn: true"):
        parse_options(kind, {"cache_type_v": "q8_0", "flash_attn": False}, "llama-cpp")
    assert parse_options(kind, {"cache_type_v": "q8_0", "flash_attn": True}, "llama-cpp").cache_type_v == "q8_0"


def test_on_the_cpu_no_layer_goes_to_a_gpu() -> None:
    """The device decides where the options are silent, and contradicts them where they are not."""
    assert on_devices(LlamaCppOptions(), ("cpu",)).n_gpu_layers == 0
    assert on_devices(LlamaCppOptions(n_gpu_layers="all"), ("0",)).n_gpu_layers == "all"
    with pytest.raises(EngineError, match="n_gpu_layers is all, but the device is the cpu"):
        on_devices(LlamaCppOptions(n_gpu_layers="all"), ("cpu",))


def test_the_command_line_of_the_python_server() -> None:
    """The server has its own names; requests do not interrupt each other, and no logits are kept."""
    options = LlamaCppServerOptions(n_threads=3, cache_type_k="q8_0", mmap=False, flash_attn=True, state_cache_bytes=5)
    found = arguments(options, MODEL, 512)
    told = dict(zip(found[::2], found[1::2], strict=True))
    wanted = {
        "--port": "{port}",
        "--n_ctx": "512",
        "--n_threads": "3",
        "--type_k": "8",
        "--use_mmap": "False",
        "--flash_attn": "True",
        "--cache": "True",
        "--cache_size": "5",
        "--interrupt_requests": "False",
        "--logits_all": "False",
        "--lora_path": "adapter.gguf",
    }
    assert wanted.items() <= told.items()


def test_the_python_server_chooses_no_attention() -> None:
    """`auto` is nothing that it knows."""
    spec = EngineSpec("llama-cpp-server", ModelReference("tiny"), "q8_0", {"flash_attn": "auto"})
    with pytest.raises(EngineError, match="flash_attn of llama-cpp-server is 'auto'; it must be true or false"):
        LlamaCppServer(spec)


@pytest.mark.parametrize(("layers", "written"), [(None, "-1"), ("all", "-1"), (0, "0"), (7, "7")])
def test_layers_left_to_llama_cpp_go_where_it_puts_them(layers: int | str | None, written: str) -> None:
    """llama-cpp-python's server would keep them on the processor; llama.cpp itself takes a GPU that it finds."""
    options = parse_options(LlamaCppServerOptions, {"n_gpu_layers": layers}, "llama-cpp-server")
    words = arguments(options, MODEL, 128)
    assert words[words.index("--n_gpu_layers") + 1] == written
