"""Loopback proxy that stretches the gaps between the tokens of a stream: a slowdown of known size.

`python -m benchmarks.scorecard.proxy PORT STRETCH` prints its address, and ends when its input does. It needs nothing
but the standard library, so it starts quickly.

The first event of a reply passes at once, so TTFT stays. A later piece that came t after it passes at t times the
stretch after it. Deadlines are absolute, so lateness does not add up. Threads wait for them, because an event loop
wakes up only at whole milliseconds.
"""

from __future__ import annotations

import ctypes
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

LOOPBACK = "127.0.0.1"
EVENT = b"data:"  # begins an event of a stream; heads have no such line
REQUEST = b"POST "
PIECE_BYTES = 1 << 16
_PR_SET_TIMERSLACK = 29


class Proxy:
    """Passes connections on to a port of this machine, from start() to close().

    Attributes:
        port: Port that it listens at; a free one unless one is given.
    """

    def __init__(self, upstream: int, stretch: float = 1.0, port: int = 0) -> None:
        self._upstream, self._stretch = upstream, stretch
        self._listener = socket.create_server((LOOPBACK, port))
        self.port: int = self._listener.getsockname()[1]
        self._ended = False

    @property
    def url(self) -> str:
        """Address of the proxy."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Accept connections in a thread."""
        _run(self._accept)

    def close(self) -> None:
        """Accept no more connections. Those that are open end with their clients."""
        self._ended = True
        with suppress(OSError):  # wakes the thread that accepts; it may be gone
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._listener.accept()
            except OSError:
                if self._ended:
                    return
                raise
            try:
                server = socket.create_connection((LOOPBACK, self._upstream))
            except OSError:
                client.close()  # the server has ended: its clients see that as without a proxy
                continue
            _Connection(client, server, self._stretch).start()


class _Connection:
    """Both ways of a connection. Its requests come one after the other, each after the reply to the one before."""

    def __init__(self, client: socket.socket, server: socket.socket, stretch: float) -> None:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client, self._server, self._stretch = client, server, stretch
        self._pieces: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self._first_ns: int | None = None

    def start(self) -> None:
        """Pass bytes on until one end closes."""
        for task in (self._ask, self._receive, self._deliver):
            _run(task)

    def _ask(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(PIECE_BYTES):
                if data.startswith(REQUEST):
                    self._first_ns = None
                self._server.sendall(data)
        _shut(self._server)

    def _receive(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(PIECE_BYTES):
                self._pieces.put((self._due_ns(time.monotonic_ns(), data), data))
        self._pieces.put(None)

    def _due_ns(self, now_ns: int, data: bytes) -> int:
        """Return when a piece of a reply passes."""
        if self._first_ns is None:
            if EVENT in data:
                self._first_ns = now_ns
            return now_ns
        return stretched(self._first_ns, now_ns, self._stretch)

    def _deliver(self) -> None:
        with suppress(OSError):
            while (piece := self._pieces.get()) is not None:
                due_ns, data = piece
                while (left_ns := due_ns - time.monotonic_ns()) > 0:
                    time.sleep(left_ns / 1e9)
                self._client.sendall(data)
        for end in (self._client, self._server):
            _shut(end)
            end.close()


def stretched(first_ns: int, arrival_ns: int, stretch: float) -> int:
    """Return when a piece passes whose reply began at `first_ns`."""
    return first_ns + round((arrival_ns - first_ns) * stretch)


def wake_exactly() -> None:
    """Let threads that start from now on wake up within microseconds of their time; Linux adds 50 otherwise."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


def _run(task: Callable[[], None]) -> None:
    threading.Thread(target=task, daemon=True).start()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # the other end was faster
        end.shutdown(socket.SHUT_RDWR)


def main() -> None:
    """Serve until the input ends."""
    wake_exactly()
    proxy = Proxy(int(sys.argv[1]), float(sys.argv[2]))
    proxy.start()
    print(proxy.url, flush=True)
    sys.stdin.read()
    proxy.close()


if __name__ == "__main__":
    main()
