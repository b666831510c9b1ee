"""A stub server whose truth is known: each token of a reply is the time at which it was sent.

`StubServer` starts and ends it: `python -P -m harness.drivers.stub` prints one JSON line, `{"port": N}`, and ends when
its standard input closes. It speaks the streaming part of OpenAI's completions. The model's name is the schedule
(`model_name`), `max_tokens` the number of tokens. A token is the value of CLOCK_MONOTONIC in nanoseconds, read just
before its `send()`, so that it does not matter how late the server itself is. The reply's end comes one gap behind the
last token, in a packet of its own. `GET /canary` streams tokens at 20 Hz until the client leaves; `GET /health` is 200.

Programs of tests `listen` with an `Answer` of their own, which adds faults, other schedules and other pages.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import json
import os
import select
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from time import monotonic_ns
from typing import Any

from engines.base import Endpoint
from harness.errors import TrialFailed
from harness.processes import module_command, own_packages_first
from harness.telemetry.cgroup import raise_file_limit

START_LIMIT_S = 15.0
END_LIMIT_S = 5.0
CANARY_PATH = "/canary"
CANARY_GAP_NS = 50_000_000
COMPLETIONS_PATH = "/v1/completions"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
_BATCH = 64  # steps of replies before new requests are looked for
_BACKLOG = 4096
_NS_PER_MS = 1_000_000
_DIGITS = 20
_EVENT = b'data: {"choices":[{"index":0,"text":" %0*d","finish_reason":null}]}\n\n'
_TOKEN = b"%x\r\n" % len(_EVENT % (_DIGITS, 0)) + _EVENT.replace(b"%0*d", b"%%0%dd" % _DIGITS) + b"\r\n"

Reply = Iterator[int]
"""Writes a piece of a reply at each step, and yields the nanoseconds between the due times of this step and the next.

The first step is due at once. A step that is late is never followed by another at the same moment: the schedule goes on
from now.
"""


def model_name(first_ms: float, gap_ms: float) -> str:
    """Return the model to request: its first token comes after `first_ms`, then one token every `gap_ms`."""
    return f"known-{first_ms:g}-{gap_ms:g}"


def sent_times_ns(text: str) -> list[int]:
    """Return when the tokens of a text were sent, on CLOCK_MONOTONIC. Raises ValueError for any other text."""
    return [int(word) for word in text.split()]


def parse_model(name: object) -> tuple[int, int]:
    """Return first token and gap in nanoseconds. Raises ValueError for a name that is no schedule."""
    try:
        known, first_ms, gap_ms = str(name).split("-")
        if known != "known":
            raise ValueError
        return round(float(first_ms) * _NS_PER_MS), round(float(gap_ms) * _NS_PER_MS)
    except ValueError:
        why = f"model {name!r} is no schedule: write known-FIRST-GAP in milliseconds, such as known-50-20"
        raise ValueError(why) from None


# Replies:


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(request: HttpRequest, connection: Connection) -> Reply:
    """Answer like a server of completions, with the schedule that the model names."""
    if request.path == CANARY_PATH:
        return _stream(connection, 0, CANARY_GAP_NS, None)
    if request.path == COMPLETIONS_PATH:
        return _completion(request, connection)
    if request.path == "/health":
        return page(connection, 200, {"status": "ok"})
    return page(connection, 404, error("no such path"))


def _completion(request: HttpRequest, connection: Connection) -> Reply:
    try:
        wanted: dict[str, Any] = json.loads(request.body)
        first_ns, gap_ns = parse_model(wanted.get("model"))
        tokens = int(wanted["max_tokens"])
        if not wanted.get("stream") or tokens < 1:
            raise ValueError("only streams of one token or more are served: ask with stream and max_tokens")
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        return page(connection, 400, error(str(wrong)))
    return _stream(connection, first_ns, gap_ns, tokens)


def _stream(connection: Connection, first_ns: int, gap_ns: int, tokens: int | None) -> Reply:
    """Send so many tokens, None: without end."""
    write = connection.write
    write(STREAM_HEAD)
    yield first_ns
    for _ in count() if tokens is None else range(tokens):
        write(_TOKEN % monotonic_ns())
        yield gap_ns
    write(chunk(ending(tokens or 0)) + LAST_CHUNK)


def page(connection: Connection, status: int, content: object, kind: str = "application/json") -> Reply:
    """Send a whole response; `content` is text, or what becomes JSON."""
    body = (content if isinstance(content, str) else json.dumps(content)).encode()
    head = f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.write(head.encode() + body)
    return iter(())


def error(sentence: str) -> dict[str, Any]:
    """Return the body of an error."""
    return {"error": {"message": sentence}}


def chunk(body: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def event(content: object) -> bytes:
    """Return one server-sent event; `content` is bytes, or what becomes JSON."""
    return b"data: %b\n\n" % (content if isinstance(content, bytes) else json.dumps(content).encode())


def ending(tokens: int, prompt_tokens: int = 0) -> bytes:
    """Return the events behind the last token: why the reply ended, the usage, the end of the stream."""
    last = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}}
    return event(last) + event(usage) + event(b"[DONE]")


# Requests, and the steps of replies when they are due:

Answer = Callable[[HttpRequest, "Connection"], Reply]


class Connection(asyncio.Protocol):
    """One client, whose requests are answered one after the other."""

    write: Callable[[bytes], None]

    def __init__(self, pacer: Pacer, answer: Answer) -> None:
        self._pacer = pacer
        self._answer = answer
        self._received = b""
        self._busy = False
        self.open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve the client."""
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        self._received += data
        self._begin()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the client."""
        self.open = False

    def close(self) -> None:
        """End the connection, in the middle of a reply if there is one."""
        self.open = False
        self._transport.close()

    def answered(self) -> None:
        """Begin with the next request: the reply to the last one is over."""
        self._busy = False
        self._begin()

    def _begin(self) -> None:
        if self._busy or not self.open:
            return
        if self._received and not self._received[:1].isalpha():  # TLS, for one
            self.write(b"HTTP/1.1 400 -\r\ncontent-length: 0\r\n\r\n")
            self.close()
            return
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            return
        self._received = rest[size:]
        self._busy = True
        method, path, _ = first.split(" ", 2)
        self._pacer.begin(self, self._answer(HttpRequest(method, path, headers, rest[:size]), self))


class Pacer:
    """Takes every step of every reply when it is due."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[int, int, Connection, Reply]] = []
        self._count = 0
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, connection: Connection, reply: Reply) -> None:
        """Take the first step of a reply, and the others in their time."""
        now_ns = monotonic_ns()
        wait_ns = next(reply, None)
        if wait_ns is None:
            connection.answered()
            return
        self._count += 1
        heapq.heappush(self._due, (now_ns + wait_ns, self._count, connection, reply))
        if self._due[0][1] == self._count:
            self._set_alarm()

    def _go_on(self) -> None:
        """Take the steps that are due, a batch of them."""
        self._alarm = None
        due, now_ns = self._due, monotonic_ns()
        for _ in range(_BATCH):
            if not due or due[0][0] > now_ns:
                break
            at_ns, _number, connection, reply = due[0]
            gap_ns = next(reply, None) if connection.open else None
            if gap_ns is None:
                heapq.heappop(due)
                connection.answered()
                continue
            next_ns = at_ns + gap_ns
            self._count += 1
            number = self._count
            heapq.heapreplace(due, (next_ns if next_ns > now_ns else now_ns + gap_ns, number, connection, reply))
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._due[0][0] / 1e9, self._go_on) if self._due else None


async def listen(
    answer: Answer = answer, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Serve in this loop from now on; port 0 is a free one."""
    pacer = Pacer()
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(pacer, answer), sock=listener, ssl=tls, backlog=_BACKLOG)


# The program and its process:


class StubServer:
    """The server as a process of its own: `with StubServer() as server:`, or `start()` and `stop()`.

    pid, port: of the process, once started.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def pid(self) -> int | None:
        """The process, None when it is not running."""
        return None if self._process is None else self._process.pid

    def endpoint(self, first_ms: float, gap_ms: float) -> Endpoint:
        """Return where replies come with this schedule."""
        return Endpoint(f"http://127.0.0.1:{self.port}", "openai-completions", model_name(first_ms, gap_ms))

    def start(self) -> None:
        """Start it; it listens when this returns. Raises TrialFailed if it does not."""
        self._process = subprocess.Popen(
            module_command("harness.drivers.stub"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=own_packages_first(os.environ),
            start_new_session=True,  # Ctrl-C is for the run; it ends with its standard input
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_LIMIT_S)
        line = self._process.stdout.readline() if ready else b""
        try:
            self.port = int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError):
            self.stop()
            raise TrialFailed(
                f"the server of known truth did not start: it said {line.decode(errors='replace')!r}"
            ) from None

    def stop(self) -> None:
        """End it. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> StubServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


async def _serve_until_closed(descriptor: int) -> None:
    """Serve, and print the port, until the end of what the descriptor reads."""
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = await listen()
    try:
        loop.add_reader(descriptor, lambda: None if os.read(descriptor, 4096) else closed.set())
    except PermissionError:  # what cannot be watched is taken to be closed
        closed.set()
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    gc.freeze()
    gc.disable()  # a collection between reading the clock and sending would be an error of the truth
    await closed.wait()


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(_serve_until_closed(sys.stdin.fileno()))
