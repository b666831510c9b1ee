"""Pages of servers and exporters say the same under the same names, and what they do not say is absent."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_server import page

from harness.telemetry.prometheus.names import COUNTERS, GAUGES, HOST, SERVER, Page, cpu_share, read_page

MIB = 1 << 20


def of(found: Page, source: str = SERVER) -> dict[str, float]:
    """The values of one source."""
    return {one.name: one.value for one in found.found if one.source == source}


def test_vllm_is_read() -> None:
    """A page that vLLM's server wrote after six requests of 258 prompt and 200 output tokens each."""
    found = read_page(page("vllm"))
    assert found.kind == "vllm"
    values = of(found)
    assert values["generation_tokens"] == 1200
    assert values["prompt_tokens"] == 1548
    assert (values["prefix_hits_tokens"], values["prefix_queries_tokens"]) == (1280, 1548)
    assert values["cached_prompt_tokens"] == 1280
    assert values["finished_requests"] == values["queue_time_count"] == 6
    assert values["queue_time_s"] == pytest.approx(0.000224207)
    assert values["running_requests"] == values["waiting_requests"] == values["preemptions"] == 0
    assert set(values) == {*GAUGES, *COUNTERS}


def test_llamacpp_is_read() -> None:
    """A page that the embedded server wrote with two requests at work and four waiting; prompt tokens that it took
    from its cache are prompt tokens too, and it says nothing of its KV cache.
    """
    found = read_page(page("llamacpp"))
    assert found.kind == "llamacpp"
    values = of(found)
    assert (values["running_requests"], values["waiting_requests"]) == (2, 4)
    assert (values["prompt_tokens"], values["cached_prompt_tokens"]) == (516, 0)
    assert "kv_cache_share" not in values
    assert "preemptions" not in values
    more = page("llamacpp").replace("prompt_tokens_cached_total 0", "prompt_tokens_cached_total 1028")
    assert of(read_page(more))["prompt_tokens"] == 516 + 1028


def test_an_old_llamacpp_does_not_say_how_long_prompts_were() -> None:
    """Without cached tokens, computed prompt tokens are not those sent."""
    old = "\n".join(line for line in page("llamacpp").splitlines() if "cached" not in line)
    assert "prompt_tokens" not in of(read_page(old))


def test_tgi_is_read() -> None:
    """Histograms of lengths hold the tokens as their sums."""
    found = read_page(page("tgi"))
    assert found.kind == "tgi"
    assert of(found) == {
        "running_requests": 16,
        "waiting_requests": 7,
        "prompt_tokens": 5240,
        "generation_tokens": 10800,
        "finished_requests": 108,
        "queue_time_s": 6.2,
        "queue_time_count": 124,
    }


def test_sglang_is_read() -> None:
    """Duplicates of ranks count once, totals are not added to their parts, sources of a cache are added."""
    found = read_page(page("sglang"))
    assert found.kind == "sglang"
    values = of(found)
    assert (values["running_requests"], values["waiting_requests"], values["kv_cache_share"]) == (12, 3, 0.28)
    assert (values["prompt_tokens"], values["generation_tokens"], values["preemptions"]) == (8128, 7557, 2)
    assert (values["cached_prompt_tokens"], values["prefix_hits_tokens"]) == (1032, 1032)


def test_replicas_add_up_and_their_caches_are_averaged() -> None:
    """Several engines behind one page are one server."""
    text = "".join(
        f'vllm:num_requests_running{{engine="{n}"}} {n + 1}\nvllm:kv_cache_usage_perc{{engine="{n}"}} {0.2 * n}\n'
        for n in range(3)
    )
    assert of(read_page(text)) == {"running_requests": 6, "kv_cache_share": pytest.approx(0.2)}


def test_gpus_of_dcgm_are_distinguished() -> None:
    """Units are ours; the number that DCGM has for "not known" is no reading."""
    found = read_page(page("dcgm"))
    assert found.kind == "dcgm"
    first, second = of(found, "gpu0"), of(found, "gpu1")
    assert first["memory_used_bytes"] == 80000 * MIB
    assert first["memory_total_bytes"] == 81024 * MIB == second["memory_total_bytes"]
    assert (first["utilisation_share"], first["power_w"], first["energy_j"]) == (0.97, 312.5, 1500)
    assert (first["sm_clock_mhz"], second["sm_clock_mhz"]) == (1980, 139)
    assert "memory_clock_mhz" not in first
    assert "power_w" not in second


def test_the_host_of_a_node_exporter() -> None:
    """Memory in use, disks that are real, and processors between two readings."""
    found = read_page(page("node"))
    assert found.kind == "node"
    values = of(found, HOST)
    assert values["memory_used_bytes"] == 32 << 30
    assert values["memory_used_share"] == 0.25
    assert (values["swap_used_bytes"], values["swap_in_bytes"], values["disk_read_bytes"]) == (0, 40960, 1e9)
    later = of(read_page(page("node").replace("20.5", "22.5").replace("110.5", "112.5")), HOST)
    assert cpu_share(values, later) == pytest.approx(0.5)
    assert cpu_share({}, later) is None
    assert cpu_share(later, later) is None
    assert cpu_share(later, values) is None


def test_names_can_be_stated() -> None:
    """A server that nobody knows says what the scenario says it does; nothing else of its page is taken."""
    text = 'app_active{model="a"} 3\napp_active{model="b"} 4\nkv_share 0.5\nvllm:num_requests_running 9\n'
    assert read_page("app_active 3\n").kind == ""
    found = read_page(text, {"running_requests": "app_active", "kv_cache_share": "kv_share", "preemptions": "none"})
    assert found.kind == "stated"
    assert of(found) == {"running_requests": 7, "kv_cache_share": 0.5}


def test_what_is_no_number_is_no_reading() -> None:
    """NaN stands for nothing; a wanted line that is no sample spoils the page, any other does not."""
    assert read_page("vllm:num_requests_running NaN\n").kind == ""
    assert read_page("what is this\nvllm:num_requests_running 1\n").kind == "vllm"
    with pytest.raises(ValueError, match="could not convert"):
        read_page("vllm:num_requests_running some\n")
    assert read_page("").found == ()


@given(st.text(max_size=200) | st.text(alphabet='{}="\\, 1e#\n', max_size=60))
def test_any_text_is_a_page_or_an_error(text: str) -> None:
    """Every answer of a server is read or raises ValueError."""
    for before in ("", "vllm:num_requests_running", "vllm:num_requests_running ", "vllm:num_requests_running{"):
        with contextlib.suppress(ValueError):
            assert isinstance(read_page(before + text), Page)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6)), min_size=1, max_size=20, unique_by=lambda one: one)
)
def test_ranks_are_counted_once(told: list[tuple[int, int]]) -> None:
    """Whatever several ranks tell of a server, it is as much as the one that tells most."""
    lines = [
        f'sglang:num_running_reqs{{tp_rank="{rank}",pp_rank="{n}"}} {value}' for n, (rank, value) in enumerate(told)
    ]
    assert of(read_page("\n".join(lines)))["running_requests"] == max(value for _, value in told)
