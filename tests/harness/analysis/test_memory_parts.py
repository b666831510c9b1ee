"""Memory is divided by what is known, each part with its source, and the rest is only told where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from harness.analysis.reading import read
from harness.analysis.samples.memory import memory_facts, most_tokens_in_flight
from harness.records import Sample
from tests.fabricated import FabricatedTrial, S, cell_entry, streamed, trial_entry

T0 = 1_000 * S


def divided(info: dict[str, Any], *readings: tuple[str, str, float]) -> dict[str, Any]:
    """The memory of a trial of two requests that overlap: 60 tokens at most in flight."""
    records = [streamed(0, 0.0, tokens=10), streamed(1, 50.0, tokens=10), streamed(2, 5000.0, tokens=10)]
    samples = [Sample(T0 + S // 10, *reading) for reading in readings]
    made = FabricatedTrial(cell_entry(engine_info=info), trial_entry(), records, samples)
    return memory_facts(made.cell, read(made), made.samples())


def sizes(found: dict[str, Any]) -> dict[str, int]:
    """Part to bytes."""
    return {part["part"]: part["bytes"] for part in found["breakdown"]}


def test_what_the_engine_tells_comes_first() -> None:
    """Over the size of the files and over what tokens would take; the rest is what is left of resident memory."""
    info = {"memory": {"weights": 600, "kv_cache": 100, "runtime": 50, "device_peak": 9}, "weight_bytes": 500,
            "kv_bytes_per_token": 4.0, "device": "cpu"}  # fmt: skip
    found = divided(info, ("engine", "rss_bytes", 1000.0))
    assert sizes(found) == {"weights": 600, "kv_cache": 100, "runtime": 50, "other": 250}
    assert {part["source"] for part in found["breakdown"][:3]} == {"the engine reports it"}
    assert (found["total_bytes"], found["total_source"]) == (1000.0, "largest reading of the resident memory")


def test_where_it_is_silent_files_and_tokens_say() -> None:
    """The most tokens in flight, each with its bytes of cache, and how that was reckoned."""
    found = divided({"weight_bytes": 500, "kv_bytes_per_token": 4.0}, ("engine", "rss_bytes", 1000.0))
    assert found["tokens"] == 60.0
    assert sizes(found) == {"weights": 500, "kv_cache": 240, "runtime and other": 260}
    assert found["breakdown"][1]["source"] == "4 bytes a token, and at most 60 tokens in flight"


def test_weights_that_are_mapped_leave_no_rest() -> None:
    """A part larger than the whole is not a negative rest but a reason."""
    found = divided({"weight_bytes": 5000}, ("engine", "rss_bytes", 1000.0))
    assert sizes(found) == {"weights": 5000}
    assert found["reason"].startswith("the parts are larger than what was seen in use")


def test_on_a_gpu_its_memory_is_the_whole() -> None:
    """The engine's own, where the driver tells it; everything in use otherwise, and that is said."""
    info = {"weight_bytes": 500, "device": "cuda:0"}
    used = ("gpu0", "memory_used_bytes", 2000.0)
    found = divided(info, ("engine", "rss_bytes", 9000.0), used)
    assert sizes(found) == {"weights": 500, "runtime and other": 1500}
    assert found["total_source"] == "largest reading of the GPUs' memory, other processes included"
    found = divided(info, used, ("gpu0", "engine_memory_bytes", 900.0), ("gpu1", "engine_memory_bytes", 100.0))
    assert sizes(found)["runtime and other"] == 500


def test_what_is_not_known_is_not_there() -> None:
    """No engine's word, no readings: nothing, and why."""
    found = divided({})
    assert (found["breakdown"], found["total_bytes"], found["total_source"]) == ([], None, None)
    assert found["reason"] == "no memory of the engine was read during the trial"


@pytest.mark.parametrize(("second_ms", "most"), [(50.0, 60.0), (190.0, 30.0), (300.0, 30.0)])
def test_tokens_in_flight_are_those_of_requests_that_overlap(second_ms: float, most: float) -> None:
    """One that ends when the next is sent has made room for it; the last token comes 190 ms after the first was due."""
    made = FabricatedTrial(cell_entry(), trial_entry(), [streamed(0, 0.0), streamed(1, second_ms)])
    assert most_tokens_in_flight(read(made).columns) == most


def test_without_counts_of_tokens_nothing_is_known() -> None:
    """Not zero tokens."""
    made = FabricatedTrial(cell_entry(), trial_entry(), [streamed(0, 0.0, prompt_tokens=None)])
    assert most_tokens_in_flight(read(made).columns) is None
