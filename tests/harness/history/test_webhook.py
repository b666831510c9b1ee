"""Webhook: whatever a chat answers, or does not, is a sentence in time; its address is a secret."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engines.secrets import masked
from harness.errors import UsageError
from harness.history.webhook import address_in, post
from tests.authority import Authority, needs_openssl

PATH = "/services/T0000/B0000/abcdefghijklmnop"
Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def chat(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that answers so; its address and the bodies that it was sent."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            answer(self)

        def do_GET(self) -> None:
            bodies.append(b"GET")
            answer(self)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    scheme = "http" if context is None else "https"
    try:
        yield f"{scheme}://localhost:{server.server_port}{PATH}", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def status(code: int, body: bytes = b"ok", **headers: str) -> Answer:
    """A reply with a status."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def test_a_message_is_posted_as_it_is() -> None:
    """Nothing is said of a chat that took it."""
    with chat(status(200)) as (address, bodies):
        assert post(address, '{"text": "TTFT 12 % ↑"}') == ""
    assert bodies == ['{"text": "TTFT 12 % ↑"}'.encode()]


@needs_openssl
def test_https_is_spoken_and_a_certificate_of_nobody_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's authorities count, or those that SSL_CERT_FILE names."""
    authority = Authority(tmp_path / "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.signed("chat"))
    with chat(status(200), context) as (address, bodies):
        assert "certificate verify failed" in post(address, "{}")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert post(address, "{}") == ""
    assert bodies == [b"{}"]


def test_a_refusal_is_told_without_the_address() -> None:
    """Also where the answer repeats it."""
    with chat(status(403, f"invalid_token in {PATH}\nmore".encode())) as (address, _):
        address_in("HOOK", {"HOOK": address})
        assert post(address, "{}") == "the webhook answered with status 403: invalid_token in ***"
    with chat(status(500, b"<html>oops</html>")) as (address, _):
        assert post(address, "{}") == "the webhook answered with status 500"


def test_redirects_are_not_followed() -> None:
    """The message might go elsewhere, and as a GET without it."""
    with chat(status(200)) as (other, elsewhere), chat(status(302, Location=other)) as (address, bodies):
        assert post(address, "{}") == "the webhook answered with status 302: ok"
    assert (bodies, elsewhere) == ([b"{}"], [])


def test_nobody_there_is_told() -> None:
    """A port that refuses, a name that is none."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert post(f"http://127.0.0.1:{port}/x", "{}") == "the webhook could not be reached: Connection refused"
    assert post("http://nobody.invalid/x", "{}").startswith("the webhook could not be reached: ")


@pytest.mark.parametrize("drips", [False, True])
def test_a_chat_that_takes_forever_is_left_in_time(drips: bool) -> None:
    """One that says nothing, and one that says a little again and again."""
    done = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        while not done.wait(0.01):
            if drips:
                handler.wfile.write(b"X" if handler.wfile.closed else b"HTTP/1.1 100 Continue\r\n\r\n")

    with chat(answer) as (address, _):
        assert post(address, "{}", patience_s=0.3) == "the webhook did not answer within 0.3 s"
        done.set()


def test_answers_that_are_no_http_are_told() -> None:
    """A sentence, whatever comes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\xff nonsense\r\n\r\n")

    with chat(answer) as (address, _):
        assert post(address, "{}").startswith("the webhook could not be reached: ")


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://host/x",
        "http:///x",
        "https://user:word@host/x",
        "https://ho st/x",
        "x",
        "http://a:b",
    ],
)
def test_what_is_no_address_is_refused_without_being_named(address: str) -> None:
    """The variable is, the value is not."""
    with pytest.raises(UsageError, match="HOOK is no address of a webhook; write https://host/path") as raised:
        address_in("HOOK", {"HOOK": address})
    assert address not in str(raised.value) or address == "x"


def test_the_address_is_hidden_from_now_on() -> None:
    """In whole, and its long parts alone; a variable that is not set is named."""
    address = f"https://hooks.example.com{PATH}"
    assert address_in("HOOK", {"HOOK": f" {address}\n"}) == address
    assert masked(f"cannot post to {address}") == "cannot post to ***"
    assert masked("token abcdefghijklmnop, of services") == "token ***, of services"
    with pytest.raises(UsageError, match="the environment has no HOOK; set it to the address of the webhook"):
        address_in("HOOK", {})
