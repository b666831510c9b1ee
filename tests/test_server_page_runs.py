"""Runs beside which servers' pages are read, from the scenario to the facts and the metrics."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import needs
import pytest
from command import HELD, records, scenario, wait_until
from page_server import page, serving_page

from engines.process.server import ServerCommand, ServerProcess
from harness.results import Results, derive
from harness.run.engine import WARM_UP_TOKENS
from harness.store.run import Run
from harness.store.streams import read_batches
from tests.forked import harness, running
from tests.relay import reached

pytestmark = pytest.mark.slow  # each test is a run
LOAD = [{"kind": "single_user", "requests": 12, "timeout": "200s"}]  # nothing is in flight when the last one ends
READ_AT_ENDS_MS = 500  # read once a second, one end of a window of 1.5 s would have to wait as long
WAYS: list[dict[str, Any]] = [{}, {"driver": "locust"}, {"workers": 2}]
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


def results(folder: Path, *engines: dict[str, Any], **keys: Any) -> Results:
    """Of a run of engines."""
    path = scenario(folder, engines=engines, **{"load": LOAD, **keys})
    ended = harness("run", str(path), "--out", "run", "--format", "json", "--quiet", cwd=folder, timeout_s=600)
    assert (folder / "run").exists(), ended.err
    run = Run.open(folder / "run")
    assert {cell.status for cell in run.manifest.cells} == {"complete"}, (ended.out, ended.err)
    return derive(run.manifest, run.trials())


def server_of(found: Results, trial: int = 0) -> dict[str, Any]:
    """What a trial's facts say of the server."""
    facts: dict[str, Any] = list(found.facts.values())[trial]["server"]
    return facts


def value(found: Results, metric: str, variant: str | None = None) -> float | None:
    """The value of a metric in the summary."""
    rows = found.summary[(found.summary["metric"] == metric) & (found.summary["repetition"] == "1")]
    rows = rows if variant is None else rows[rows["variant"] == variant]
    return float(rows["value"].iloc[0]) if len(rows) else None


def missing(found: Results, metric: str, trial: int = 0) -> str:
    """Why it has none."""
    why: str = list(found.facts.values())[trial]["missing"][metric]
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


def waited_ms(run: Path, index: int) -> list[float]:
    """How long after a window's begin and end the page was asked next, not counting the time in which it was being read
    already: how long the server takes to answer is no matter of ours.
    """
    trial = Run.open(run).trials()[index]
    samples = trial.samples()
    read = samples[samples["source"] == "server0"].drop_duplicates("at_ns")
    asked_ns, answered_ns = read["at_ns"] - read["width_ns"] // 2, read["at_ns"] + read["width_ns"] // 2
    found = []
    t0_ns, window = trial.trial.t0_ns, trial.trial.window
    for moment_ns in (t0_ns + window.start_ns, t0_ns + window.end_ns):
        free_ns = answered_ns[asked_ns < moment_ns].max()
        found.append((asked_ns[asked_ns >= moment_ns].min() - max(moment_ns, free_ns)) / 1e6)
    return found


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of loads with a warm-up, one for each way of sending."""
    folder = tmp_path_factory.mktemp("windows")
    loads = [{"kind": "sustained", "rate": 20, "warmup": "400ms", "duration": "1500ms", "timeout": "60s", **way}
             for way in WAYS]  # fmt: skip
    results(folder, {"engine": "llama-server"}, model="tiny", workload=EXACT, load=loads)
    return folder / "run"


def test_a_window_is_read_at_its_ends(windows: Path) -> None:
    """A load with a warm-up: the page is read when the window begins and when it ends, not when a second is over."""
    run = Run.open(windows)
    server = server_of(derive(run.manifest, run.trials()))
    assert max(waited_ms(windows, 0)) < READ_AT_ENDS_MS
    tokens = server["window"]["generation_tokens"]
    assert 0 < tokens <= 1.9 * 20 * 3 * 8
    if {end["how"] for end in server["ends"].values()} == {"read"}:  # not reckoned from the readings around
        assert tokens % 8 == 0


@pytest.mark.parametrize("index", [1, 2], ids=["locust", "workers"])
def test_whoever_sends_tells_when_the_window_is(windows: Path, index: int) -> None:
    """Locust's process and several load processes fix T0 themselves; the page is read at the ends all the same."""
    assert max(waited_ms(windows, index)) < READ_AT_ENDS_MS


@dataclass(frozen=True)
class Cells:
    """A run of one engine with several pages or none, a cell for each."""

    found: Results
    run: Run
    names: list[str]
    nothing: str  # the address of a page that is not there

    def of(self, name: str) -> int:
        """The number of a cell, and of its trial."""
        return self.names.index(name)

    def value(self, name: str, metric: str) -> float | None:
        """The value of a metric in a cell."""
        return value(self.found, metric, name)

    def missing(self, name: str, metric: str) -> str:
        """Why a cell has none."""
        return missing(self.found, metric, self.of(name))

    def unread(self, name: str) -> list[str]:
        """What is said of pages that a cell could not read."""
        return self.run.manifest.cells[self.of(name)].unread

    def samples(self, name: str) -> Any:
        """The samples of a cell's trial."""
        return self.run.trials()[self.of(name)].samples()


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Cells:
    """A server here without a page of its own, alone and with a page named that is missing; and one elsewhere, alone
    and with exporters.
    """
    folder = tmp_path_factory.mktemp("pages")
    with (
        server_elsewhere() as url,
        serving_page(page("node") + page("dcgm")) as host,
        serving_page(page("vllm")) as own,
        serving_page(None) as nothing,
    ):
        engines: dict[str, dict[str, Any]] = {
            "here": {"command": TINY},
            "here, page missing": {"command": TINY, "metrics_urls": [nothing.url]},
            "elsewhere": {"url": url},
            "elsewhere, exporters": {"url": url, "metrics_urls": [host.url_elsewhere, {"url": own.url_elsewhere}]},
        }
        blocks = [{"engine": "http", "variants": {name: {}}, **keys} for name, keys in engines.items()]
        found = results(folder, *blocks, budget={"requests": 100})
    return Cells(found, Run.open(folder / "run"), list(engines), nothing.url)


def test_a_server_without_a_page_is_measured_all_the_same(cells: Cells) -> None:
    """Why nothing is known stands behind each metric, and nowhere else."""
    assert cells.missing("here", "server_waiting_mean").endswith("/metrics answers with status 404")
    assert server_of(cells.found, cells.of("here"))["window"] == {}
    assert not any("page" in told for told in cells.unread("here"))


def test_memory_of_a_server_elsewhere_is_never_this_machines(cells: Cells) -> None:
    """Without an exporter it is not known."""
    assert set(cells.samples("elsewhere")["scope"]) == {"client"}
    for metric in ("system_memory_peak_share", "rss_peak_bytes", "gpu_memory_peak_bytes"):
        assert cells.value("elsewhere", metric) is None
        assert cells.missing("elsewhere", metric)
    why = "the engine has no page of its own, and `metrics_urls` names none"
    assert cells.missing("elsewhere", "server_running_mean") == why


def test_exporters_tell_of_a_server_elsewhere(cells: Cells) -> None:
    """Memory of host and GPUs are those of its exporters, and its own page is found where the scenario says."""
    name = "elsewhere, exporters"
    assert cells.value(name, "system_memory_peak_share") == 0.25
    assert cells.value(name, "gpu_memory_peak_bytes") == (80000 + 24) << 20
    assert cells.value(name, "rss_peak_bytes") is None
    assert cells.value(name, "server_running_mean") == 0
    assert [told["kind"] for told in server_of(cells.found, cells.of(name))["pages"]] == ["dcgm+node", "vllm"]
    samples = cells.samples(name)
    assert set(samples[samples["source"] == "client"]["scope"]) <= {"client"}  # of so short a trial there may be none


def test_a_page_that_is_named_and_missing_is_said(cells: Cells) -> None:
    """The run goes on without it."""
    assert f"The page {cells.nothing} answers with status 404." in cells.unread("here, page missing")


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_vllm_tells_of_its_queue_and_cache(tmp_path: Path) -> None:
    """With room for one sequence the second user waits inside the server, which says so and counts as we do."""
    options = {"enforce_eager": True, "kv_cache_space_gib": 1, "max_num_seqs": 1}
    engine = {"engine": "vllm-server", "python": needs.vllm_python(), "options": options}
    workload = {"prompt_tokens": 16, "output_tokens": {"dist": "fixed", "value": 64, "exact": True}}
    load = {"kind": "sustained", "users": 2, "requests": 40, "timeout": "200s"}
    found = results(tmp_path, engine, model="tiny", workload=workload, load=[load])
    window = server_of(found)["window"]
    assert 0 < window["generation_tokens"] <= 40 * 64
    assert 0 < window["finished_requests"] <= 40
    assert window["running_requests"]["max"] <= 1
    assert window["preemptions"] == 0
    for metric in ("server_queue_ms_mean", "kv_cache_peak_share", "prefix_hit_share", "preemptions"):
        assert value(found, metric) is not None, (metric, window)
    queue_ms = value(found, "server_queue_ms_mean")
    assert queue_ms is not None
    assert queue_ms > 0
