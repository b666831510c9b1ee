"""Runs beside which servers' pages are read, from the scenario to the facts and the metrics."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
import pytest
from command import harness, manifest, records, scenario
from page_server import page, serving_page

from engines.server_process import ServerCommand, ServerProcess
from harness.results import Results, derive
from harness.store import Run

pytestmark = pytest.mark.slow  # each test is a run
LOAD = [{"kind": "sustained", "users": 2, "requests": 12, "timeout": "10s"}]
EXACT = {"prompt_tokens": 16, "output_tokens": {"dist": "fixed", "value": 8, "exact": True}}


TINY = f"{sys.executable} {Path(__file__).parent / 'engines' / 'tiny_server.py'} {{port}} --models m"


@contextmanager
def server_elsewhere() -> Iterator[str]:
    """A server under an address that is no loopback address, though it leads here: it counts as another machine's."""
    server = ServerProcess(ServerCommand(TINY))
    asyncio.run(server.start())
    try:
        yield f"http://0.0.0.0:{server.port}"
    finally:
        asyncio.run(server.stop())


def results(folder: Path, engine: dict[str, Any], **keys: Any) -> Results:
    """Of a run of one engine."""
    path = scenario(folder, engines=[engine], **{"load": LOAD, **keys})
    ended = harness("run", str(path), "--out", "run", "--format", "json", "--quiet", cwd=folder, timeout_s=600)
    assert (folder / "run").exists(), ended.err
    run = Run.open(folder / "run")
    assert run.manifest["cells"][0]["status"] == "complete", (ended.out, ended.err)
    return derive(run.manifest, run.trials())


def server_of(found: Results, trial: int = 0) -> dict[str, Any]:
    """What a trial's facts say of the server."""
    facts: dict[str, Any] = list(found.facts.values())[trial]["server"]
    return facts


def value(found: Results, metric: str) -> float | None:
    """The value of a metric in the summary."""
    rows = found.summary[(found.summary["metric"] == metric) & (found.summary["repetition"] == "1")]
    return float(rows["value"].iloc[0]) if len(rows) else None


def missing(found: Results, metric: str) -> str:
    """Why it has none."""
    why: str = next(iter(found.facts.values()))["missing"][metric]
    return why


def test_the_embedded_server_tells_of_itself(tmp_path: Path) -> None:
    """Its page is read without a word in the scenario: what it counted is what was sent and came back."""
    found = results(tmp_path, {"engine": "llama-server"}, model="tiny", workload=EXACT)
    server = server_of(found)
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    rows = records(tmp_path / "run", trial)
    assert server["reason"] is None
    assert server["window"]["generation_tokens"] == 12 * 8 == sum(row["output_tokens"] for row in rows)
    assert server["window"]["prompt_tokens"] == sum(row["prompt_tokens"] for row in rows)
    assert server["ends"]["start"]["how"] in ("idle", "read")  # by how long the probe took
    assert server["ends"]["end"]["how"] == "idle"
    (told,) = server["pages"]
    assert (told["kind"], told["source"], told["failures"]) == ("llamacpp", "server0", 0)
    running, share = value(found, "server_running_mean"), value(found, "prefix_hit_share")
    assert running is not None
    assert 0 <= running <= 2
    assert share is not None
    assert value(found, "kv_cache_peak_share") is None
    assert missing(found, "kv_cache_peak_share") == "the server's page does not tell it"
    assert not any("page" in told for told in manifest(tmp_path / "run")["cells"][0]["unread"])


def test_a_window_is_read_at_its_ends(tmp_path: Path) -> None:
    """A load with a warm-up: the page is read when the window begins and when it ends, not when a second is over."""
    load = [{"kind": "sustained", "rate": 20, "warmup": "400ms", "duration": "1300ms", "timeout": "10s"}]
    server = server_of(results(tmp_path, {"engine": "llama-server"}, model="tiny", workload=EXACT, load=load))
    assert [server["ends"][end]["how"] for end in ("start", "end")] == ["read", "read"]
    assert server["window"]["generation_tokens"] % 8 == 0
    assert 0 < server["window"]["generation_tokens"] <= 1.7 * 20 * 3 * 8


@pytest.mark.parametrize("sender", [{"driver": "locust"}, {"workers": 2}], ids=["locust", "workers"])
def test_whoever_sends_tells_when_the_window_is(tmp_path: Path, sender: dict[str, Any]) -> None:
    """Locust's process and several load processes fix T0 themselves; the page is read at the ends all the same."""
    load = [{"kind": "sustained", "rate": 20, "warmup": "400ms", "duration": "1300ms", "timeout": "10s", **sender}]
    server = server_of(results(tmp_path, {"engine": "llama-server"}, model="tiny", workload=EXACT, load=load))
    assert [server["ends"][end]["how"] for end in ("start", "end")] == ["read", "read"]


def test_a_server_without_a_page_is_measured_all_the_same(tmp_path: Path) -> None:
    """Why nothing is known stands behind each metric, and nowhere else."""
    found = results(tmp_path, {"engine": "http", "command": TINY})
    why = missing(found, "server_waiting_mean")
    assert why.endswith("/metrics answers with status 404")
    assert server_of(found)["window"] == {}
    assert not any("page" in told for told in manifest(tmp_path / "run")["cells"][0]["unread"])


def test_memory_of_a_server_elsewhere_is_never_this_machines(tmp_path: Path) -> None:
    """Without an exporter it is not known."""
    with server_elsewhere() as url:
        found = results(tmp_path, {"engine": "http", "url": url}, budget={"requests": 100})
    (trial,) = Run.open(tmp_path / "run").trials()
    assert set(trial.samples()["scope"]) == {"client"}
    for metric in ("system_memory_peak_share", "rss_peak_bytes", "gpu_memory_peak_bytes"):
        assert value(found, metric) is None
        assert missing(found, metric)
    assert missing(found, "server_running_mean") == "the engine has no page of its own, and `metrics_urls` names none"


def test_exporters_tell_of_a_server_elsewhere(tmp_path: Path) -> None:
    """Memory of host and GPUs are those of its exporters, and its own page is found where the scenario says."""
    with (
        server_elsewhere() as url,
        serving_page(page("node") + page("dcgm")) as host,
        serving_page(page("vllm")) as own,
    ):
        pages = [host.url_elsewhere, {"url": own.url_elsewhere}]
        found = results(tmp_path, {"engine": "http", "url": url, "metrics_urls": pages}, budget={"requests": 100})
    assert value(found, "system_memory_peak_share") == 0.25
    assert value(found, "gpu_memory_peak_bytes") == (80000 + 24) << 20
    assert value(found, "rss_peak_bytes") is None
    assert value(found, "server_running_mean") == 0
    assert [told["kind"] for told in server_of(found)["pages"]] == ["dcgm+node", "vllm"]
    samples = Run.open(tmp_path / "run").trials()[0].samples()
    assert set(samples[samples["source"] == "client"]["scope"]) == {"client"}


def test_a_page_that_is_named_and_missing_is_said(tmp_path: Path) -> None:
    """The run goes on without it."""
    with serving_page(None) as nothing:
        results(tmp_path, {"engine": "http", "command": TINY, "metrics_urls": [nothing.url]})
    cell = manifest(tmp_path / "run")["cells"][0]
    assert f"The page {nothing.url} answers with status 404." in cell["unread"]


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_vllm_tells_of_its_queue_and_cache(tmp_path: Path) -> None:
    """With room for one sequence the second user waits inside the server, which says so and counts as we do."""
    options = {"enforce_eager": True, "kv_cache_space_gib": 1, "max_num_seqs": 1}
    engine = {"engine": "vllm-server", "python": needs.vllm_python(), "options": options}
    workload = {"prompt_tokens": 16, "output_tokens": {"dist": "fixed", "value": 64, "exact": True}}
    found = results(tmp_path, engine, model="tiny", workload=workload)
    window = server_of(found)["window"]
    assert window["generation_tokens"] == 12 * 64
    assert window["finished_requests"] == 12
    assert window["running_requests"]["max"] <= 1
    assert window["preemptions"] == 0
    for metric in ("server_queue_ms_mean", "kv_cache_peak_share", "prefix_hit_share", "preemptions"):
        assert value(found, metric) is not None, (metric, window)
    queue_ms = value(found, "server_queue_ms_mean")
    assert queue_ms is not None
    assert queue_ms > 0
