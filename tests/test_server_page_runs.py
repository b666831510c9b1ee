"""Runs beside which servers' pages are read, from the scenario to the facts and the metrics."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import needs
import pytest
from command import HELD, harness, manifest, records, running, scenario, wait_until
from page_server import page, serving_page

from engines.process.server import ServerCommand, ServerProcess
from harness.results import Results, derive
from harness.run.engine import WARM_UP_TOKENS
from harness.store.run import Run
from harness.store.streams import read_batches
from tests.relay import reached

pytestmark = pytest.mark.slow  # each test is a run
LOAD = [{"kind": "single_user", "requests": 12, "timeout": "200s"}]  # nothing is in flight when the last one ends
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
    assert run.manifest.cells[0].status == "complete", (ended.out, ended.err)
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


def counted(run: Path, after_ns: int = 0) -> dict[str, float]:
    """What the server's page told last, of the readings that are on disk and were made after a moment."""
    tables = [batch.to_pylist() for found in run.rglob("samples.arrows") for batch in read_batches(found)]
    told = [row for rows in tables for row in rows if row["source"] == "server0" and row["at_ns"] > after_ns]
    return {row["name"]: row["value"] for row in sorted(told, key=lambda row: row["at_ns"])}


def test_the_embedded_server_tells_of_itself(tmp_path: Path) -> None:
    """Its page is read without a word in the scenario: what it counted is what was sent and came back, and the request
    with which it was warmed.
    """
    run, go_on = tmp_path / "run", tmp_path / "go-on"
    hold = {"level": "q8_0", "requests": 13, "until": str(go_on), "head": "POST /v1/completions "}
    block = {"engine": "held", "quantization": "q8_0", "options": {"hold": hold}}
    path = scenario(tmp_path, engines=[block], model="tiny", workload=EXACT, load=[*LOAD, {**LOAD[0], "name": "held"}])
    with running("run", str(path), "--out", "run", "--format", "json", "-q", cwd=tmp_path, env=HELD) as process:
        wait_until(reached(go_on).exists, process)  # the first load is over
        over_ns = time.monotonic_ns()
        wanted = {"generation_tokens", "prompt_tokens"}  # a page may reach the disk in parts
        wait_until(lambda: wanted <= counted(run, over_ns).keys(), process)
        totals = counted(run, over_ns)
        go_on.touch()
        process.communicate(timeout=200)
    stored = Run.open(run)
    found = derive(stored.manifest, stored.trials())
    rows = records(run, stored.manifest.cells[0].trials[0].stored())
    assert totals["generation_tokens"] == WARM_UP_TOKENS + 12 * 8
    assert sum(row["output_tokens"] for row in rows) == 12 * 8
    assert totals["prompt_tokens"] == 13 / 12 * sum(row["prompt_tokens"] for row in rows)
    server, later = server_of(found), server_of(found, 1)
    assert server["reason"] is None
    if {end["how"] for end in server["ends"].values()} == {"idle"}:  # else the page was read too late to be exact
        assert server["window"]["generation_tokens"] == 12 * 8
    (page_told,) = server["pages"]
    assert (page_told["kind"], page_told["source"], page_told["failures"]) == ("llamacpp", "server0", 0)
    assert 0 <= later["window"]["running_requests"]["mean"] <= 2
    assert value(found, "prefix_hit_share") is not None
    assert value(found, "kv_cache_peak_share") is None
    assert missing(found, "kv_cache_peak_share") == "the server's page does not report it"
    assert not any("page" in told for told in stored.manifest.cells[0].unread)


def waited_ms(run: Path) -> list[float]:
    """How long after a window's begin and end the page was asked next, not counting the time in which it was being read
    already: how long the server takes to answer is no matter of ours.
    """
    (trial,) = Run.open(run).trials()
    samples = trial.samples()
    read = samples[samples["source"] == "server0"].drop_duplicates("at_ns")
    asked_ns, answered_ns = read["at_ns"] - read["width_ns"] // 2, read["at_ns"] + read["width_ns"] // 2
    found = []
    t0_ns, window = trial.trial.t0_ns, trial.trial.window
    for moment_ns in (t0_ns + window.start_ns, t0_ns + window.end_ns):
        free_ns = answered_ns[asked_ns < moment_ns].max()
        found.append((asked_ns[asked_ns >= moment_ns].min() - max(moment_ns, free_ns)) / 1e6)
    return found


def test_a_window_is_read_at_its_ends(tmp_path: Path) -> None:
    """A load with a warm-up: the page is read when the window begins and when it ends, not when a second is over."""
    load = [{"kind": "sustained", "rate": 20, "warmup": "400ms", "duration": "1300ms", "timeout": "60s"}]
    server = server_of(results(tmp_path, {"engine": "llama-server"}, model="tiny", workload=EXACT, load=load))
    assert max(waited_ms(tmp_path / "run")) < 300  # without being asked for it is read once a second
    tokens = server["window"]["generation_tokens"]
    assert 0 < tokens <= 1.7 * 20 * 3 * 8
    if {end["how"] for end in server["ends"].values()} == {"read"}:  # not reckoned from the readings around
        assert tokens % 8 == 0


@pytest.mark.parametrize("sender", [{"driver": "locust"}, {"workers": 2}], ids=["locust", "workers"])
def test_whoever_sends_tells_when_the_window_is(tmp_path: Path, sender: dict[str, Any]) -> None:
    """Locust's process and several load processes fix T0 themselves; the page is read at the ends all the same."""
    load = [{"kind": "sustained", "rate": 20, "warmup": "400ms", "duration": "1300ms", "timeout": "60s", **sender}]
    results(tmp_path, {"engine": "llama-server"}, model="tiny", workload=EXACT, load=load)
    assert max(waited_ms(tmp_path / "run")) < 300


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
    load = {"kind": "sustained", "users": 2, "requests": 12, "timeout": "200s"}
    found = results(tmp_path, engine, model="tiny", workload=workload, load=[load])
    window = server_of(found)["window"]
    assert 0 < window["generation_tokens"] <= 12 * 64
    assert 0 < window["finished_requests"] <= 12
    assert window["running_requests"]["max"] <= 1
    assert window["preemptions"] == 0
    for metric in ("server_queue_ms_mean", "kv_cache_peak_share", "prefix_hit_share", "preemptions"):
        assert value(found, metric) is not None, (metric, window)
    queue_ms = value(found, "server_queue_ms_mean")
    assert queue_ms is not None
    assert queue_ms > 0
