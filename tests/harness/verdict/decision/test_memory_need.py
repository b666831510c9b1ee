"""What a row is compared by is what it needs: neither a reservation, nor less than it takes to load."""

from __future__ import annotations

from typing import Any

import pytest

from harness.store.manifest import CellEntry, EngineEntry
from harness.verdict.decision.memory_need import RESERVED, UNRESERVED, WHILE_LOADING, needed, reserves
from harness.verdict.decision.rows import Row, Value, unknown
from tests.choices import MIB, Choice, results_of
from tests.harness.verdict.decision.test_table import row_of, table_of

GIB = 2.0**30


def row(engine: str = "llama-server", loading: float | None = None, kv_used: float | None = None, **info: Any) -> Row:
    """A row that held 10 GiB while it served."""
    values = {"memory_peak_bytes": Value(10 * GIB, unit="bytes", source="engine, by PSS")}
    values["gpu_memory_peak_bytes"] = unknown("no GPU")
    values["load_peak_bytes"] = unknown("not read") if loading is None else Value(loading, unit="bytes", source="x")
    return Row(("m", engine, "f16", ""), [CellEntry(engine_info=EngineEntry(**info))], values=values, kv_used=kv_used)


@pytest.mark.parametrize(
    ("loading", "bytes_needed", "source"),
    [(None, 10 * GIB, "engine, by PSS"), (10.1 * GIB, 10 * GIB, "engine, by PSS"), (14 * GIB, 14 * GIB, WHILE_LOADING)],
)
def test_what_it_takes_to_load_is_needed(loading: float | None, bytes_needed: float, source: str) -> None:
    """Where it is more than serving takes, by more than two readings differ by chance."""
    found = needed(row(loading=loading))
    assert (found.value, found.source) == (bytes_needed, source)


@pytest.mark.parametrize(
    ("set_aside", "used", "bytes_needed"),
    [
        (4 * GIB, 0.5 * GIB, 6.5 * GIB),  # weights and runtime 6, and what requests had in use
        (4 * GIB, 9 * GIB, 10 * GIB),  # more tokens in flight than fit waited: all of it was in use
        (4 * GIB, None, None),
        (None, 0.5 * GIB, None),
        (11 * GIB, 0.5 * GIB, None),  # set aside, and not touched: what is in use does not tell
    ],
)
def test_a_reservation_is_no_need(set_aside: float | None, used: float | None, bytes_needed: float | None) -> None:
    """Without what it set aside and did not use; unknown where one of the parts is."""
    memory = {} if set_aside is None else {"kv_cache": set_aside}
    found = needed(row("vllm", kv_used=used, memory=memory))
    assert found.as_dict()["value"] == bytes_needed
    assert found.source == (UNRESERVED if bytes_needed else "")
    assert found.reason.startswith(RESERVED) is (bytes_needed is None)


def test_servers_of_others_that_reserve_are_known_by_their_page() -> None:
    """A command that starts vLLM is no engine by that name."""
    mine = row("http")
    assert not reserves(mine)
    mine.pages = {"vllm"}
    assert reserves(mine)
    assert not reserves(row("llama-server", memory={"kv_cache": GIB}))


def vllm(level: str, held: float, **info: Any) -> Choice:
    """A level on vLLM, as fast as any."""
    return Choice(level, memory=held, engine="vllm", info={"device": "cpu", **info})


SMALL = Choice("f16", memory=200 * MIB, engine="transformers", info={"device": "cpu"})


def test_a_reservation_decides_nothing() -> None:
    """Two levels hold the same by a setting: none is dominated or recommended by it, and the table says why."""
    table = table_of(vllm("fp16", 900 * MIB), vllm("awq", 900 * MIB), SMALL)
    for level in ("fp16", "awq"):
        found = row_of(table, level)
        assert found["values"]["memory_peak_bytes"]["value"] == 900 * MIB
        assert found["values"]["memory_peak_bytes"]["reason"] == "reserved, not needed"
        assert found["values"]["memory_needed_bytes"]["value"] is None
        assert found["beaten_by"] == []
    assert table["recommendation"]["smallest"] == []
    assert any("reserved by a setting" in note and "vllm · fp16, vllm · awq" in note for note in table["notes"])


def test_where_it_is_known_what_was_used_of_it_that_is_compared() -> None:
    """Both hold 900 MiB, of which 600 and 800 are a cache of which little is used: the second needs less."""
    cache = {"kv_bytes_per_token": 1000.0}
    one = vllm("fp16", 900 * MIB, memory={"kv_cache": 600 * MIB}, **cache)
    other = vllm("awq", 900 * MIB, memory={"kv_cache": 800 * MIB}, **cache)
    table = table_of(one, other, limits=["ttft_ms p50 <= 1000"])
    large, small = (row_of(table, level)["values"]["memory_needed_bytes"]["value"] for level in ("fp16", "awq"))
    assert large - small == 200 * MIB
    assert 100 * MIB < small < 110 * MIB
    assert table["recommendation"]["smallest"] == ["awq"]
    assert any(UNRESERVED in note for note in table["notes"])


def test_a_level_that_takes_more_to_load_is_not_recommended_as_the_smallest() -> None:
    """It serves in 100 MiB and does not start in less than 400."""
    heavy = Choice("nf4", memory=100 * MIB, loading=400 * MIB)
    table = table_of(heavy, Choice("q8_0", memory=200 * MIB), limits=["ttft_ms p50 <= 1000"])
    values = row_of(table, "nf4")["values"]
    assert values["load_peak_bytes"]["value"] == 400 * MIB
    assert values["memory_peak_bytes"]["reason"] == "more while it loads: 400 MiB"
    assert table["recommendation"]["smallest"] == ["q8_0"]
    assert any("while they load" in note and "nf4" in note for note in table["notes"])
    alone = table_of(heavy, Choice("q8_0", memory=500 * MIB), limits=["ttft_ms p50 <= 1000"])
    assert alone["recommendation"]["smallest"] == ["nf4"]
    assert row_of(alone, "nf4")["values"]["memory_needed_bytes"]["source"] == WHILE_LOADING


def test_memory_is_known_though_the_load_was_not_the_planned_one() -> None:
    """What a row holds, and what its start took, do not depend on when requests were sent."""
    spoiled = Choice("nf4", memory=100 * MIB, loading=400 * MIB, invalid=("single_user",))
    values = row_of(table_of(spoiled, Choice("q8_0")), "nf4")["values"]
    found = [values[name]["value"] for name in ("load_peak_bytes", "memory_peak_bytes", "memory_needed_bytes")]
    assert found == [400 * MIB, 100 * MIB, 400 * MIB]


def test_a_level_twice_as_fast_is_not_saved_by_a_thousandth_of_memory() -> None:
    """Faster, nearer to the reference, and 0.1 % larger: it dominates."""
    fast = Choice("q8_0", 0.5, memory=100.1 * MIB, kl=(0.0005, 0.0004, 0.0006))
    slow = Choice("q4_0", 1.0, memory=100 * MIB, kl=(0.01, 0.009, 0.011))
    table = results_of((fast, slow)).decisions[0]
    assert row_of(table, "q4_0")["beaten_by"] == ["q8_0"]
    alike = (Choice("a", 0.5, kl=(1.0e-4, 0.9e-4, 1.1e-4)), Choice("b", 1.0, kl=(0.99e-4, 0.9e-4, 1.1e-4)))
    assert row_of(results_of(alike).decisions[0], "b")["beaten_by"] == ["a"]
