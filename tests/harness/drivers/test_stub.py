"""The stub server of known truth: what it says, and that it ends."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import time

import pytest

from harness.drivers import stub
from harness.drivers.stub import StubServer, model_name, parse_model, sent_times_ns


def ask(server: StubServer, **body: object) -> tuple[int, str]:
    """Status and body of a request for a completion."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as client:
        client.request("POST", "/v1/completions", json.dumps(body))
        answer = client.getresponse()
        return answer.status, answer.read().decode()


def texts(answer: str) -> str:
    """The text of a stream."""
    events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    return "".join(choice["text"] for event in events for choice in event["choices"])


def test_a_reply_holds_the_times_at_which_it_was_sent() -> None:
    """Each token's text is a time between the request and the end of the reply, a gap or more after the last one."""
    with StubServer() as server:
        before_ns = time.monotonic_ns()
        _, answer = ask(server, model=model_name(5, 2), max_tokens=7, stream=True)
        after_ns = time.monotonic_ns()
    sent = sent_times_ns(texts(answer))
    assert len(sent) == 7
    assert before_ns + 5_000_000 <= sent[0] <= sent[-1] <= after_ns
    assert sent == sorted(sent)
    assert sent[-1] - sent[0] >= 5 * 2_000_000
    assert '"completion_tokens": 7' in answer


def test_it_says_what_it_cannot_serve() -> None:
    """A model that is no schedule, and a reply that is no stream, are refused with a sentence; health is good."""
    with StubServer() as server:
        for body in ({"model": "gpt", "stream": True, "max_tokens": 1}, {"model": "known-1-1", "max_tokens": 1}):
            status, answer = ask(server, **body)
            assert status == 400
            assert len(json.loads(answer)["error"]["message"]) > 20
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        client.request("GET", "/health")
        assert client.getresponse().status == 200
        client.close()


def test_what_is_no_http_is_refused() -> None:
    """Such as the beginning of TLS: there is an answer, and the connection ends."""
    with StubServer() as server, socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(b"\x16\x03\x01")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
        assert not client.recv(4096)


def test_no_token_waits_for_an_acknowledgement() -> None:
    """The system of the server sends every write at once, whatever the client has acknowledged."""
    at_once: list[int] = []

    def look(request: stub.HttpRequest, connection: stub.Connection) -> stub.Reply:
        own = connection._transport.get_extra_info("socket")
        at_once.append(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return stub.page(connection, 200, "")

    async def ask() -> None:
        server = await stub.listen(look)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        server.close()

    asyncio.run(ask())
    assert at_once
    assert at_once[0] != 0


def test_the_canary_goes_on() -> None:
    """The canary's stream sends a token every 50 ms and has no end."""
    with StubServer() as server:
        client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        client.request("GET", "/canary")
        with client.getresponse() as answer:
            lines = [answer.readline().decode() for _ in range(8)]
        client.close()
    sent = sent_times_ns(texts("".join(lines)))
    assert len(sent) == 4
    assert sent[-1] - sent[0] >= 2 * 50_000_000


def test_it_ends_with_its_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing its standard input ends the process, without being killed."""
    monkeypatch.setattr(stub, "END_LIMIT_S", 60.0)
    server = StubServer()
    server.start()
    process = server._process
    server.stop()
    assert process is not None
    assert process.returncode == 0
    assert server.pid is None


@pytest.mark.parametrize("name", ["known", "known-1", "known-a-b", "other-1-2", None])
def test_other_models_are_refused(name: object) -> None:
    """Only names that state a schedule are taken."""
    with pytest.raises(ValueError, match="is no schedule"):
        parse_model(name)


def test_names_carry_fractions() -> None:
    """A schedule's name says its times exactly enough."""
    assert parse_model(model_name(12.5, 0.25)) == (12_500_000, 250_000)
