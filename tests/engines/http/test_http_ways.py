"""The http engine asks a server what it is on the way that requests will take."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from engines.base import EngineSpec, StartFailed
from engines.http.addresses import Address, proxy_for
from engines.http.engine import HttpEngine
from engines.process.server import ServerCommand, ServerProcess
from tests.authority import Authority, needs_openssl
from tests.harness.drivers.test_ways import Forwarder, forwarding

pytestmark = pytest.mark.slow

PROGRAM = f"{sys.executable} {Path(__file__).parents[1].joinpath('tiny_server.py')} {{port}} --models m"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove all proxies from the environment."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def model_through(forwarder: Forwarder, url: str, monkeypatch: pytest.MonkeyPatch, *more: str, **options: Any) -> Any:
    """The model that a server behind a proxy tells."""

    async def main() -> Any:
        server = ServerProcess(ServerCommand(f"{PROGRAM} {' '.join(more)}"))
        await server.start()
        forwarder.names = {"model.test": server.port, "localhost:443": server.port}
        try:
            async with forwarding(forwarder):
                for name in ("HTTP_PROXY", "HTTPS_PROXY"):
                    monkeypatch.setenv(name, f"http://me:secret@127.0.0.1:{forwarder.port}")
                if "proxy" in options:
                    options["proxy"] = f"http://127.0.0.1:{forwarder.port}"
                engine = HttpEngine(EngineSpec("http", options={"url": url, **options}))
                return (await engine.start()).model
        finally:
            await server.stop()

    return asyncio.run(main())


def test_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """User and password are the proxy's, and in no sentence."""
    forwarder = Forwarder({})
    assert model_through(forwarder, "http://model.test/v1", monkeypatch) == "m"
    assert forwarder.heads[0].startswith(b"GET http://model.test/v1/models HTTP/1.1\r\n")
    assert b"\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n" in forwarder.heads[0]
    refused = Forwarder({}, b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
    with pytest.raises(
        StartFailed, match=r"the proxy opens no tunnel to https://model.test/v1/models \(HTTP 407"
    ) as told:
        model_through(refused, "https://model.test", monkeypatch)
    assert "secret" not in str(told.value)


@needs_openssl
def test_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server with a certificate from a private authority, through a proxy that the scenario names."""
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.signed("server")
    both = tmp_path / "both.pem"
    both.write_text(key.read_text() + certificate.read_text())
    forwarder = Forwarder({})
    tls = {"ca": str(authority.file)}
    told = model_through(
        forwarder, "https://localhost", monkeypatch, "--certificate", str(both), tls=tls, proxy="named below"
    )
    assert told == "m"
    assert forwarder.heads[0].startswith(b"CONNECT localhost:443 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("http://a.test", "", False),
        ("http://a.test", "b.test, a.test", True),
        ("http://x.a.test", ".a.test", True),
        ("http://x.a.test", "a.test", True),
        ("http://xa.test", "a.test", False),
        ("http://A.test", "a.TEST", True),
        ("http://a.test:81", "a.test:80", False),
        ("http://a.test", "a.test:80", True),
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://11.1.2.3", "10.0.0.0/8", False),
        ("http://[fd00::1]:8000", "fd00::/8", True),
        ("http://[fd00::1]:8000", "fd00::1", True),
        ("http://a.test", "*", True),
        ("http://127.0.0.1:8000", "", True),
        ("http://x.localhost:8000", "", True),
        ("http+unix:///x.sock", "", True),
    ],
)
def test_exceptions_from_the_proxy(monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, direct: bool) -> None:
    """NO_PROXY lists names with all below them, ports, addresses and networks; this machine needs no entry."""
    monkeypatch.setenv("HTTP_PROXY", "proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    proxy = proxy_for(Address.of(url))
    assert (proxy is None) == direct
    assert proxy is None or proxy.url == "http://proxy.test:3128"
