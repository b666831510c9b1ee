"""A streaming server whose truth is known: every piece of a reply holds the time at which it was sent.

`python -P -m harness.drivers.calibration.server` prints one JSON line, `{"port": N}`, and ends when its standard input
closes. It speaks the streaming part of OpenAI's completions. The model's name is the schedule (`model_name`),
`max_tokens` the number of tokens; the text of each token is the value of CLOCK_MONOTONIC in nanoseconds, read just
before its `send()`. So it does not matter how late the server itself is. The reply's end comes one gap behind the last
token, in a packet of its own. `GET /canary` streams tokens at 20 Hz until the client leaves; `GET /health` answers 200.

It is a process of its own and imports nothing of the client it is to judge.
"""

from __future__ import annotations

import gc
import heapq
import json
import os
import selectors
import socket
import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

CANARY_PATH = "/canary"
CANARY_GAP_NS = 50_000_000
COMPLETIONS_PATH = "/v1/completions"
_DIGITS = 20
_BATCH = 64  # tokens sent before new requests are looked for
_BACKLOG = 4096
_NS_PER_MS = 1_000_000
_LONGEST_HEAD = 1 << 16
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_EVENT = b'data: {"choices":[{"index":0,"text":" %0*d","finish_reason":null}]}\n\n'
_TOKEN = b"%x\r\n" % len(_EVENT % (_DIGITS, 0)) + _EVENT.replace(b"%0*d", b"%%0%dd" % _DIGITS) + b"\r\n"


def model_name(first_ms: float, gap_ms: float) -> str:
    """The model to ask for: the first token this long after the request, then one token every `gap_ms`."""
    return f"known-{first_ms:g}-{gap_ms:g}"


def sent_times_ns(text: str) -> list[int]:
    """When the tokens of a reply's text were sent, on CLOCK_MONOTONIC. Raises ValueError for any other text."""
    return [int(word) for word in text.split()]


def parse_model(name: object) -> tuple[int, int]:
    """First token and gap in nanoseconds. Raises ValueError for a name that is no schedule."""
    parts = str(name).split("-")
    if len(parts) != 3 or parts[0] != "known":
        raise ValueError(f"model {name!r} is no schedule: write known-FIRST-GAP in milliseconds, such as known-50-20")
    try:
        first_ms, gap_ms = float(parts[1]), float(parts[2])
    except ValueError:
        raise ValueError(f"model {name!r}: {parts[1]!r} and {parts[2]!r} must be numbers of milliseconds") from None
    return round(first_ms * _NS_PER_MS), round(gap_ms * _NS_PER_MS)


class _Stream:
    """One reply under way. left: tokens still to come, None for one without end."""

    __slots__ = ("connection", "gap_ns", "left", "tokens")

    def __init__(self, connection: _Connection, gap_ns: int, tokens: int | None) -> None:
        self.connection = connection
        self.gap_ns = gap_ns
        self.tokens = tokens
        self.left = tokens


class _Connection:
    """One client: what it has sent and not been answered yet, and what it was too slow to take."""

    __slots__ = ("busy", "open", "received", "send", "socket", "unsent")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.send = sock.send
        self.received = b""
        self.unsent = b""
        self.busy = False
        self.open = True


class _Server:
    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[int, int, _Stream]] = []
        self._count = 0
        self._ended = False
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def end_with(self, descriptor: int) -> None:
        """End when this descriptor is at its end; one that cannot be watched is taken to be closed."""
        try:
            self._selector.register(descriptor, selectors.EVENT_READ, self._closed)
        except PermissionError:
            self._ended = True

    def run(self) -> None:
        """Serve until the end."""
        due = self._due
        while not self._ended:
            wait_s = None if not due else max(0.0, (due[0][0] - monotonic_ns()) / 1e9)
            for key, events in self._selector.select(wait_s):
                key.data(key.fileobj, events)
            self._send_due()

    def close(self) -> None:
        """Close every connection."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()

    def _closed(self, descriptor: int, _: int) -> None:
        self._ended = not os.read(descriptor, 4096)

    def _accept(self, *_: object) -> None:
        while True:
            try:
                accepted, _address = self._listener.accept()
            except BlockingIOError:
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(accepted, selectors.EVENT_READ, self._ready(_Connection(accepted)))

    # One client:

    def _ready(self, connection: _Connection) -> Callable[[object, int], None]:
        def handle(_: object, events: int) -> None:
            if events & selectors.EVENT_WRITE:
                self._write(connection, b"")
            if events & selectors.EVENT_READ:
                self._read(connection)

        return handle

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        connection.received += data
        self._answer(connection)

    def _answer(self, connection: _Connection) -> None:
        """Take the next request, once it is complete and the last one is answered."""
        if connection.busy or not connection.open:
            return
        head, blank, rest = connection.received.partition(b"\r\n\r\n")
        if not blank:
            if len(head) > _LONGEST_HEAD:
                self._drop(connection)
            return
        lines = head.lower().split(b"\r\n")
        size = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if len(rest) < size:
            return
        connection.received = rest[size:]
        path = head.split(b" ", 2)[1].decode("latin-1")
        if path == CANARY_PATH:
            self._begin(connection, monotonic_ns(), CANARY_GAP_NS, None)
        elif path == COMPLETIONS_PATH:
            self._complete(connection, rest[:size])
        else:
            self._reply(connection, *((200, {"status": "ok"}) if path == "/health" else (404, _error("no such path"))))

    def _complete(self, connection: _Connection, body: bytes) -> None:
        now_ns = monotonic_ns()
        try:
            asked: dict[str, Any] = json.loads(body)
            first_ns, gap_ns = parse_model(asked.get("model"))
            tokens = int(asked["max_tokens"])
            if not asked.get("stream") or tokens < 1:
                raise ValueError("only streams of one token or more are served: ask with stream and max_tokens")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._reply(connection, 400, _error(str(error)))
            return
        self._begin(connection, now_ns + first_ns, gap_ns, tokens)

    def _begin(self, connection: _Connection, first_ns: int, gap_ns: int, tokens: int | None) -> None:
        connection.busy = True
        self._write(connection, _HEAD)
        self._schedule(first_ns, _Stream(connection, gap_ns, tokens))

    def _reply(self, connection: _Connection, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        self._write(connection, head.encode() + body)
        self._answer(connection)

    # Tokens:

    def _schedule(self, at_ns: int, stream: _Stream) -> None:
        self._count += 1
        heapq.heappush(self._due, (at_ns, self._count, stream))

    def _send_due(self) -> None:
        """Send what is due, a batch of it. A stream that is late goes on from now: it never sends two at once."""
        due, now_ns = self._due, monotonic_ns()
        for _ in range(_BATCH):
            if not due or due[0][0] > now_ns:
                return
            at_ns, _number, stream = due[0]
            connection = stream.connection
            if not connection.open:
                heapq.heappop(due)
                continue
            if stream.left == 0:
                heapq.heappop(due)
                self._end(stream)
                continue
            if stream.left is not None:
                stream.left -= 1
            if connection.unsent:
                self._write(connection, _TOKEN % monotonic_ns())
            else:
                self._send_token(connection)
            next_ns = at_ns + stream.gap_ns
            self._count += 1
            heapq.heapreplace(due, (next_ns if next_ns > now_ns else now_ns + stream.gap_ns, self._count, stream))

    def _send_token(self, connection: _Connection) -> None:
        try:
            data = _TOKEN % monotonic_ns()
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        if sent < len(data):
            self._keep(connection, data[sent:])

    def _end(self, stream: _Stream) -> None:
        events = [
            {"choices": [{"index": 0, "text": "", "finish_reason": "length"}]},
            {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": stream.tokens}},
        ]
        body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
        stream.connection.busy = False
        self._write(stream.connection, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        self._answer(stream.connection)

    # Bytes:

    def _write(self, connection: _Connection, data: bytes) -> None:
        waiting = bool(connection.unsent)
        data = connection.unsent + data
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        connection.unsent = b""
        if sent < len(data):
            self._keep(connection, data[sent:])
        elif waiting:
            self._watch(connection, selectors.EVENT_READ)

    def _keep(self, connection: _Connection, data: bytes) -> None:
        connection.unsent = data
        self._watch(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)

    def _watch(self, connection: _Connection, events: int) -> None:
        self._selector.modify(connection.socket, events, self._selector.get_key(connection.socket).data)

    def _drop(self, connection: _Connection) -> None:
        if connection.open:
            connection.open = False
            self._selector.unregister(connection.socket)
            connection.socket.close()


def _error(sentence: str) -> dict[str, Any]:
    return {"error": {"message": sentence}}


def serve(announce: Callable[[int], None], until: int) -> None:
    """Serve on a free port of 127.0.0.1, which is told to `announce`, until the descriptor `until` is at its end."""
    raise_file_limit()
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        server = _Server(listener)
        server.end_with(until)
        announce(listener.getsockname()[1])
        gc.freeze()
        gc.disable()  # a collection between reading the clock and sending would be an error of the truth
        try:
            server.run()
        finally:
            server.close()


def raise_file_limit() -> None:
    """As many open files as this process may have."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ValueError, OSError):
        return  # macOS says "unlimited" and takes less; the limit stays as it was


def announce_on_stdout(port: int) -> None:
    """One line for whoever started the process."""
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(announce_on_stdout, sys.stdin.fileno())
