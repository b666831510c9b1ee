"""Whom TLS trusts: a private authority, names, dates, and certificates of ours."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from engines.base import Endpoint, EngineError, EngineSpec, StartFailed
from engines.http.addresses import tls_context
from engines.http.engine import HttpEngine
from harness.records import Record, Status
from tests.authority import Authority, locked, needs_openssl
from tests.harness.drivers.test_ways import Forwarder, forwarding
from tests.scripted_server import Call, measure, open_plan, serving

pytestmark = [needs_openssl, pytest.mark.slow]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that servers and clients of these tests have their certificates from."""
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one."""
    return Authority(tmp_path_factory.mktemp("theirs"), "other")


async def good(call: Call) -> None:
    """A good reply."""
    await call.good()


def secured(
    server_files: tuple[Path, Path],
    tls: Mapping[str, object],
    *,
    url: str = "https://localhost:{port}",
    clients: Path | None = None,
    through: Forwarder | None = None,
) -> list[Record]:
    """The records of two requests. clients: the authority from which clients must have a certificate."""

    async def main() -> list[Record]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
        context.load_cert_chain(*server_files)
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        proxy = through or Forwarder({})
        async with serving(good, tls=context) as server, forwarding(proxy):
            proxy.names = {**proxy.names, f"localhost:{server.port}": server.port}
            target = Endpoint(
                url.format(port=server.port),
                "openai-completions",
                tls={name: str(path) for name, path in tls.items()},
                proxy=None if through is None else f"http://127.0.0.1:{proxy.port}",
            )
            return (await measure(target, open_plan([0, 10])))[0]

    return asyncio.run(main())


def test_a_private_authority(ours: Authority) -> None:
    """A server whose authority the scenario names is measured as without TLS, its stamps the kernel's."""
    records = secured(ours.signed("server"), {"ca": ours.file})
    assert [(record.status, record.text, record.clock) for record in records] == [(Status.OK, " a b", "kernel")] * 2
    assert records[1].connection_reused


def test_a_tunnel_through_a_proxy(ours: Authority) -> None:
    """A proxy is asked for a tunnel, in which the server is verified as without one."""
    proxy = Forwarder({})
    records = secured(ours.signed("server"), {"ca": ours.file}, through=proxy)
    assert [(record.status, record.text) for record in records] == [(Status.OK, " a b")] * 2
    assert all(head.startswith(b"CONNECT localhost:") for head in proxy.heads)
    refused = Forwarder({}, b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno")
    for record in secured(ours.signed("server"), {"ca": ours.file}, through=refused):
        assert record.status == Status.CONNECTION_ERROR
        assert "opens no tunnel to localhost:" in (record.error or "")
        assert "(HTTP 403 Forbidden)" in (record.error or "")
    for nonsense in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nalready", b"", b"x" * 70_000):
        for record in secured(ours.signed("server"), {"ca": ours.file}, through=Forwarder({}, nonsense)):
            assert record.status == Status.CONNECTION_ERROR


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("wrong authority", "cannot be trusted: .*; name its authority's file under `tls: {ca: file}`"),
        ("wrong name", "cannot be trusted: .*not valid for 'localhost'; write the certificate's host name in url"),
        ("expired", "cannot be trusted: .*expired; renew it, or set this machine's clock"),
    ],
)
def test_a_server_that_is_not_to_be_trusted(ours: Authority, theirs: Authority, case: str, sentence: str) -> None:
    """No request is sent; each row, and a start, has one sentence with the fix."""
    files = ours.signed(case.replace(" ", "-"), "DNS:other.test" if case == "wrong name" else "DNS:localhost",
                        expired=case == "expired")  # fmt: skip
    ca = theirs.file if case == "wrong authority" else ours.file
    for record in secured(files, {"ca": ca}):
        assert record.status == Status.CONNECTION_ERROR
        assert re.search(sentence, record.error or "")

    async def start() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*files)
        async with serving(good, tls=context) as server:
            options = {"url": f"https://localhost:{server.port}", "tls": {"ca": str(ca)}}
            await HttpEngine(EngineSpec("http", options=options)).start()

    with pytest.raises(StartFailed, match=sentence):
        asyncio.run(start())


def asked_for_a_certificate(server_files: tuple[Path, Path], tls: Mapping[str, object], clients: Path) -> Record:
    """The record of a request to a server that tells what it wants; asyncio's own would hang up in silence."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients)
    context.load_cert_chain(*server_files)
    context.verify_mode = ssl.CERT_REQUIRED

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                with context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False) as secured_one:
                    with contextlib.suppress(ssl.SSLError):
                        secured_one.do_handshake()
                    while socket.socket.recv(secured_one, 65_536):  # or a reset would overtake what was told
                        continue

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        files = {name: str(path) for name, path in tls.items()}
        target = Endpoint(f"https://localhost:{listening.getsockname()[1]}", "openai-completions", tls=files)
        (record,), _ = asyncio.run(measure(target, open_plan([0]), warm_connections=0))
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    return record


def test_our_certificate(ours: Authority, theirs: Authority) -> None:
    """A server that asks for a certificate gets ours; without one, or with a stranger's, there is a sentence."""
    server, (certificate, key) = ours.signed("server"), ours.signed("client")
    files = {"ca": ours.file, "cert": certificate, "key": key}
    assert [record.status for record in secured(server, files, clients=ours.file)] == [Status.OK] * 2
    both = certificate.with_name("both.pem")
    both.write_text(certificate.read_text() + key.read_text())
    assert secured(server, {"ca": ours.file, "cert": both}, clients=ours.file)[0].status == Status.OK
    record = asked_for_a_certificate(server, {"ca": ours.file}, ours.file)
    assert record.status == Status.CONNECTION_ERROR
    assert "requires a client certificate; name yours under `tls: {cert: file, key: file}`" in (record.error or "")
    stranger, strangers_key = theirs.signed("stranger")
    files = {"ca": ours.file, "cert": stranger, "key": strangers_key}
    record = asked_for_a_certificate(server, files, ours.file)
    assert record.status == Status.CONNECTION_ERROR
    assert "does not accept our certificate" in (record.error or "")


def test_files_of_no_use(ours: Authority, tmp_path: Path) -> None:
    """Each is named, and nothing asks for a password on the terminal."""
    certificate, key = ours.signed("client")
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for files, sentence in (
        ({"ca": tmp_path / "gone.pem"}, "tls names .*gone.pem, which is not a file"),
        ({"ca": nothing}, "tls.ca: .*nothing.pem holds no certificate"),
        ({"cert": nothing}, "tls.cert: .*nothing.pem hold no certificate with its key"),
        ({"cert": certificate}, "tls.cert: .*client.pem hold no certificate with its key"),
        ({"cert": certificate, "key": ours.signed("server")[1]}, "key values mismatch"),
        ({"cert": certificate, "key": locked(key)}, "the key is locked by a password"),
    ):
        with pytest.raises(EngineError, match=sentence):
            tls_context({name: str(path) for name, path in files.items()})
