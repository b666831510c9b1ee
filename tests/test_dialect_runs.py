"""Runs against servers in the dialects of the field, over real engines: from the scenario to the summary."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Ended, environment, manifest, measured, scenario

from engines.process.server import ServerCommand, ServerProcess
from tests.forked import harness

PROGRAM = f"{sys.executable} {Path(__file__).parent / 'engines' / 'field_apis.py'} {{port}}"
WORKLOAD = {"prompt_tokens": 12, "output_tokens": {"dist": "fixed", "value": 12}, "sampling": {"temperature": 0.0}}
MEASURED = (0, 4)  # a busy machine makes a trial invalid; what was recorded is the same
API_OF = {
    "anthropic-messages": "native",
    "openai-responses": "native",
    "llamacpp-completion": "native",
    "tgi": "tgi",
    "openai-embeddings": "vectors",
    "rerank": "vectors",
}
GENERATING = [name for name, api in API_OF.items() if api != "vectors"]
OF_OUTPUT = ("ttft_ms", "ttfo_ms", "tpot_ms", "icl_ms", "itl_ms", "norm_latency_ms", "output_tokens_per_s")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def apis() -> Iterator[str]:
    """The address of the program with the APIs."""
    server = ServerProcess(ServerCommand(PROGRAM, env=environment()))
    asyncio.run(server.start())
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())


def run(
    apis: str, folder: Path, dialect: str, *, manners: Any = None, workload: dict[str, Any] | None = None, **engine: Any
) -> Ended:
    """A run in a dialect, against its API with these manners."""
    url = f"{apis}/{API_OF[dialect]}"
    with urllib.request.urlopen(f"{url}/manners", json.dumps(manners or {}).encode()):
        pass
    path = scenario(
        folder,
        model="tiny",
        engines=[{"engine": "http", "url": url, "dialect": dialect, **engine}],
        workload=WORKLOAD | (workload or {}),
        load=[{"kind": "sustained", "users": 2, "requests": 12, "timeout": "120s"}],
    )
    return harness("run", str(path), "--out", "run", "--format", "csv,json,md", cwd=folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The records of the only trial."""
    (trial,) = manifest(folder / "run")["cells"][0]["trials"]
    return measured(folder / "run", trial)


def summary(folder: Path) -> dict[tuple[str, str], float]:
    """The pooled values of the summary, by metric and statistic; NaN for those without one."""
    with (folder / "run" / "summary.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["repetition"] == "pooled" and line["class"] == "all"]
    return {(line["metric"], line["statistic"]): float(line["value"] or "nan") for line in lines}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("dialect", GENERATING)
def test_replies_are_measured(apis: str, tmp_path: Path, dialect: str, stream: bool) -> None:
    """The model is found in the server's list; counts are the server's; each token of a stream keeps its time."""
    ended = run(apis, tmp_path, dialect, workload={"stream": stream})
    assert ended.code in MEASURED, ended.err
    assert manifest(tmp_path / "run")["cells"][0]["engine_info"]["model"] == "tiny"
    found = rows(tmp_path)
    assert {(row["status"], row["error"]) for row in found} == {("ok", None)}
    assert {row["token_source"] for row in found} == {"usage"}
    assert {row["output_tokens"] for row in found} == {12}
    assert all(row["prompt_tokens"] >= 12 for row in found)
    assert all(row["finish_reason"] in ("length", "limit", "max_tokens", "completed") for row in found)
    assert all((len(row["chunk_ns"]) > 1) if stream else row["chunk_ns"] is None for row in found)


def test_tgi_says_what_it_is(apis: str, tmp_path: Path) -> None:
    """Its version and its context are read from `/info`."""
    run(apis, tmp_path, "tgi")
    info = manifest(tmp_path / "run")["cells"][0]["engine_info"]
    assert (info["version"], info["context_tokens"]) == ("3.3.5", 4096)


def test_a_cached_prompt_counts_whole(apis: str, tmp_path: Path) -> None:
    """Anthropic leaves cached tokens out of `input_tokens`; the prompt has the same length with and without them."""
    run(apis, tmp_path, "anthropic-messages", workload={"repeat": 0.5})
    assert len({row["prompt_tokens"] - 12 for row in rows(tmp_path)}) == 1


@pytest.mark.parametrize("stream", [True, False])
def test_the_times_of_llama_cpp_stand_beside_ours(apis: str, tmp_path: Path, stream: bool) -> None:
    """Prompt and generation take no longer than the request as a whole."""
    run(apis, tmp_path, "llamacpp-completion", workload={"stream": stream})
    for row in rows(tmp_path):
        took_ms = (row["done_ns"] - row["sent_ns"]) / 1e6
        assert 0 < row["reported_prompt_ms"] + row["reported_generation_ms"] < took_ms
    told = summary(tmp_path)
    assert told["reported_prompt_ms", "p50"] > 0
    assert told["reported_generation_ms", "p50"] > 0


@pytest.mark.parametrize("dialect", GENERATING)
def test_an_error_in_mid_stream(apis: str, tmp_path: Path, dialect: str) -> None:
    """What had come counts, and the server's sentence is kept."""
    run(apis, tmp_path, dialect, manners={"break_after": 3})
    found = rows(tmp_path)
    assert {(row["status"], row["error"]) for row in found} == {("stream_error", "the model ran out of memory")}
    assert all(1 <= len(row["chunk_ns"]) <= 3 for row in found)


@pytest.mark.parametrize("dialect", GENERATING)
def test_a_connection_that_closes(apis: str, tmp_path: Path, dialect: str) -> None:
    """A reply that is cut off is no success, and keeps what came."""
    run(apis, tmp_path, dialect, manners={"cut_after": 3})
    found = rows(tmp_path)
    assert {row["status"] for row in found} == {"truncated"}
    assert all(len(row["chunk_ns"]) >= 1 for row in found)


@pytest.mark.parametrize("dialect", GENERATING)
def test_a_refusal_before_the_stream(apis: str, tmp_path: Path, dialect: str) -> None:
    """A status of HTTP with JSON: the server's sentence is in each record."""
    workload = {"sampling": {"temperature": 0.0, "top_p": 1.0}} if dialect == "tgi" else {"prompt_tokens": 3000}
    ended = run(apis, tmp_path, dialect, workload=workload)
    found = rows(tmp_path)
    if dialect == "tgi":  # a `top_p` of 1 is off, and TGI refuses it
        assert {row["status"] for row in found} == {"ok"}, ended.err
        return
    assert {row["status"] for row in found} == {"http_error"}
    assert all("exceeds the available context size" in row["error"] for row in found)


@pytest.mark.parametrize("dialect", ["openai-embeddings", "rerank"])
def test_results_without_tokens(apis: str, tmp_path: Path, dialect: str) -> None:
    """Rates and latency are there, the prompt's tokens count, and nothing of output tokens is shown as a number."""
    ended = run(apis, tmp_path, dialect)
    assert ended.code in MEASURED, ended.err
    found = rows(tmp_path)
    assert {(row["status"], row["error"]) for row in found} == {("ok", None)}
    assert all(row["prompt_tokens"] >= 12 for row in found)
    assert {(row["output_tokens"], row["token_source"], row["first_token_ns"]) for row in found} == {(None, None, None)}
    told = summary(tmp_path)
    assert told["e2e_ms", "p50"] > 0
    assert told["completed_rps", "value"] > 0
    assert told["input_tokens_per_s", "value"] > 0
    assert {name: value for (name, _), value in told.items() if name in OF_OUTPUT and value == value} == {}
