"""The http engine: finds out what a server serves, and says in a sentence what is wrong with it."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engines.base import EngineError, EngineInfo, EngineSpec, ModelReference, StartFailed
from engines.http.engine import HttpEngine
from engines.process.server import ServerCommand, ServerProcess

pytestmark = pytest.mark.slow

PROGRAM = f"{sys.executable} {Path(__file__).parents[1].joinpath('tiny_server.py')} {{port}}"


@contextmanager
def running(arguments: str = "--models served") -> Iterator[str]:
    """A server that somebody else runs; its base address."""
    server = ServerProcess(ServerCommand(f"{PROGRAM} {arguments}", log_path=None))
    asyncio.run(server.start())
    try:
        yield server.url
    finally:
        asyncio.run(server.stop())


def started(model: str | None = None, **options: Any) -> tuple[EngineInfo, HttpEngine]:
    """An engine that was started against a server, and what it said."""
    engine = HttpEngine(EngineSpec("http", ModelReference(model) if model else None, options=options))
    return asyncio.run(engine.start()), engine


def test_a_running_server_reports_model_and_version() -> None:
    """The only model it serves is used; what cannot be known stays None."""
    with running() as url:
        info, engine = started(url=url + "/v1/")
    assert (info.model, info.version, info.context_tokens) == ("served", "9.9.9", 2048)
    assert (info.level, info.model_hash, info.weight_bytes, list(info.pids)) == (None, None, None, [])
    endpoint = engine.endpoint()
    assert (endpoint.url, endpoint.dialect, endpoint.model) == (url, "openai-completions", "served")
    assert engine.alive() is None


@pytest.mark.parametrize(
    ("owner", "route", "done", "asked"),
    [
        ("vllm", "/reset_prefix_cache", True, ["/reset_prefix_cache"]),
        ("vllm", None, False, ["/reset_prefix_cache"]),
        ("sglang", "/flush_cache", True, ["/flush_cache"]),
        ("somebody", "/flush_cache", None, []),
        (None, None, None, []),
    ],
)
def test_a_cache_is_dropped_where_there_is_a_route(
    owner: str | None, route: str | None, done: bool | None, asked: list[str]
) -> None:
    """vLLM's, in its development mode, and SGLang's; nobody else is sent what he may not understand."""
    arguments = "--models served" + (f" --owner {owner}" if owner else "") + (f" --reset {route}" if route else "")
    with running(arguments) as url:
        _, engine = started(url=url)
        assert asyncio.run(engine.reset_cache()) is done
        with urllib.request.urlopen(url + "/resets") as page:
            assert json.load(page)["resets"] == asked


@pytest.mark.parametrize(
    ("models", "model", "options", "sentence"),
    [
        ("a,b", None, {}, "serves 'a', 'b'; set served_model to one of them"),
        (
            "lama-3,other",
            "llama-3",
            {},
            "does not serve 'llama-3'; set served_model to one that it serves, such as 'lama-3'",
        ),
    ],
)
def test_a_wrong_model_is_refused(models: str, model: str | None, options: dict[str, Any], sentence: str) -> None:
    """The sentence lists what is served, nearest first."""
    with running(f"--models {models}") as url, pytest.raises(StartFailed) as caught:
        started(model, url=url, **options)
    assert str(caught.value) == f"the server at {url} {sentence}"


@pytest.mark.parametrize(("served", "model"), [("org/tiny", "org/tiny"), ("/models/Tiny.gguf", "tiny.gguf")])
def test_the_scenarios_model_is_recognised(served: str, model: str) -> None:
    """The model matches by its name or by its file's name."""
    with running(f"--models other,{served}") as url:
        assert started(model, url=url)[0].model == served


def test_a_server_without_a_list_gets_the_scenarios_name() -> None:
    """Requests name the model as the scenario does if /v1/models is missing."""
    with running("") as url:
        info, engine = started("mine", url=url)
    assert (info.model, engine.endpoint().model, info.context_tokens) == ("mine", "mine", None)


@pytest.mark.parametrize("status", [200, 405])
def test_a_server_that_refuses_its_list_can_be_measured_under_a_stated_name(status: int) -> None:
    """Some servers answer `ok` or 405; without `served_model` the sentence names both ways out."""
    with running(f"--no-list {status}") as url:
        info, engine = started(url=url, served_model="mine")
        assert (info.model, engine.endpoint().model) == ("mine", "mine")
        with pytest.raises(StartFailed) as caught:
            started(url=url)
    assert str(caught.value) == (
        f"{url}/v1/models did not list its models (status {status}); set url to the base address of the API, or name "
        "its model in served_model if it has no list"
    )


def test_a_page_instead_of_an_api_is_recognised() -> None:
    """HTML means that the address is wrong."""
    with running("--html") as url, pytest.raises(StartFailed) as caught:
        started(url=url)
    assert str(caught.value) == f"{url}/v1/models answered with an HTML page; set url to the base address of the API"


def test_the_dialect_of_our_server_may_be_wrong(tmp_path: Path) -> None:
    """The advice names the dialect, for there is no url to correct."""

    async def body() -> None:
        options = {"command": f"{PROGRAM} --html", "ready": {"path": "/v1/models"}}
        engine = HttpEngine(EngineSpec("http", options=options, log_path=tmp_path / "log"))
        try:
            await engine.start()
        finally:
            await engine.stop()

    with pytest.raises(StartFailed) as caught:
        asyncio.run(body())
    assert "check the dialect of the server that command starts" in str(caught.value)
    assert "set url" not in str(caught.value)


def test_keys_are_sent_and_never_shown() -> None:
    """A server with a key answers with it and refuses without; neither error nor repr holds it."""
    with running("--models served --key s3cret") as url:
        spec = EngineSpec("http", options={"url": url}, api_key="s3cret", headers={"X-Tenant": "t"})
        engine = HttpEngine(spec)
        info = asyncio.run(engine.start())
        with pytest.raises(
            StartFailed, match=r"refused the API key \(status 401\); name the variable of a valid one in api_key_env"
        ):
            started(url=url)
    endpoint = engine.endpoint()
    assert endpoint.headers == {"X-Tenant": "t", "Authorization": "Bearer s3cret"}
    assert "s3cret" not in repr((spec, info, endpoint))


def test_a_missing_server_is_a_sentence() -> None:
    """A refused connection names the address and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # it does not listen, and nobody else can
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartFailed, match=f"no server answers at {url}/v1/models: .*; start it, or correct url"):
            started(url=url)
        with pytest.raises(StartFailed, match=f"{url}/health did not answer 200 within 0.2 s: no server answers"):
            started(url=url, ready={"path": "/health", "timeout_s": 0.2})


def test_an_untrusted_certificate_is_a_sentence(tmp_path: Path) -> None:
    """A certificate that nobody vouches for is told as such, with the way out."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made = subprocess.run([*command, "-keyout", key, "-out", certificate], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("openssl is missing, which makes the certificate")

    async def body() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            await HttpEngine(EngineSpec("http", options={"url": f"https://127.0.0.1:{port}"})).start()

    with pytest.raises(
        StartFailed,
        match=r"no secure connection to https://127.0.0.1.*name its authority.s file under `tls: {ca: file}`",
    ):
        asyncio.run(body())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "options of engine 'http': write either url (a running server) or command (to start one)"),
        ({"url": "http://x", "command": "y {port}"}, "options of engine 'http': write either url"),
        (
            {"url": "http://x", "dialect": "openai-chats"},
            "options of engine 'http': there is no dialect 'openai-chats'; did",
        ),
        (
            {"url": "http://x", "srved_model": "y"},
            "engine 'http' has no option 'srved_model'; did you mean 'served_model'?",
        ),
        ({"url": "http://x", "ready": {"pth": "/"}}, "options of engine 'http': ready is written {path: /health"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    """The option is named, and what to write instead."""
    with pytest.raises(EngineError) as caught:
        HttpEngine(EngineSpec("http", options=options))
    assert str(caught.value).startswith(sentence)


def test_a_server_that_still_loads_is_waited_for(tmp_path: Path) -> None:
    """Our own server's 503 means loading if no page shows readiness; an external server's is a refusal."""
    command = f"{PROGRAM} --models served --loading 3"

    async def body() -> str | None:
        engine = HttpEngine(EngineSpec("http", options={"command": command}, log_path=tmp_path / "log"))
        info = await engine.start()
        await engine.stop()
        return info.model

    assert asyncio.run(body()) == "served"
    with running("--models served --loading 3") as url, pytest.raises(StartFailed, match=r"\(status 503\)"):
        started(url=url)


def test_a_command_is_started_and_ended(tmp_path: Path) -> None:
    """The engine owns the process: its pids are told, its end is noticed, and stop() leaves nothing."""
    options = {"command": PROGRAM + " --models {model}", "ready": {"path": "/health"}}

    async def body() -> None:
        engine = HttpEngine(EngineSpec("http", ModelReference("mine"), options=options, log_path=tmp_path / "log"))
        info = await engine.start()
        assert len(info.pids) == 1
        assert (info.model, engine.alive()) == ("mine", None)
        assert engine.endpoint().url == info.options["url"]
        await engine.stop()
        await engine.stop()
        assert engine.alive() == "the server was not started"
        with pytest.raises(EngineError, match="is not running"):
            engine.endpoint()

    asyncio.run(body())


@pytest.mark.parametrize(
    ("arguments", "doubt"),
    [
        ("--models other,another", "lists 'other', 'another'"),
        ("--models x --key sesame", "/v1/models refused the API key (status 401)"),
        ("--models x --html", "/v1/models answered with an HTML page"),
        ("--no-list 500", "/v1/models did not list its models (status 500)"),
        ("--no-list 200", "/v1/models did not list its models (status 200)"),
    ],
)
def test_a_stated_model_is_believed_whatever_the_list_says(arguments: str, doubt: str) -> None:
    """Routers have aliases and wildcards that they do not list, and some give no list to a key. A note says so."""
    with running(arguments) as url:
        info, _ = started(url=url, served_model="x")
    assert info.model == "x"
    (note,) = info.notes
    assert note.startswith("served_model 'x' is sent as written, though http://127.0.0.1:")
    assert note.endswith(doubt)


@pytest.mark.parametrize("arguments", ["--models x,y", "--no-list 404"])
def test_a_stated_model_that_is_listed_or_cannot_be_needs_no_note(arguments: str) -> None:
    """Where there is no list, none is missed."""
    with running(arguments) as url:
        assert started(url=url, served_model="x")[0].notes == ()


def test_a_model_without_its_tag_is_the_latest_one() -> None:
    """As Ollama lists and serves it: nothing is doubted."""
    with running("--models llama3.2:latest") as url:
        info, engine = started(url=url, served_model="llama3.2")
    assert engine.endpoint().model == "llama3.2"
    assert list(info.notes) == []
