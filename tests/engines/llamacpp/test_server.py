"""The embedded engine, run for real on the built-in model."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from engines import engine_class
from engines.base import (
    EngineError,
    EngineInfo,
    EngineSpec,
    LevelUnsupported,
    ModelReference,
    Scores,
    ServedEngine,
    StartFailed,
)
from engines.llamacpp.server import LlamaServer
from tests.engines.lora_file import write_adapter

REPOSITORY = Path(__file__).resolve().parents[3]
PROMPT = "It is a truth universally acknowledged, that"


def _spec(tmp_path: Path, level: str | None = "q8_0", **options: Any) -> EngineSpec:
    return EngineSpec("llama-server", ModelReference("tiny"), level, options, log_path=tmp_path / "log" / "engine.log")


@asynccontextmanager
async def _running(spec: EngineSpec) -> AsyncIterator[tuple[LlamaServer, EngineInfo]]:
    engine = LlamaServer(spec)
    try:
        yield engine, await engine.start()
    finally:
        await engine.stop()


async def _generate(engine: LlamaServer, tokens: int, **changes: Any) -> tuple[list[str], dict[str, Any]]:
    return await asyncio.to_thread(_stream, engine.endpoint().url, tokens, changes)


def _stream(url: str, tokens: int, changes: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """(texts of the chunks, usage) of one streamed completion."""
    body = {"prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    body |= {"stream_options": {"include_usage": True}} | changes
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    texts = [event["choices"][0]["text"] for event in events if event["choices"]]
    usage = next(event["usage"] for event in reversed(events) if event.get("usage"))
    return [text for text in texts if text], usage


def test_the_engine_is_in_the_table() -> None:
    """The name in the table leads to a served engine with all levels."""
    engine = engine_class("llama-server")(EngineSpec("llama-server", ModelReference("tiny")))
    assert isinstance(engine, ServedEngine)
    assert {"f32", "bf16", "q8_0", "q4_k_m", "q2_k"} <= set(engine.levels())


@pytest.mark.slow
@pytest.mark.parametrize("level", ["f16", "q4_k_m"])
def test_greedy_text_is_the_same_after_another_start(tmp_path: Path, level: str) -> None:
    """Repeated starts at a level give the same plausible text, one chunk per token, of the exact length."""

    async def once() -> tuple[list[str], dict[str, Any], EngineInfo]:
        async with _running(_spec(tmp_path, level)) as (engine, info):
            return *(await _generate(engine, 48)), info

    first, usage, info = asyncio.run(once())
    second, _, _ = asyncio.run(once())
    assert first == second
    assert (len(first), usage["completion_tokens"], usage["prompt_tokens"]) == (48, 48, len(PROMPT))
    words = "".join(first).split()
    assert sum(word.strip(',.;"').isalpha() for word in words) >= 0.8 * len(words) > 4
    assert info.level == level


@pytest.mark.slow
def test_information_describes_the_loaded_model(tmp_path: Path) -> None:
    """Version, model, level, sizes and options are those of the running server."""

    async def scenario() -> None:
        async with _running(_spec(tmp_path, "q8_0", n_parallel=2, n_ctx=512)) as (engine, info):
            assert (info.name, info.model, info.level, info.context_tokens) == ("llama-server", "tiny", "q8_0", 512)
            assert info.version == info.libraries["xllamacpp"]
            assert info.weight_bytes is not None
            assert 3_000_000 < info.weight_bytes < 4_000_000
            assert len(info.model_hash or "") == 64
            assert (info.options["n_parallel"], info.options["n_batch"]) == (2, 2048)
            assert psutil.pid_exists(info.pids[0])
            assert engine.endpoint().dialect == "openai-completions"
            assert engine.alive() is None
            assert await engine.tokenize("caf\u00e9") == list("caf\u00e9".encode())
            with pytest.raises(EngineError, match="started already"):
                await engine.start()

    asyncio.run(scenario())


@pytest.mark.slow
def test_buffers_and_device_are_read_from_its_log(tmp_path: Path) -> None:
    """All slots' caches together; once loaded it writes warnings alone."""

    async def scenario() -> EngineInfo:
        async with _running(_spec(tmp_path, "f32", n_parallel=2, n_ctx=512)) as (engine, info):
            written = (tmp_path / "log" / "engine.log").stat().st_size
            await _generate(engine, 4)
            assert (tmp_path / "log" / "engine.log").stat().st_size - written < 500
            estimate = engine.memory_needed()
            assert estimate is not None
            assert estimate.parts["kv_cache"] == info.memory["kv_cache"]
            return info

    info = asyncio.run(scenario())
    assert (info.device, info.parameters, info.kv_bytes_per_token) == ("cpu", 3_214_080, 2048)
    assert info.memory["kv_cache"] == 2 * 512 * 2048
    assert info.weight_bytes is not None
    assert 0.9 < info.memory["weights"] / info.weight_bytes < 1.1
    assert info.memory["runtime"] > 0


@pytest.mark.slow
def test_grammar_and_adapter_hold_for_every_request(tmp_path: Path) -> None:
    """A grammar says what comes; an adapter changes it."""

    async def said(spec: EngineSpec, **changes: Any) -> str:
        async with _running(spec) as (engine, _):
            return "".join((await _generate(engine, 12, **changes))[0])

    plain = asyncio.run(said(_spec(tmp_path)))
    assert asyncio.run(said(_spec(tmp_path, grammar='root ::= "yes"'), ignore_eos=False)) == "yes"
    adapter = write_adapter(tmp_path / "adapter.gguf")
    spec = EngineSpec("llama-server", ModelReference("tiny", lora=str(adapter)), "q8_0", log_path=tmp_path / "log.txt")
    assert asyncio.run(said(spec)) != plain


@pytest.mark.slow
def test_without_continuous_batching_it_serves_too(tmp_path: Path) -> None:
    """Slots are filled and emptied together; every request is answered whole."""

    async def scenario() -> list[int]:
        async with _running(_spec(tmp_path, cont_batching=False, n_parallel=2)) as (engine, _):
            replies = await asyncio.gather(*(_generate(engine, 8) for _ in range(4)))
            return [len(texts) for texts, _ in replies]

    assert asyncio.run(scenario()) == [8] * 4


@pytest.mark.slow
def test_scores_are_whole_distributions(tmp_path: Path) -> None:
    """A small vocabulary like tiny's is scored whole, before any sampling."""

    async def scenario() -> Scores:
        async with _running(_spec(tmp_path, n_ctx=256)) as (engine, _):
            with pytest.raises(EngineError, match="300 tokens are more than the context of 256"):
                await engine.score([1] * 300, 1)
            return await engine.score(list(PROMPT.encode()), 2)

    scores = asyncio.run(scenario())
    assert scores.tokens is None
    assert scores.logprobs.shape == (len(PROMPT) - 2, 258)
    np.testing.assert_allclose(np.exp(scores.logprobs.astype(float)).sum(axis=1), 1, atol=1e-4)
    np.testing.assert_array_equal(
        scores.true_logprobs, scores.logprobs[np.arange(len(PROMPT) - 2), list(PROMPT.encode())[2:]]
    )


@pytest.mark.slow
def test_context_beyond_the_model_is_reported_as_the_server_has_it(tmp_path: Path) -> None:
    """A context larger than the model's is what the server makes of it, not what was asked for."""

    async def scenario() -> int | None:
        async with _running(_spec(tmp_path, n_ctx=4096, n_parallel=1)) as (_, info):
            return info.context_tokens

    assert asyncio.run(scenario()) == 1024


@pytest.mark.slow
def test_prefix_cache_can_be_turned_off(tmp_path: Path) -> None:
    """A repeated prompt comes from the cache by default, and never with prefix_cache off."""

    async def cached(prefix_cache: bool) -> int:
        async with _running(_spec(tmp_path, prefix_cache=prefix_cache)) as (engine, _):
            await _generate(engine, 2)
            _, usage = await _generate(engine, 2)
            return int(usage["prompt_tokens_details"]["cached_tokens"])

    assert asyncio.run(cached(True)) > 0
    assert asyncio.run(cached(False)) == 0


@pytest.mark.slow
def test_stop_leaves_no_process(tmp_path: Path) -> None:
    """After stop, once or twice, the process is gone and the engine says so."""

    async def scenario() -> int:
        engine = LlamaServer(_spec(tmp_path))
        assert engine.alive() == "llama-server was not started"
        info = await engine.start()
        await engine.stop()
        await engine.stop()
        assert engine.alive() == "llama-server was stopped"
        with pytest.raises(EngineError, match="is not running"):
            engine.endpoint()
        return info.pids[0]

    assert not psutil.pid_exists(asyncio.run(scenario()))


@pytest.mark.slow
def test_killed_process_is_noticed(tmp_path: Path) -> None:
    """When the process is killed, alive() names the signal."""

    async def scenario() -> str | None:
        async with _running(_spec(tmp_path)) as (engine, info):
            os.kill(info.pids[0], signal.SIGKILL)
            async with asyncio.timeout(60):
                while (said := engine.alive()) is None:
                    await asyncio.sleep(0.01)
            return said

    said = asyncio.run(scenario())
    assert said is not None
    assert said.startswith("llama-server (process ")
    assert said.endswith(") was killed by SIGKILL")


@pytest.mark.slow
def test_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A parent that is killed takes its server with it."""
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from engines.base import EngineSpec, ModelReference\n"
        "from engines.llamacpp.server import LlamaServer\n"
        "spec = EngineSpec('llama-server', ModelReference('tiny'), 'q8_0', log_path=Path(sys.argv[1]))\n"
        "async def scenario():\n"
        "    print((await LlamaServer(spec).start()).pids[0], flush=True)\n"
        "    await asyncio.to_thread(sys.stdin.read)\n"
        "asyncio.run(scenario())"
    )
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")], env=environment, stdin=pipe, stdout=pipe
    )
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs([server], timeout=60)[1] == []


@pytest.mark.slow
def test_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    """A port that somebody else has is named, and nothing is left running."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        engine = LlamaServer(_spec(tmp_path, port=port))
        with pytest.raises(StartFailed, match=f"^port {port} is in use; name another port, or none"):
            asyncio.run(_start_and_stop(engine))
    assert engine.alive() == "llama-server was not started"


async def _start_and_stop(engine: LlamaServer) -> None:
    try:
        await engine.start()
    finally:
        await engine.stop()


@pytest.mark.slow
def test_an_invalid_model_quotes_the_server(tmp_path: Path) -> None:
    """The sentence quotes the server's last line about the broken model."""
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "empty.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    spec = EngineSpec("llama-server", ModelReference(str(tmp_path / "empty.gguf")), log_path=tmp_path / "log")
    with pytest.raises(StartFailed, match=r"exited with code 1, saying last: .*model") as caught:
        asyncio.run(_start_and_stop(LlamaServer(spec)))
    assert "\n" not in str(caught.value)


def test_time_out_and_missing_python_are_reported(tmp_path: Path) -> None:
    """A server that is not ready in time, and a python that does not exist, are one sentence each."""
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec cat > /dev/null\n")  # it reads its order, and never reports
    silent.chmod(0o755)
    late = replace(_spec(tmp_path, ready_timeout_s=0.05), python=str(silent))
    with pytest.raises(StartFailed, match=r"not ready within 0\.05 s; raise ready_timeout_s"):
        asyncio.run(_start_and_stop(LlamaServer(late)))
    spec = EngineSpec("llama-server", ModelReference("tiny"), "q8_0", python="/no/such/python")
    with pytest.raises(StartFailed, match="/no/such/python cannot be run: No such file"):
        asyncio.run(_start_and_stop(LlamaServer(spec)))


def test_python_without_xllamacpp_names_the_package(tmp_path: Path) -> None:
    """A python of the user's own that lacks the library is told what to install."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    spec = EngineSpec("llama-server", ModelReference("tiny"), "q8_0", python=str(python), log_path=tmp_path / "log")
    with pytest.raises(StartFailed, match="has no xllamacpp; install it there"):
        asyncio.run(_start_and_stop(LlamaServer(spec)))


def test_model_and_level_are_checked_before_anything_starts() -> None:
    """A missing model is an error, and a level of another engine is unsupported."""
    with pytest.raises(EngineError, match="needs a model"):
        LlamaServer(EngineSpec("llama-server"))
    with pytest.raises(LevelUnsupported, match="no level 'fp8'"):
        LlamaServer(EngineSpec("llama-server", ModelReference("tiny"), "fp8")).prepare()


@pytest.mark.slow
@pytest.mark.parametrize("level", LlamaServer.levels())
def test_every_level_loads_and_generates(tmp_path: Path, level: str) -> None:
    """The server loads every level and gives eight tokens."""

    async def scenario() -> tuple[list[str], str | None]:
        async with _running(_spec(tmp_path, level)) as (engine, info):
            return (await _generate(engine, 8))[0], info.level

    texts, found = asyncio.run(scenario())
    assert len(texts) == 8
    assert found == level
