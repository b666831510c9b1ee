"""The proxy's own error, on a server of known times: its stamps against those of a client behind the proxy."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scorecard.play import ROOT, environment
from benchmarks.scorecard.proxy import EVENT, LOOPBACK, REQUEST

GAP_S = 0.005
FIRST_S = 0.05
EVENTS = 400


@dataclass(frozen=True)
class Accuracy:
    """Error of the proxy at one stretch.

    Attributes:
        first_ms: How long after the server sent it the first event came.
        late_ms: By event after the first: how much later it came than stretch times its true distance from the first.
        tpot: TPOT of the client, in TPOT of the server times the stretch; 1 is exact.
    """

    stretch: float
    first_ms: float
    late_ms: Sequence[float]
    tpot: float

    def __str__(self) -> str:
        each = sorted(self.late_ms)
        p50, p99 = each[len(each) // 2], each[int(0.99 * (len(each) - 1))]
        size = f"p50 {p50:+.3f} ms, p99 {p99:+.3f} ms, at most {each[-1]:+.3f} ms"
        return f"Proxy at {self.stretch:g}: events {size}; TPOT {100 * (self.tpot - 1):+.3f} %."


def accuracy(stretch: float, events: int = EVENTS, gap_s: float = GAP_S) -> Accuracy:
    """Send events through the proxy, which is a process of its own, and return its error."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        sent: list[int] = []
        server = threading.Thread(target=_serve, args=(listener, events, gap_s, sent))
        server.start()
        command = [sys.executable, "-m", "benchmarks.scorecard.proxy", str(listener.getsockname()[1]), f"{stretch:g}"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=pipe, stdout=pipe, text=True) as proxy:
            assert proxy.stdin is not None
            assert proxy.stdout is not None
            came = _receive(int(proxy.stdout.readline().rpartition(":")[2]), events)
            proxy.stdin.close()
        server.join()
    return measured(stretch, sent, came)


def measured(stretch: float, sent: Sequence[int], came: Sequence[int]) -> Accuracy:
    """Return the error from the stamps of both ends, in nanoseconds of one clock."""
    true, seen = ([one - stamps[0] for one in stamps[1:]] for stamps in (sent, came))
    late_ms = [(b - stretch * a) / 1e6 for a, b in zip(true, seen, strict=True)]
    return Accuracy(stretch, (came[0] - sent[0]) / 1e6, late_ms, seen[-1] / (stretch * true[-1]))


def _serve(listener: socket.socket, events: int, gap_s: float, sent: list[int]) -> None:
    """Answer one request: an event at each multiple of the gap, the first when all threads wait."""
    connection, _ = listener.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.recv(1 << 16)
        time.sleep(FIRST_S)
        began = time.monotonic_ns()
        for number in range(events):
            time.sleep(max(0.0, gap_s * number - (time.monotonic_ns() - began) / 1e9))
            sent.append(time.monotonic_ns())
            connection.sendall(EVENT + b" %08d\n\n" % number)


def _receive(port: int, events: int) -> list[int]:
    """Return when each event came. Events that came together have one time."""
    came: list[int] = []
    with socket.create_connection((LOOPBACK, port)) as connection:
        connection.sendall(REQUEST + b"/ HTTP/1.1\r\n\r\n")
        while len(came) < events:
            data = connection.recv(1 << 16)
            if not data:
                raise SystemExit("the proxy closed the connection too early")
            came += [time.monotonic_ns()] * data.count(EVENT)
    return came
