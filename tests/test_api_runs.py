"""Runs against servers with APIs of their own, over real engines: from the scenario to the summary."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Ended, environment, manifest, measured, scenario

from engines.http.detection import detect
from engines.process.server import ServerCommand, ServerProcess
from tests.forked import harness

PROGRAM = f"{sys.executable} {Path(__file__).parent / 'engines' / 'real_apis.py'} {{port}}"
WORKLOAD = {"prompt_tokens": 12, "output_tokens": {"dist": "fixed", "value": 12}, "sampling": {"temperature": 0.0}}
MEASURED = (0, 4)  # a busy machine makes a trial invalid; what was recorded is the same
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def apis() -> Iterator[str]:
    """The address of the program with the three APIs."""
    server = ServerProcess(ServerCommand(PROGRAM, env=environment()))
    asyncio.run(server.start())
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())


class Api:
    """One of the APIs, and a folder for a run against it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder

    def run(
        self, *, requests: int = 12, workload: dict[str, Any] | None = None, manners: Any = None, **engine: Any
    ) -> Ended:
        """A run against it, as it is at its start but for these manners."""
        self.ask("/manners", manners or {})
        path = scenario(
            self.folder,
            model="tiny",
            engines=[{"engine": "http", "url": self.url, **engine}],
            workload=WORKLOAD | (workload or {}),
            load=[{"kind": "sustained", "users": 2, "requests": requests, "timeout": "120s"}],
        )
        return harness("run", str(path), "--out", "run", "--format", "csv", cwd=self.folder)

    def ask(self, path: str, body: Any = None) -> Any:
        """What it tells about itself."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data) as answer:
            return json.load(answer)


@pytest.fixture
def api(apis: str, tmp_path: Path, request: pytest.FixtureRequest) -> Api:
    """The API that the test names."""
    return Api(f"{apis}/{request.param}", tmp_path)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The records of the only trial."""
    (trial,) = manifest(folder / "run")["cells"][0]["trials"]
    return measured(folder / "run", trial)


def summary(folder: Path) -> dict[tuple[str, str, str], float]:
    """The pooled values of the summary, by class, metric and statistic."""
    with (folder / "run" / "summary.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["repetition"] == "pooled"]
    return {(line["class"], line["metric"], line["statistic"]): float(line["value"] or "nan") for line in lines}


@pytest.mark.parametrize("api", ["stats"], indirect=True)
@pytest.mark.parametrize("stream", [True, False])
def test_statistics_and_a_cache_of_results(api: Api, tmp_path: Path, stream: bool) -> None:
    """Counts are the server's; its own times and memory stand beside ours; what came from its cache is split off."""
    ended = api.run(dialect="generate-stats", requests=24, workload={"repeat": 0.5, "stream": stream})
    assert ended.code in MEASURED, ended.err
    found = rows(tmp_path)
    assert {row["status"] for row in found} == {"ok"}
    assert {row["token_source"] for row in found} == {"usage"}
    assert {row["prompt_tokens"] for row in found} == {12}
    flags = Counter(row["cached"] for row in found)
    assert flags[True] > 0
    assert flags[True] <= sum(row["repeats"] is not None for row in found)
    for row in found:
        took_ms = (row["done_ns"] - row["sent_ns"]) / 1e6
        assert row["cached"] or row["reported_total_ms"] <= took_ms
        assert row["reported_memory_peak_bytes"] > 2**20
    told = summary(tmp_path)
    for name, cached in (("cached", True), ("uncached", False)):
        latencies_ms = [(row["done_ns"] - row["sent_ns"]) / 1e6 for row in found if row["cached"] is cached]
        assert told[name, "e2e_close_ms", "min"] == pytest.approx(min(latencies_ms))
    assert {name for name, _, _ in told} == {"all", "cached", "uncached", "repeated", "original"}
    assert told["all", "reported_total_ms", "min"] > 0
    assert told["all", "reported_memory_peak_bytes", "max"] == max(row["reported_memory_peak_bytes"] for row in found)


@pytest.mark.parametrize("api", ["backend"], indirect=True)
def test_two_backends_have_results_of_their_own(api: Api, tmp_path: Path) -> None:
    """By the name in each reply; nobody counted tokens, so our own tokenizer did, and says so."""
    pause = {"pause": 0.01}  # so that replies overlap, and both are needed
    ended = api.run(dialect="generate-backend", manners=pause, workload={"stream": False})
    assert ended.code in MEASURED, ended.err
    found = rows(tmp_path)
    answered = Counter(row["backend"] for row in found)
    assert set(answered) == {"llama_cpp", "llama_cpp_small"}
    assert {row["token_source"] for row in found} == {"tokenizer"}
    assert {row["prompt_tokens"] for row in found} == {12}
    told = summary(tmp_path)
    classes = {name for name, _, _ in told}
    assert classes == {"all", "backend:llama_cpp", "backend:llama_cpp_small"}
    assert told["backend:llama_cpp", "e2e_ms", "min"] > 0


@pytest.mark.parametrize("api", ["backend"], indirect=True)
def test_a_backend_by_request(api: Api, tmp_path: Path) -> None:
    """What the scenario adds to requests reaches the server; a stream says who answered in its last event."""
    more = {"request": {"backend": "llama_cpp_small", "urgency": "low"}}
    ended = api.run(dialect="generate-backend", manners={"tell": True, "pause": 0.01}, **more)
    assert ended.code in MEASURED, ended.err
    found = rows(tmp_path)
    assert {row["backend"] for row in found} == {"llama_cpp_small"}
    assert {row["status"] for row in found} == {"ok"}
    assert any(row["first_token_ns"] < row["done_ns"] for row in found)
    assert manifest(tmp_path / "run")["cells"][0]["engine_info"]["options"]["request"] == more["request"]
    assert {name for name, _, _ in summary(tmp_path)} == {"all"}


@pytest.mark.parametrize("api", ["ollama"], indirect=True)
@pytest.mark.parametrize(
    ("dialect", "stream"), [("ollama-generate", True), ("ollama-chat", True), ("ollama-chat", False)]
)
def test_ollama(api: Api, tmp_path: Path, dialect: str, stream: bool) -> None:
    """The model is found in its list, with its level; counts and times are its own; each line keeps its time."""
    ended = api.run(dialect=dialect, workload={"stream": stream})
    assert ended.code in MEASURED, ended.err
    info = manifest(tmp_path / "run")["cells"][0]["engine_info"]
    assert (info["model"], info["level"], info["version"]) == ("tiny:latest", "q8_0", "0.0.1")
    found = rows(tmp_path)
    assert {row["status"] for row in found} == {"ok"}
    assert {row["token_source"] for row in found} == {"usage"}
    assert all(row["reported_total_ms"] > 0 for row in found)
    assert all((len(row["chunk_ns"]) > 1) if stream else row["chunk_ns"] is None for row in found)


@pytest.mark.parametrize(
    ("api", "dialect"),
    [("stats", "generate-stats"), ("backend", "generate-backend"), ("ollama", "ollama-generate")],
    indirect=["api"],
)
def test_an_error_in_mid_stream(api: Api, tmp_path: Path, dialect: str) -> None:
    """What had come counts, and the server's sentence is kept."""
    ended = api.run(dialect=dialect, manners={"break_after": 3})
    assert "the model ran out of memory" in " ".join((ended.out + ended.err).split())  # the terminal breaks lines
    found = rows(tmp_path)
    assert {row["status"] for row in found} == {"stream_error"}
    assert {row["error"] for row in found} == {"the model ran out of memory"}
    assert {len(row["chunk_ns"]) for row in found} == {3}


@pytest.mark.parametrize(
    ("api", "dialect"),
    [("stats", "generate-stats"), ("backend", "generate-backend"), ("ollama", "ollama-chat")],
    indirect=["api"],
)
def test_what_is_given_up_ends_in_the_engine(api: Api, tmp_path: Path, dialect: str) -> None:
    """The server stops to generate for requests whose connection is closed."""
    workload = {"output_tokens": 400, "cancel": {"share": 1.0, "after": "150ms"}}
    pause = {"pause": 0.05}  # 20 s for a whole reply
    ended = api.run(dialect=dialect, requests=8, manners=pause, workload=workload)
    generated = api.ask("/health")["pieces"]
    assert ended.code in MEASURED, ended.err
    found = rows(tmp_path)
    given_up = [row for row in found if row["status"] == "cancelled"]
    assert given_up
    arrived = sum(len(row["chunk_ns"] or ()) for row in found)
    assert generated < (arrived + 400 * len(found)) / 2


@pytest.mark.parametrize("api", ["stats", "backend", "ollama"], indirect=True)
def test_what_a_server_speaks_is_detected(api: Api, request: pytest.FixtureRequest) -> None:
    """By one token of each dialect; Ollama by its version, and with the name of its model."""
    api.ask("/manners", {})
    name = request.node.callspec.params["api"]
    expected = {
        "stats": ("generate-stats", None),
        "backend": ("generate-backend", None),
        "ollama": ("ollama-chat", "tiny:latest"),
    }
    found = asyncio.run(detect(api.url))
    assert (found.dialect, found.served_model) == expected[name]
