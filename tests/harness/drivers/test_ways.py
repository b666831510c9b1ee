"""Every way to a server: IPv6, Unix sockets, proxies, several URLs, connections that the server closes when idle."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import socket
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from engines.base import Endpoint
from harness.drivers.base import DriveReport, DriveSettings
from harness.drivers.drive import drive
from harness.drivers.stub import LAST_CHUNK, STREAM_HEAD, chunk
from harness.errors import TrialFailed
from harness.records import Clock, Record, Status
from harness.schedule.requests import build
from tests.plans import load_of, workload_of
from tests.scripted_server import MS, Call, Plan, ScriptedServer, ending, measure, open_plan, piece, serving

pytestmark = pytest.mark.slow

Measured = tuple[list[Record], DriveReport, ScriptedServer]


async def good(call: Call) -> None:
    """A good reply."""
    await call.good()


def measured(script: Any, plan: Plan, url: str, where: Mapping[str, Any] | None = None, **more: Any) -> Measured:
    """Drive a plan against a scripted server; {port} in the URL is its port."""

    async def main() -> Measured:
        async with serving(script, **(where or {})) as server:
            target = Endpoint(url.format(port=server.port), "openai-completions", "stub", **more)
            records, report = await measure(target, plan)
            return records, report, server

    return asyncio.run(main())


def has_ipv6() -> bool:
    """Return True if this machine has an IPv6 loopback."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        return True
    return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
def test_ipv6() -> None:
    """An address in brackets is reached, named in the request, and stamped by the kernel."""
    records, _, server = measured(good, open_plan([0, 5]), "http://[::1]:{port}", {"host": "::1"})
    assert [record.status for record in records] == [Status.OK] * 2
    assert b"host: [::1]:%d\r\n" % server.port in server.calls[0].head
    assert {record.clock for record in records} == {Clock.KERNEL}


@pytest.mark.parametrize(("base", "target"), [("", b"/v1/completions"), (":/api/v1", b"/api/v1/completions")])
def test_a_unix_socket(tmp_path: Path, base: str, target: bytes) -> None:
    """The base path is used; arrivals are the loop's, with a note in the report."""
    path = tmp_path / "engine.sock"
    records, report, server = measured(good, open_plan([0, 5, 10]), f"http+unix://{path}{base}", {"path": str(path)})
    assert [(record.status, record.text) for record in records] == [(Status.OK, " a b")] * 3
    assert server.calls[0].head.startswith(b"POST " + target + b" HTTP/1.1\r\nhost: localhost\r\n")
    assert {record.clock for record in records} == {Clock.LOOP}
    assert all(record.chunk_lag_ns is None for record in records)
    assert [note for note in report.notes if "Unix socket" in note]


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, and one that nobody listens to, are rows with a sentence."""
    for present in (False, True):
        path = tmp_path / f"{present}.sock"
        if present:
            with socket.socket(socket.AF_UNIX) as left_behind:
                left_behind.bind(str(path))
        records, report = asyncio.run(measure(Endpoint(f"http+unix://{path}", "openai-completions"), open_plan([0, 5])))
        assert [record.status for record in records] == [Status.CONNECTION_ERROR] * 2
        assert all(str(path) in (record.error or "") for record in records)
        assert report.connect_errors >= 2


@dataclass
class Forwarder:
    """A proxy on loopback. names: where the hosts asked for really are.   refusal: what it answers instead."""

    names: Mapping[str, int]
    refusal: bytes | None = None
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: CONNECT, or requests in absolute form, of which the first is rewritten."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if self.refusal is not None:
                writer.write(self.refusal)
                return
            method, target, _ = head.split(b" ", 2)
            authority = target if method == b"CONNECT" else target.removeprefix(b"http://").split(b"/")[0]
            port = self.names[authority.decode()]
            there, to = await asyncio.open_connection("127.0.0.1", port)
            if method == b"CONNECT":
                for part in (b"HTTP/1.1 200 Connection", b" established\r\nvia: x\r\n", b"\r\n"):
                    writer.write(part)
                    await writer.drain()
            else:
                to.write(head.replace(b"http://" + authority, b"", 1))
            try:
                await asyncio.gather(_pump(reader, to), _pump(there, writer))
            finally:
                to.close()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # the client or the test has had enough
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def forwarding(forwarder: Forwarder) -> AsyncIterator[Forwarder]:
    """The proxy for the length of the block."""
    server = await asyncio.start_server(forwarder.serve, "127.0.0.1", 0)
    forwarder.port = server.sockets[0].getsockname()[1]
    try:
        yield forwarder
    finally:
        server.close()


PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the proxies that a test names."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def through(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], url: str, **more: Any) -> Any:
    """Records, report, proxy and server of two requests; {proxy} in the environment is the proxy's address."""
    refusal = more.pop("refusal", None)

    async def main() -> Any:
        async with serving(good) as server, forwarding(Forwarder({"model.test": server.port}, refusal)) as proxy:
            proxy.names = {**proxy.names, f"127.0.0.1:{server.port}": server.port}
            for name, value in environment.items():
                monkeypatch.setenv(name, value.format(proxy=f"127.0.0.1:{proxy.port}"))
            if "proxy" in more:
                more["proxy"] = more["proxy"].format(proxy=f"127.0.0.1:{proxy.port}")
            target = Endpoint(url.format(port=server.port), "openai-completions", "stub", **more)
            records, report = await measure(target, open_plan([0, 10]))
            return records, report, proxy, server

    return asyncio.run(main())


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_gets_requests_in_absolute_form(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The proxy resolves the name; user and password reach it, and are not stored."""
    records, report, proxy, server = through(monkeypatch, {name: "http://me:geh%40im@{proxy}"}, "http://model.test/v1")
    assert [(record.status, record.text) for record in records] == [(Status.OK, " a b")] * 2
    assert len(server.calls) == 2
    head = proxy.heads[0]
    assert head.startswith(b"POST http://model.test/v1/completions HTTP/1.1\r\nhost: model.test\r\n")
    assert b"proxy-authorization: Basic bWU6Z2VoQGlt\r\n" in head
    assert [note for note in report.notes if f"through the proxy http://127.0.0.1:{proxy.port} ({name})" in note]
    assert not [secret for secret in ("geh", "bWU6") if secret in repr((records, report))]


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy's message is the row's error, with its key masked."""
    body = b"who is bWU6Z2VoQGlt (geh@im)?"
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    records, _, _, _ = through(
        monkeypatch, {"HTTP_PROXY": "http://me:geh%40im@{proxy}"}, "http://model.test", refusal=refusal
    )
    assert [(record.status, record.http_status) for record in records] == [(Status.HTTP_ERROR, 407)] * 2
    assert all("who is *** (***)?" in (record.error or "") for record in records)


@pytest.mark.parametrize(
    ("environment", "more"),
    [
        ({}, {}),
        ({"HTTP_PROXY": "http://{proxy}"}, {}),
        ({"HTTP_PROXY": "http://{proxy}", "NO_PROXY": "*"}, {}),
        ({"HTTP_PROXY": "http://{proxy}"}, {"proxy": "none"}),
    ],
)
def test_this_machine_is_reached_directly(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], more: dict[str, Any]
) -> None:
    """Whatever the environment says, a loopback address needs no proxy."""
    records, report, proxy, _ = through(monkeypatch, environment, "http://127.0.0.1:{port}", **more)
    assert [record.status for record in records] == [Status.OK] * 2
    assert not proxy.heads
    assert not [note for note in report.notes if "proxy" in note]


def test_this_machine_through_a_requested_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the scenario names is used for every server."""
    records, _, proxy, _ = through(monkeypatch, {}, "http://127.0.0.1:{port}", proxy="http://{proxy}")
    assert [record.status for record in records] == [Status.OK] * 2
    assert proxy.heads


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1080", "https://127.0.0.1:3128", "http://:x"])
def test_a_proxy_of_no_use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The error is one sentence before any request, and does not repeat a possible password."""
    monkeypatch.setenv("HTTP_PROXY", url)
    settings = DriveSettings(1_000_000_000)
    with pytest.raises(TrialFailed, match=r"HTTP_PROXY: .* \(use http://host:port\)") as told:
        asyncio.run(drive(open_plan([0]), Endpoint("http://model.test", "openai-chat"), settings, lambda _: None))  # type: ignore[arg-type]
    assert url not in str(told.value)


def test_requests_go_round_several_urls() -> None:
    """Request i goes to URL i modulo their number, whatever became of the others, and its record names it."""

    async def main() -> tuple[list[Record], list[str], list[int]]:
        async with AsyncExitStack() as stack:
            servers = [ScriptedServer(good) for _ in range(2)]
            for server in servers:
                await server.start()
                stack.callback(server.kill)
            urls = [servers[0].endpoint.url, servers[1].endpoint.url, "http://127.0.0.1:9"]
            target = replace(servers[0].endpoint, others=urls[1:])
            records, _ = await measure(target, Plan(12, users=3))
            await asyncio.sleep(0)
            return records, urls, [len(server.calls) for server in servers]

    records, urls, served = asyncio.run(main())
    assert served == [4, 4]
    assert [record.backend for record in records] == [urls[record.request % 3] for record in records]
    for record in records:
        assert record.status == (Status.CONNECTION_ERROR if record.request % 3 == 2 else Status.OK)


@pytest.mark.parametrize("users", [6, 7])
def test_a_conversation_stays_on_one_server(users: int) -> None:
    """Whatever the number of users and of servers: its turns go where the first went, and each server gets some of each
    user's conversations.
    """
    load = load_of(kind="sustained", users=users, requests=12 * users)
    plan = build(load, workload_of(prompt_tokens=8, output_tokens=4, turns=3), 1)

    async def main() -> tuple[list[Record], list[str]]:
        async with AsyncExitStack() as stack:
            servers = [ScriptedServer(good) for _ in range(2)]
            for server in servers:
                await server.start()
                stack.callback(server.kill)
            urls = [server.endpoint.url for server in servers]
            records, _ = await measure(replace(servers[0].endpoint, others=urls[1:]), plan)  # type: ignore[arg-type]
            await asyncio.sleep(0)
            return records, urls

    records, urls = asyncio.run(main())
    servers_of: dict[int | None, set[str | None]] = {}
    of_user: dict[int | None, set[str | None]] = {}
    for record in records:
        servers_of.setdefault(record.session, set()).add(record.backend)
        of_user.setdefault(record.user, set()).add(record.backend)
    assert {len(found) for found in servers_of.values()} == {1}
    assert all(found == set(urls) for found in of_user.values())


@pytest.fixture
def every_look_is_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool takes each connection for idle since 600 ms when it hears that it was closed."""
    monkeypatch.setattr("harness.drivers.http.pool.monotonic_ns", itertools.count(0, 600 * MS).__next__)


@pytest.mark.usefixtures("every_look_is_later")
def test_idle_connections_that_the_server_closes() -> None:
    """Another connection is opened, which the record and the notes show; nothing fails, nothing is sent twice."""

    async def script(call: Call) -> None:
        await call.good()
        call.writer.close()  # its keep-alive time is over

    plan = Plan(3, users=1, think_ns=20 * MS)
    records, report, server = measured(script, plan, "http://127.0.0.1:{port}")
    assert [record.status for record in records] == [Status.OK] * 3
    assert len(server.calls) == 3
    assert len({call.connection for call in server.calls}) == 3
    assert [note for note in report.notes if "idle connections were closed by 127.0.0.1" in note]


@pytest.mark.usefixtures("every_look_is_later")
def test_an_idle_connection_closed_late_is_no_habit() -> None:
    """A server that closed a connection for being idle keeps the next one, which is used again."""

    async def script(call: Call) -> None:
        await call.good()
        if call.number == 0:
            call.writer.close()

    records, _, server = measured(script, Plan(4, users=1, think_ns=20 * MS), "http://127.0.0.1:{port}")
    assert [record.status for record in records] == [Status.OK] * 4
    assert [call.connection for call in server.calls] == [0, 1, 1, 1]


def test_slow_headers_and_interim_answers() -> None:
    """A head that comes byte by byte behind two interim ones has the time of its last byte."""

    async def script(call: Call) -> None:
        await call.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await call.send(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\ncontent-length: 99\r\n\r\n", after_ms=2)
        for byte in STREAM_HEAD[:-1]:
            call.writer.write(bytes([byte]))
            await call.writer.drain()
        await call.send(STREAM_HEAD[-1:], after_ms=30)
        await call.send(chunk(piece(" a")), after_ms=30)
        await call.send(chunk(piece(" b")) + chunk(ending()) + LAST_CHUNK)

    (record,), report, server = measured(script, open_plan([0]), "http://127.0.0.1:{port}")
    assert (record.status, record.http_status, record.text) == (Status.OK, 200, " a b")
    assert record.headers_ns is not None
    assert record.first_token_ns is not None
    log_ns = [at_ns - report.t0_ns for at_ns in server.calls[0].log_ns]
    assert log_ns[2] <= record.headers_ns < log_ns[3] <= record.first_token_ns


def compressed(kind: str, parts: list[bytes]) -> list[bytes]:
    """Parts of one compressed stream, each with all that was written so far."""
    bits = {"gzip": 31, "deflate": 15, "raw": -15}[kind]
    machine = zlib.compressobj(wbits=bits)
    made = [machine.compress(part) + machine.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return [*made[:-1], made[-1] + machine.flush()]


@pytest.mark.parametrize("kind", ["gzip", "deflate", "raw"])
def test_compressed_streams_keep_their_times(kind: str) -> None:
    """A stream that is compressed piece by piece has a time for each piece, as if it were not."""
    encoding = "deflate" if kind == "raw" else kind

    async def script(call: Call) -> None:
        head = STREAM_HEAD[:-2] + f"content-encoding: {encoding}\r\n\r\n".encode()
        first, second, last = compressed(kind, [piece(" a"), piece(" b"), ending()])
        await call.send(head + chunk(first))
        await call.send(chunk(second), after_ms=20)
        await call.send(chunk(last) + LAST_CHUNK, after_ms=20)

    (record,), report, server = measured(script, open_plan([0]), "http://127.0.0.1:{port}")
    assert b"accept-encoding: identity" in server.calls[0].head
    assert (record.status, record.text, record.error) == (Status.OK, " a b", None)
    assert record.chunk_ns is not None
    log_ns = [at_ns - report.t0_ns for at_ns in server.calls[0].log_ns]
    assert log_ns[0] <= record.chunk_ns[0] < log_ns[1] <= record.chunk_ns[1] < log_ns[2]


def test_compressed_members_one_after_another() -> None:
    """Some servers compress each piece for itself; a stream cut off in the middle keeps what it had."""

    async def script(call: Call) -> None:
        parts = [gzip.compress(part) for part in (piece(" a"), piece(" b") + ending())]
        head = STREAM_HEAD[:-2] + b"content-encoding: gzip\r\n\r\n"
        if call.number == 1:
            await call.send(head + chunk(parts[0] + parts[1][:15]))
            call.hang_up()
            return
        await call.send(head + chunk(parts[0] + parts[1][:15]))
        await call.send(chunk(parts[1][15:]) + LAST_CHUNK, after_ms=5)

    records, _, _ = measured(script, open_plan([0, 100]), "http://127.0.0.1:{port}")
    assert (records[0].status, records[0].text) == (Status.OK, " a b")
    assert (records[1].status, records[1].text) == (Status.TRUNCATED, " a")


def test_extra_headers_are_sent() -> None:
    """Each as it was written, beside those of the dialect."""
    _, _, server = measured(good, open_plan([0]), "http://127.0.0.1:{port}", headers={"X-Tenant": "blue", "x-b": "2"})
    assert b"\r\nx-tenant: blue\r\nx-b: 2\r\n" in server.calls[0].head


def test_many_connections_to_a_unix_socket(tmp_path: Path) -> None:
    """More than its queue holds are opened before the start, and that some had to be tried again is no error."""
    path = tmp_path / "engine.sock"
    plan = Plan(600, users=300)
    records, report, _ = measured(good, plan, f"http+unix://{path}", {"path": str(path)})
    assert {record.status for record in records} == {Status.OK}
    assert report.connect_errors == 0
