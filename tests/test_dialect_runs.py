"""Runs against servers in the dialects of the field, over real engines: from the scenario to the summary."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
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


@dataclass(frozen=True)
class Way:
    """What is asked of the APIs of some dialects, and how these behave."""

    dialects: list[str]
    workload: dict[str, Any] = field(default_factory=dict)
    manners: dict[str, Any] = field(default_factory=dict)


WAYS = {
    "streamed": Way(GENERATING, workload={"stream": True}),
    "whole": Way(GENERATING, workload={"stream": False}),
    "broken": Way(GENERATING, manners={"break_after": 3}),
    "closed": Way(GENERATING, manners={"cut_after": 3}),
    "too long": Way([name for name in GENERATING if name != "tgi"], workload={"prompt_tokens": 3000}),
    "off": Way(["tgi"], workload={"sampling": {"temperature": 0.0, "top_p": 1.0}}),
    "repeated": Way(["anthropic-messages"], workload={"repeat": 0.5}),
    "without tokens": Way(["openai-embeddings", "rerank"]),
}


@pytest.fixture(scope="module")
def apis() -> Iterator[str]:
    """The address of the program with the APIs."""
    server = ServerProcess(ServerCommand(PROGRAM, env=environment()))
    asyncio.run(server.start())
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())


@dataclass(frozen=True)
class Made:
    """A run with a configuration for each dialect, and how it ended."""

    run: Path
    ended: Ended
    dialects: list[str]

    def cell(self, dialect: str) -> dict[str, Any]:
        """What the manifest says of a dialect."""
        found: dict[str, Any] = manifest(self.run)["cells"][self.dialects.index(dialect)]
        return found

    def rows(self, dialect: str) -> list[dict[str, Any]]:
        """The records of its only trial."""
        (trial,) = self.cell(dialect)["trials"]
        return measured(self.run, trial)

    def summary(self, dialect: str) -> dict[tuple[str, str], float]:
        """Its pooled values of the summary, by metric and statistic; NaN for those without one."""
        with (self.run / "summary.csv").open() as file:
            lines = [line for line in csv.DictReader(file) if line["repetition"] == "pooled" and line["class"] == "all"]
        own = [line for line in lines if line["variant"] == dialect]
        return {(line["metric"], line["statistic"]): float(line["value"] or "nan") for line in own}


@pytest.fixture(scope="module")
def made(apis: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """The run of one of WAYS, made once, when it is asked for."""

    @cache
    def once(name: str) -> Made:
        way, folder = WAYS[name], tmp_path_factory.mktemp("dialects")
        for api in {API_OF[dialect] for dialect in way.dialects}:
            with urllib.request.urlopen(f"{apis}/{api}/manners", json.dumps(way.manners).encode()):
                pass
        path = scenario(
            folder,
            model="tiny",
            engines=[
                {"engine": "http", "url": f"{apis}/{API_OF[dialect]}", "dialect": dialect, "variants": {dialect: {}}}
                for dialect in way.dialects
            ],
            workload=WORKLOAD | way.workload,
            load=[{"kind": "sustained", "users": 2, "requests": 12, "timeout": "120s"}],
        )
        ended = harness("run", str(path), "--out", "run", "--format", "csv,json,md", cwd=folder, timeout_s=240)
        return Made(folder / "run", ended, way.dialects)

    return once


@pytest.mark.parametrize("way", ["streamed", "whole"])
@pytest.mark.parametrize("dialect", GENERATING)
def test_replies_are_measured(made: Callable[[str], Made], dialect: str, way: str) -> None:
    """The model is found in the server's list; counts are the server's; each token of a stream keeps its time."""
    run = made(way)
    assert run.ended.code in MEASURED, run.ended.err
    assert run.cell(dialect)["engine_info"]["model"] == "tiny"
    found = run.rows(dialect)
    assert {(row["status"], row["error"]) for row in found} == {("ok", None)}
    assert {row["token_source"] for row in found} == {"usage"}
    assert {row["output_tokens"] for row in found} == {12}
    assert all(row["prompt_tokens"] >= 12 for row in found)
    assert all(row["finish_reason"] in ("length", "limit", "max_tokens", "completed") for row in found)
    streamed = way == "streamed"
    assert all((len(row["chunk_ns"]) > 1) if streamed else row["chunk_ns"] is None for row in found)


def test_tgi_says_what_it_is(made: Callable[[str], Made]) -> None:
    """Its version and its context are read from `/info`."""
    info = made("streamed").cell("tgi")["engine_info"]
    assert (info["version"], info["context_tokens"]) == ("3.3.5", 4096)


def test_a_cached_prompt_counts_whole(made: Callable[[str], Made]) -> None:
    """Anthropic leaves cached tokens out of `input_tokens`; the prompt has the same length with and without them."""
    assert len({row["prompt_tokens"] - 12 for row in made("repeated").rows("anthropic-messages")}) == 1


@pytest.mark.parametrize("way", ["streamed", "whole"])
def test_the_times_of_llama_cpp_stand_beside_ours(made: Callable[[str], Made], way: str) -> None:
    """Prompt and generation take no longer than the request as a whole."""
    run = made(way)
    for row in run.rows("llamacpp-completion"):
        took_ms = (row["done_ns"] - row["sent_ns"]) / 1e6
        assert 0 < row["reported_prompt_ms"] + row["reported_generation_ms"] < took_ms
    told = run.summary("llamacpp-completion")
    assert told["reported_prompt_ms", "p50"] > 0
    assert told["reported_generation_ms", "p50"] > 0


@pytest.mark.parametrize("dialect", GENERATING)
def test_an_error_in_mid_stream(made: Callable[[str], Made], dialect: str) -> None:
    """What had come counts, and the server's sentence is kept."""
    found = made("broken").rows(dialect)
    assert {(row["status"], row["error"]) for row in found} == {("stream_error", "the model ran out of memory")}
    assert all(1 <= len(row["chunk_ns"]) <= 3 for row in found)


@pytest.mark.parametrize("dialect", GENERATING)
def test_a_connection_that_closes(made: Callable[[str], Made], dialect: str) -> None:
    """A reply that is cut off is no success, and keeps what came."""
    found = made("closed").rows(dialect)
    assert {row["status"] for row in found} == {"truncated"}
    assert all(len(row["chunk_ns"]) >= 1 for row in found)


@pytest.mark.parametrize("dialect", GENERATING)
def test_a_refusal_before_the_stream(made: Callable[[str], Made], dialect: str) -> None:
    """A status of HTTP with JSON: the server's sentence is in each record."""
    run = made("off" if dialect == "tgi" else "too long")
    found = run.rows(dialect)
    if dialect == "tgi":  # a `top_p` of 1 is off, and TGI refuses it
        assert {row["status"] for row in found} == {"ok"}, run.ended.err
        return
    assert {row["status"] for row in found} == {"http_error"}
    assert all("exceeds the available context size" in row["error"] for row in found)


@pytest.mark.parametrize("dialect", ["openai-embeddings", "rerank"])
def test_results_without_tokens(made: Callable[[str], Made], dialect: str) -> None:
    """Rates and latency are there, the prompt's tokens count, and nothing of output tokens is shown as a number."""
    run = made("without tokens")
    assert run.ended.code in MEASURED, run.ended.err
    found = run.rows(dialect)
    assert {(row["status"], row["error"]) for row in found} == {("ok", None)}
    assert all(row["prompt_tokens"] >= 12 for row in found)
    assert {(row["output_tokens"], row["token_source"], row["first_token_ns"]) for row in found} == {(None, None, None)}
    told = run.summary(dialect)
    assert told["e2e_ms", "p50"] > 0
    assert told["completed_rps", "value"] > 0
    assert told["input_tokens_per_s", "value"] > 0
    assert {name: value for (name, _), value in told.items() if name in OF_OUTPUT and value == value} == {}
