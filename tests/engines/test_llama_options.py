"""The options of the llama-server engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines.base import EngineError
from engines.llama_options import Options, parse_options, server_parameters


def _parameters(**given: Any) -> dict[str, Any]:
    return server_parameters(parse_options(given), Path("model.gguf"), "tiny", 1024)


def test_no_options_are_the_defaults() -> None:
    """Nothing given is the documented defaults, four slots among them."""
    assert parse_options({}) == Options()
    assert Options().n_parallel == 4


def test_unknown_option_names_the_one_that_was_meant() -> None:
    """A slip is answered with the nearest option."""
    with pytest.raises(EngineError, match="no option 'n_paralel'; did you mean 'n_parallel'"):
        parse_options({"n_paralel": 2})
    with pytest.raises(EngineError, match="no option 'zzz'; known are n_ctx"):
        parse_options({"zzz": 2})


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
        ("port", 70000, "a port from 1 to 65535"),
        ("ready_timeout_s", 0, "a number of seconds above 0"),
        ("ready_timeout_s", "10", "a number of seconds above 0"),
    ],
)
def test_impossible_values_are_told(name: str, value: object, words: str) -> None:
    """A value that an option cannot have is named together with what it must be."""
    with pytest.raises(EngineError) as caught:
        parse_options({name: value})
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


def test_options_in_force_have_no_gaps_where_we_choose() -> None:
    """What is reported has our own defaults filled in."""
    found = Options().in_force(1024)
    assert found["n_ctx"] == 1024
    assert found["n_threads"] >= 1
    assert found["port"] is None
