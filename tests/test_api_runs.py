"""Runs against servers with APIs of their own, over real engines: from the scenario to the summary."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command import Ended, environment, harness, manifest, measured, scenario

from engines.process.server import ServerCommand, ServerProcess

PROGRAM = f"{sys.executable} {Path(__file__).parent / 'engines' / 'real_apis.py'}"
WORKLOAD = {"prompt_tokens": 12, "output_tokens": {"dist": "fixed", "value": 12}, "sampling": {"temperature": 0.0}}
LOAD = [{"kind": "sustained", "users": 2, "requests": 24, "timeout": "120s"}]
MEASURED = (0, 4)  # a busy machine makes a trial invalid; what was recorded is the same
pytestmark = pytest.mark.slow


def run(folder: Path, api: str, *, workload: dict[str, Any] | None = None, **engine: Any) -> Ended:
    """A run against one of the servers, started by the run itself unless `url` names one."""
    where = {} if "url" in engine else {"command": f"{PROGRAM} {api} {{port}}", "ready": {"path": "/health"}}
    path = scenario(
        folder,
        model="tiny",
        engines=[{"engine": "http", **where, **engine}],
        workload=WORKLOAD | (workload or {}),
        load=LOAD,
    )
    return harness("run", str(path), "--out", "run", "--format", "csv,json", cwd=folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The records of the only trial."""
    (trial,) = manifest(folder / "run")["cells"][0]["trials"]
    return measured(folder / "run", trial)


def summary(folder: Path) -> dict[tuple[str, str, str], float]:
    """The pooled values of the summary, by class, metric and statistic."""
    with (folder / "run" / "summary.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["repetition"] == "pooled"]
    return {(line["class"], line["metric"], line["statistic"]): float(line["value"] or "nan") for line in lines}


@pytest.mark.parametrize("stream", [True, False])
def test_statistics_and_a_cache_of_results(tmp_path: Path, stream: bool) -> None:
    """Counts are the server's; its own times and memory stand beside ours; what came from its cache is split off."""
    ended = run(tmp_path, "stats", dialect="generate-stats", workload={"repeat": 0.5, "stream": stream})
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
        latencies_ms = [(row["done_ns"] - row["due_ns"]) / 1e6 for row in found if row["cached"] is cached]
        assert told[name, "e2e_close_ms", "min"] == pytest.approx(min(latencies_ms))
    assert {name for name, _, _ in told} == {"all", "cached", "uncached", "repeated", "original"}
    assert told["all", "reported_total_ms", "min"] > 0
    assert told["all", "reported_memory_peak_bytes", "max"] == max(row["reported_memory_peak_bytes"] for row in found)


def test_two_backends_have_results_of_their_own(tmp_path: Path) -> None:
    """By the name in each reply; nobody counted tokens, so our own tokenizer did, and says so."""
    command = f"{PROGRAM} backend {{port}} --pause 0.01"  # so that replies overlap, and both are needed
    ended = run(tmp_path, "backend", dialect="generate-backend", command=command, workload={"stream": False})
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


def test_a_backend_by_request(tmp_path: Path) -> None:
    """What the scenario adds to requests reaches the server; a stream says who answered in its last event."""
    more = {"request": {"backend": "llama_cpp_small", "urgency": "low"}}
    command = f"{PROGRAM} backend {{port}} --tell --pause 0.01"
    ended = run(tmp_path, "backend", dialect="generate-backend", command=command, **more)
    assert ended.code in MEASURED, ended.err
    found = rows(tmp_path)
    assert {row["backend"] for row in found} == {"llama_cpp_small"}
    assert {row["status"] for row in found} == {"ok"}
    assert any(row["first_token_ns"] < row["done_ns"] for row in found)
    assert manifest(tmp_path / "run")["cells"][0]["engine_info"]["options"]["request"] == more["request"]
    assert {name for name, _, _ in summary(tmp_path)} == {"all"}


@pytest.mark.parametrize(
    ("dialect", "stream"), [("ollama-generate", True), ("ollama-chat", True), ("ollama-chat", False)]
)
def test_ollama(tmp_path: Path, dialect: str, stream: bool) -> None:
    """The model is found in its list, with its level; counts and times are its own; each line keeps its time."""
    ended = run(tmp_path, "ollama", dialect=dialect, workload={"stream": stream})
    assert ended.code in MEASURED, ended.err
    info = manifest(tmp_path / "run")["cells"][0]["engine_info"]
    assert (info["model"], info["level"], info["version"]) == ("tiny:latest", "q8_0", "0.0.1")
    found = rows(tmp_path)
    assert {row["status"] for row in found} == {"ok"}
    assert {row["token_source"] for row in found} == {"usage"}
    assert all(row["reported_total_ms"] > 0 for row in found)
    assert all((len(row["chunk_ns"]) > 1) if stream else row["chunk_ns"] is None for row in found)


@pytest.mark.parametrize(
    ("api", "dialect"), [("stats", "generate-stats"), ("backend", "generate-backend"), ("ollama", "ollama-generate")]
)
def test_an_error_in_mid_stream(tmp_path: Path, api: str, dialect: str) -> None:
    """What had come counts, and the server's sentence is kept."""
    ended = run(tmp_path, api, dialect=dialect, command=f"{PROGRAM} {api} {{port}} --break-after 3")
    assert "the model ran out of memory" in ended.out + ended.err
    found = rows(tmp_path)
    assert {row["status"] for row in found} == {"stream_error"}
    assert {row["error"] for row in found} == {"the model ran out of memory"}
    assert {len(row["chunk_ns"]) for row in found} == {3}


@pytest.mark.parametrize(
    ("api", "dialect"), [("stats", "generate-stats"), ("backend", "generate-backend"), ("ollama", "ollama-chat")]
)
def test_what_is_given_up_ends_in_the_engine(tmp_path: Path, api: str, dialect: str) -> None:
    """The server stops to generate for requests whose connection is closed."""
    command = f"{PROGRAM} {api} {{port}} --pause 0.05"  # 20 s for a whole reply
    server = ServerProcess(ServerCommand(command, env=environment(), ready_path="/health"))
    asyncio.run(server.start())
    try:
        workload = {"output_tokens": 400, "cancel": {"share": 1.0, "after": "150ms"}}
        ended = run(tmp_path, api, dialect=dialect, url=server.url, workload=workload)
        with urllib.request.urlopen(f"{server.url}/health") as answer:
            generated = json.load(answer)["pieces"]
    finally:
        asyncio.run(server.stop())
    assert ended.code in MEASURED, ended.err
    found = rows(tmp_path)
    given_up = [row for row in found if row["status"] == "cancelled"]
    assert given_up
    arrived = sum(len(row["chunk_ns"] or ()) for row in found)
    assert generated < (arrived + 400 * len(found)) / 2
