"""Stub server of known truth: each token of a reply is the time at which it was sent.

`StubServer` runs `python -P -m harness.drivers.stub`, which prints one JSON line, `{"port": N}`, and exits when its
standard input ends. It serves the streaming part of OpenAI's completions. The model's name is the schedule
(`model_name`), `max_tokens` the number of tokens. A token is the value of CLOCK_MONOTONIC in nanoseconds, read just
before its `send()`, so lateness of the server does not matter. The reply's end follows one gap after the last token, in
a packet of its own. `GET /canary` streams tokens at 20 Hz without end; `GET /health` returns 200.

Test servers call `listen` with their own `Answer`: faults, other schedules, other pages.
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
_EVENT = b'data: {"choices":[{"index":0,"text":" %020d","finish_reason":null}]}\n\n'
_TOKEN = b"%x\r\n" % len(_EVENT % 0) + _EVENT + b"\r\n"

Reply = Iterator[int]
"""Steps of a reply: each writes a piece, then yields the nanoseconds until the next step is due.

The first step is due at once. After a late step the schedule continues from now, so steps never catch up.
"""


def model_name(first_ms: float, gap_ms: float) -> str:
    """Return the name of a model whose first token comes after `first_ms`, then one token every `gap_ms`."""
    return f"known-{first_ms:g}-{gap_ms:g}"


def sent_times_ns(text: str) -> list[int]:
    """Return the sending times of a text's tokens, on CLOCK_MONOTONIC. Raises ValueError for any other text."""
    return [int(word) for word in text.split()]


def parse_model(name: object) -> tuple[int, int]:
    """Return the time to the first token and the gap, in ns. Raises ValueError for a name without a schedule."""
    try:
        known, first_ms, gap_ms = str(name).split("-")
        if known != "known":
            raise ValueError
        return round(float(first_ms) * _NS_PER_MS), round(float(gap_ms) * _NS_PER_MS)
    except ValueError:
        raise ValueError(f"model {name!r} is no schedule: write known-FIRST-GAP in ms, such as known-50-20") from None


# Replies:


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """Request; the names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def answer(request: HttpRequest, connection: Connection) -> Reply:
    """Answer like a server of completions, with the model's schedule."""
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
            raise ValueError("only streams of one token or more are served: set stream and max_tokens")
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        return page(connection, 400, error(str(wrong)))
    return _stream(connection, first_ns, gap_ns, tokens)


def _stream(connection: Connection, first_ns: int, gap_ns: int, tokens: int | None) -> Reply:
    """Send `tokens` tokens; None: without end."""
    connection.write(STREAM_HEAD)
    yield first_ns
    for _ in count() if tokens is None else range(tokens):
        connection.write(_TOKEN % monotonic_ns())
        yield gap_ns
    connection.write(chunk(ending(tokens or 0)) + LAST_CHUNK)


def page(connection: Connection, status: int, content: object, kind: str = "application/json") -> Reply:
    """Send a whole response; `content` is text, or an object for JSON."""
    body = (content if isinstance(content, str) else json.dumps(content)).encode()
    head = f"HTTP/1.1 {status} -\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.write(head.encode() + body)
    return iter(())


def error(sentence: str) -> dict[str, Any]:
    """Return the body of an error."""
    return {"error": {"message": sentence}}


def chunk(body: bytes) -> bytes:
    """Return a chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def event(content: object) -> bytes:
    """Return a server-sent event; `content` is bytes, or an object for JSON."""
    return b"data: %b\n\n" % (content if isinstance(content, bytes) else json.dumps(content).encode())


def ending(tokens: int, prompt_tokens: int = 0) -> bytes:
    """Return the events after the last token: finish reason, usage, end of the stream."""
    last = {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}}
    return event(last) + event(usage) + event(b"[DONE]")


# Requests, and the steps of replies when they are due:

Answer = Callable[[HttpRequest, "Connection"], Reply]


class Connection(asyncio.Protocol):
    """Connection of a client. Its requests are answered one after the other."""

    write: Callable[[bytes], None]

    def __init__(self, pacer: Pacer, answer: Answer) -> None:
        self._pacer, self._answer = pacer, answer
        self._received = b""
        self._busy, self.open = False, True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport
        self.write = transport.write

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._begin()

    def connection_lost(self, _: Exception | None) -> None:
        self.open = False

    def close(self) -> None:
        """Close the connection, even in the middle of a reply."""
        self.open = False
        self._transport.close()

    def answered(self) -> None:
        """Begin with the next request, because a reply has ended."""
        self._busy = False
        self._begin()

    def _begin(self) -> None:
        if self._busy or not self.open:
            return
        if self._received and not self._received[:1].isalpha():  # for example TLS
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
    """Timer of all replies: runs every step when it is due."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: list[tuple[int, int, Connection, Reply]] = []
        self._count = 0
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, connection: Connection, reply: Reply) -> None:
        """Run the first step of a reply, and schedule the second."""
        now_ns = monotonic_ns()
        wait_ns = next(reply, None)
        if wait_ns is None:
            connection.answered()
            return
        self._count += 1
        heapq.heappush(self._due, (now_ns + wait_ns, self._count, connection, reply))
        if self._due[0][1] == self._count:
            self._set_alarm()

    def _run_due(self) -> None:
        """Run a batch of the steps that are due."""
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
            heapq.heapreplace(due, (next_ns if next_ns > now_ns else now_ns + gap_ns, self._count, connection, reply))
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(self._due[0][0] / 1e9, self._run_due) if self._due else None


async def listen(
    answer: Answer = answer, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Start to serve in this loop; port 0: a free one."""
    pacer = Pacer()
    listener = socket.create_server((host, port), backlog=_BACKLOG)
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(pacer, answer), sock=listener, ssl=tls, backlog=_BACKLOG)


class StubServer:
    """Server in its own process: `with StubServer() as server:`, or `start()` and `stop()`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def endpoint(self, first_ms: float, gap_ms: float) -> Endpoint:
        """Return the endpoint whose replies have this schedule."""
        return Endpoint(f"http://127.0.0.1:{self.port}", "openai-completions", model_name(first_ms, gap_ms))

    def start(self) -> None:
        """Start the process and wait until it listens. Raises TrialFailed if it does not."""
        self._process = subprocess.Popen(
            module_command("harness.drivers.stub"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=own_packages_first(os.environ),
            start_new_session=True,  # Ctrl-C is for the run; the server exits when its standard input ends
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_LIMIT_S)
        line = self._process.stdout.readline() if ready else b""
        try:
            self.port = int(json.loads(line)["port"])
        except (ValueError, KeyError, TypeError):
            self.stop()
            raise TrialFailed(f"the stub server did not start; its output: {line.decode(errors='replace')!r}") from None

    def stop(self) -> None:
        """End the process. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with process:  # closes its pipes
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def __enter__(self) -> StubServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


async def _serve_until_closed(descriptor: int) -> None:
    """Serve, and print the port, until the descriptor's end of file."""
    closed = asyncio.Event()
    server = await listen()
    try:
        asyncio.get_running_loop().add_reader(descriptor, lambda: None if os.read(descriptor, 4096) else closed.set())
    except PermissionError:  # a file that cannot be watched counts as closed
        closed.set()
    sys.stdout.write(json.dumps({"port": server.sockets[0].getsockname()[1]}) + "\n")
    sys.stdout.flush()
    gc.freeze()
    gc.disable()  # a collection between reading the clock and sending would falsify the truth
    await closed.wait()


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(_serve_until_closed(sys.stdin.fileno()))
