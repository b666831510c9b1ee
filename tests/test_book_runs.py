"""The books of real runs: our counts against those of llama.cpp's server, alone with it and beside another client."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import scenario, wait_until

from engines.base import EngineSpec, ModelReference
from engines.llamacpp.server import LlamaServer
from harness.results import Results, derive
from harness.store.run import Run
from tests.forked import harness, running
from tests.relay import Relay, reached

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a llama.cpp server of our own, which a run takes for somebody's; its counters go on and on."""
    log = tmp_path_factory.mktemp("server") / "engine.log"
    engine = LlamaServer(EngineSpec("llama-server", ModelReference("tiny"), "q8_0", log_path=log))
    with asyncio.Runner() as runner:
        try:
            runner.run(engine.start())
            yield engine.endpoint().url
        finally:
            runner.run(engine.stop())


def others_tokens(url: str, tokens: int) -> int:
    """Another client's request; the tokens it got."""
    body = {"prompt": "Somebody else asks this.", "max_tokens": tokens, "ignore_eos": True}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return int(json.load(answer)["usage"]["completion_tokens"])


def command_against(url: str, folder: Path) -> tuple[str, ...]:
    """The command of a run of two seconds, with warm-up."""
    times = {"warmup": "500ms", "duration": "1500ms", "timeout": "120s"}
    load = {"kind": "sustained", "rate": 25, "arrivals": "constant", **times}
    keys: dict[str, Any] = {
        "model": "tiny",
        "engines": [{"engine": "http", "url": url, "dialect": "openai-completions"}],
        "workload": {"prompt_tokens": 20, "output_tokens": {"dist": "fixed", "value": 16, "exact": True}},
        "load": [load],
    }
    return "run", str(scenario(folder, **keys)), "--out", "run", "--format", "csv"


def results_in(folder: Path) -> Results:
    """What a run found out."""
    stored = Run.open(folder / "run")
    return derive(stored.manifest, stored.trials(), folder / "run")


def test_alone_with_the_server_the_books_balance(server: str, tmp_path: Path) -> None:
    """Every token of prompt and output that the server counted is one of ours, warm-up included; and the texts of the
    replies have, by the model's tokenizer, the tokens that the server says.
    """
    harness(*command_against(server, tmp_path), cwd=tmp_path)
    results = results_in(tmp_path)
    ((_, facts),) = results.facts.items()
    entries = {entry["what"]: entry for entry in facts["books"]}
    for what, each in (("output tokens", 16), ("prompt tokens", 20)):
        entry = entries[what]
        assert entry["server"] >= 20 * each
        assert entry["difference_share"] == 0
    ((_, validity),) = results.validity.items()
    assert "books" not in {reason.code for reason in validity.reasons}
    assert facts["tokens"]["text"]["replies"] == facts["statuses"]["ok"]
    assert facts["tokens"]["text"]["worst_share"] == 0
    assert facts["tokens"]["length_fidelity"]["share"] == 1


def test_another_client_is_noticed(server: str, tmp_path: Path) -> None:
    """Its tokens are in the server's counter and not in ours."""
    go_on = tmp_path / "go-on"
    with (
        Relay(int(server.rpartition(":")[2]), 5, go_on) as relay,
        running(*command_against(relay.url, tmp_path), cwd=tmp_path) as process,
    ):
        wait_until(reached(go_on).exists, process)
        assert others_tokens(server, 60) == 60
        go_on.touch()
        process.communicate(timeout=120)
    results = results_in(tmp_path)
    ((_, facts),) = results.facts.items()
    entry = next(entry for entry in facts["books"] if entry["what"] == "output tokens")
    assert entry["server"] - entry["client_most"] == 60
    ((_, validity),) = results.validity.items()
    assert any("the server counted" in reason.sentence for reason in validity.reasons if reason.code == "books")
