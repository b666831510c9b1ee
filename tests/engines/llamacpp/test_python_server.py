"""llama-cpp-python's own server, started for real on the built-in model."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import needs
import pytest

from engines import dialects
from engines.base import EngineError, EngineInfo, EngineSpec, ModelReference, Request, StartFailed, collect
from engines.llamacpp.embedded import LlamaCpp
from engines.llamacpp.python_server import LlamaCppServer
from engines.models.source import resolve

PROMPT = "It is a truth universally acknowledged, that"

pytestmark = [pytest.mark.engines, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _installed() -> None:
    needs.library("llama_cpp")


def _spec(tmp_path: Path, level: str = "q8_0", **options: Any) -> EngineSpec:
    given = {"n_ctx": 256, **options}
    return EngineSpec("llama-cpp-server", ModelReference("tiny"), level, given, log_path=tmp_path / "engine.log")


@asynccontextmanager
async def _running(spec: EngineSpec) -> AsyncIterator[tuple[LlamaCppServer, EngineInfo]]:
    engine = LlamaCppServer(spec)
    try:
        yield engine, await engine.start()
    finally:
        await engine.stop()


def _ask(url: str, **body: Any) -> tuple[int, str]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.status, response.read().decode()
    connection.close()
    return answer


def test_it_is_ready_when_started_and_reports_the_model(tmp_path: Path) -> None:
    """Version, level, device and buffers; it takes the exact number of tokens as `min_tokens`."""

    async def main() -> None:
        async with _running(_spec(tmp_path, cache_type_k="f32", cache_type_v="f32")) as (engine, info):
            assert (info.name, info.model, info.level) == ("llama-cpp-server", "tiny", "q8_0")
            assert info.version == info.libraries["llama-cpp-python"]
            assert (info.device, info.kv_bytes_per_token) == ("cpu", 4096)
            assert info.memory["kv_cache"] == 256 * 4096
            url = engine.endpoint().url
            body = {"prompt": PROMPT, "max_tokens": 20, "min_tokens": 20, "ignore_eos": True, "temperature": 0}
            status, text = await asyncio.to_thread(_ask, url, **body)
            assert status == 200
            assert json.loads(text)["usage"]["completion_tokens"] == 20

    asyncio.run(main())


def test_a_new_request_does_not_cut_off_another(tmp_path: Path) -> None:
    """Requests are generated one at a time, each to its end."""

    async def main() -> None:
        async with _running(_spec(tmp_path)) as (engine, _):
            url = engine.endpoint().url
            body = {"prompt": PROMPT, "max_tokens": 100, "min_tokens": 100, "temperature": 0, "stream": True}
            answers = await asyncio.gather(*(asyncio.to_thread(_ask, url, **body) for _ in range(3)))
            for status, text in answers:
                assert status == 200
                assert '"finish_reason": "length"' in text
                assert text.rstrip().endswith("data: [DONE]")

    asyncio.run(main())


def test_an_invalid_request_has_its_own_answer(tmp_path: Path) -> None:
    """Token ids and prompts beyond the context are refused; a reply ends where the context does."""

    async def main() -> None:
        async with _running(_spec(tmp_path)) as (engine, _):
            url = engine.endpoint().url
            status, text = await asyncio.to_thread(_ask, url, prompt=list(PROMPT.encode()), max_tokens=2)
            assert (status, "valid string" in text) == (500, True)
            status, text = await asyncio.to_thread(_ask, url, prompt="a" * 300, max_tokens=2)
            assert (status, "context_length_exceeded" in text) == (400, True)
            status, text = await asyncio.to_thread(_ask, url, prompt=PROMPT, max_tokens=300, min_tokens=300)
            assert (status, json.loads(text)["choices"][0]["finish_reason"]) == (200, "length")
            assert json.loads(text)["usage"]["completion_tokens"] == 256 - len(PROMPT)

    asyncio.run(main())


def test_states_end_with_it(tmp_path: Path) -> None:
    """Before, during and after."""

    async def main() -> None:
        engine = LlamaCppServer(_spec(tmp_path))
        assert engine.alive() == "llama-cpp-server was not started"
        try:
            await engine.start()
            assert engine.alive() is None
            with pytest.raises(EngineError, match="started already"):
                await engine.start()
        finally:
            await engine.stop()
        assert engine.alive() == "llama-cpp-server was stopped"
        with pytest.raises(EngineError, match="is not running"):
            engine.endpoint()

    asyncio.run(main())


def test_a_python_without_the_library_is_refused(tmp_path: Path) -> None:
    """The sentence says what to install where."""
    spec = EngineSpec("llama-cpp-server", ModelReference("tiny"), "q8_0", python="/no/such/python")
    with pytest.raises(StartFailed, match="llama_cpp, which is not installed in the environment of /no/such/python"):
        asyncio.run(LlamaCppServer(spec).start())


def _completed(engine: LlamaCppServer, request: Request) -> dict[str, Any]:
    """Return the server's answer to a request."""
    endpoint = engine.endpoint()
    wire = dialects.of(endpoint).encode(request, endpoint.model)
    status, text = _ask(endpoint.url, **json.loads(wire.body))
    assert status == 200, text
    answer: dict[str, Any] = json.loads(text)
    return answer


def test_it_draws_as_the_library_does_in_this_process(tmp_path: Path) -> None:
    """The server's default repetition penalty is off, as in every other engine."""
    request = Request(PROMPT, 120, stream=False)

    async def main() -> tuple[str, str, str]:
        in_process = LlamaCpp(replace(_spec(tmp_path, "f32"), engine="llama-cpp"))
        await in_process.start()
        here = "".join(chunk.text for chunk in await collect(in_process.generate(request)))
        await in_process.stop()
        async with _running(_spec(tmp_path, "f32")) as (engine, _):
            there = await asyncio.to_thread(_completed, engine, request)
            body = {"prompt": PROMPT, "max_tokens": 120, "temperature": 0}
            _, plain = await asyncio.to_thread(_ask, engine.endpoint().url, **body)
        return here, there["choices"][0]["text"], json.loads(plain)["choices"][0]["text"]

    here, there, by_its_own_defaults = asyncio.run(main())
    assert there == here
    assert by_its_own_defaults != here


def test_exact_lengths_forbid_every_token_that_ends_a_reply(tmp_path: Path) -> None:
    """The server's `min_tokens` forbids one; in this model a space ends replies too."""
    folder = tmp_path / "model"
    shutil.copytree(resolve(ModelReference("tiny")).path, folder)
    said = json.loads((folder / "generation_config.json").read_text())
    said["eos_token_id"] = [said["eos_token_id"], ord(" ")]
    (folder / "generation_config.json").write_text(json.dumps(said))

    async def main() -> list[tuple[int, str]]:
        async with _running(replace(_spec(tmp_path), model=ModelReference(str(folder)))) as (engine, _):
            found = []
            for exact in (False, True):
                answer = await asyncio.to_thread(_completed, engine, Request(PROMPT, 40, exact=exact, stream=False))
                found.append((answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]))
            return found

    (free, why), pinned = asyncio.run(main())
    assert free < 20
    assert why == "stop"
    assert pinned == (40, "length")
