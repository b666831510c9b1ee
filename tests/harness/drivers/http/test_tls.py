"""TLS around the same machine: trusted, not trusted, and not TLS at all."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engines.base import Endpoint
from harness.records import Record, Status
from tests.authority import NEW_KEY
from tests.scripted_server import Call, measure, open_plan, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate"),
]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of our own for localhost, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    names = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", *NEW_KEY, "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(names[0]), "-keyout", str(names[1])]
    subprocess.run(command, check=True, capture_output=True)
    return names


async def good(call: Call) -> None:
    """A good reply."""
    await call.good()


def over_tls(certificate: tuple[Path, Path], **tls: Any) -> list[Record]:
    """Two requests to a server with this certificate."""

    async def main() -> list[Record]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        async with serving(good, tls=context) as server:
            target = Endpoint(f"https://localhost:{server.port}", "openai-completions", tls=tls)
            return (await measure(target, open_plan([0, 100])))[0]

    return asyncio.run(main())


def test_a_trusted_server(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its authority named in SSL_CERT_FILE, a server is measured as without TLS."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    records = over_tls(certificate)
    assert [(record.status, record.text, record.error) for record in records] == [(Status.OK, " a b", None)] * 2


def test_an_unknown_authority(certificate: tuple[Path, Path]) -> None:
    """A certificate that nobody vouches for is a connection error with a sentence."""
    for record in over_tls(certificate):
        assert record.status == Status.CONNECTION_ERROR
        assert "cannot be trusted" in (record.error or "")


def test_a_certificate_that_is_not_to_be_checked(certificate: tuple[Path, Path]) -> None:
    """`verify: false` trusts anybody, also under another name than the certificate's."""
    records = over_tls(certificate, verify=False)
    assert [(record.status, record.text) for record in records] == [(Status.OK, " a b")] * 2


def test_a_server_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speaking https to an http server is a connection error, not a hang."""
    monkeypatch.setattr("harness.drivers.http.pool._PATIENCE_S", 0.1)

    async def main() -> list[Record]:
        async with serving(good) as server:
            target = Endpoint(f"https://127.0.0.1:{server.port}", "openai-completions")
            return (await measure(target, open_plan([0]), timeout_ms=200))[0]

    record = asyncio.run(main())[0]
    assert record.status in (Status.CONNECTION_ERROR, Status.TIMEOUT)
