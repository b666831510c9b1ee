"""The canary: a stream whose every event says when it was sent, read beside the load on the load's own path.

What its recorded arrivals are off by, the load's are off by too, whatever the reason.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic_ns

import numpy as np

from harness.drivers.base import DriveReport
from harness.drivers.http.poller import READ, Poller
from harness.drivers.stub import CANARY_PATH, StubServer
from harness.drivers.timeline import NS_PER_MS, StampClock
from harness.errors import TrialFailed
from harness.telemetry.kernel_clock import STAMP_RECEIVED_IN_SOFTWARE, TIMESTAMPING

_SENT = re.compile(rb'"text":" (\d+)"')
_READ_BYTES = 65_536
_ANCILLARY_BYTES = 64
_LONGEST_EVENT = 1024


@dataclass(frozen=True, slots=True)
class Sender:
    """Where the canary's events come from; None: nowhere, and why not (None, too, where none is wanted)."""

    port: int | None = None
    missing: str | None = None


@contextlib.contextmanager
def sender(wanted: bool) -> Iterator[Sender]:
    """The process that sends the canary's events, as long as the block lasts, if it can be started."""
    with contextlib.ExitStack() as stack:
        if not wanted:
            yield Sender()
            return
        try:
            server = stack.enter_context(StubServer())
        except (OSError, TrialFailed) as error:
            yield Sender(None, f"no canary: {error}")
            return
        yield Sender(server.port)


class Canary:
    """One connection to the canary's server. What goes wrong with it never ends the trial: its readings just end."""

    def __init__(self, poller: Poller, stamps: StampClock, port: int) -> None:
        self._poller = poller
        self._stamps = stamps
        self._late_ns = array("q")
        self._rest = b""
        self._asked = False
        self._socket: socket.socket | None = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        if sys.platform == "linux":
            self._socket.setsockopt(socket.SOL_SOCKET, TIMESTAMPING, STAMP_RECEIVED_IN_SOFTWARE)
        self._socket.connect_ex(("127.0.0.1", port))  # whether it worked shows when the request is sent

    def start(self) -> None:
        """Ask for the stream and read it from now on."""
        if self._socket is None or self._asked:
            return
        self._asked = True
        try:
            self._socket.send(f"GET {CANARY_PATH} HTTP/1.1\r\nhost: canary\r\n\r\n".encode())
            self._poller.add(self._socket.fileno(), self._read, READ)
        except OSError:
            self.close()

    def close(self) -> None:
        """Read no more."""
        taken, self._socket = self._socket, None
        if taken is not None:
            self._poller.remove(taken.fileno())
            taken.close()

    def fill(self, report: DriveReport) -> None:
        """Write what was read into the report; nothing where no event came."""
        if not len(self._late_ns):
            report.notes.append("no canary: its server could not be read")
            return
        late_ms = np.frombuffer(self._late_ns, dtype=np.int64) / NS_PER_MS
        report.canary_events = len(late_ms)
        p50, p95, p99 = np.percentile(late_ms, (50, 95, 99), method="inverted_cdf")
        report.canary_p50_ms, report.canary_p95_ms, report.canary_p99_ms = float(p50), float(p95), float(p99)
        report.canary_max_ms = float(late_ms.max())

    def _read(self, _: int) -> None:
        assert self._socket is not None
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        read_ns = monotonic_ns()
        if not data:
            self.close()
            return
        arrival_ns, _lag_ns = self._stamps.arrival(ancillary[0][2] if ancillary else b"", read_ns, 0)
        self._rest += data
        end = 0
        for found in _SENT.finditer(self._rest):
            self._late_ns.append(arrival_ns - int(found[1]))
            end = found.end()
        self._rest = self._rest[end:][-_LONGEST_EVENT:]
