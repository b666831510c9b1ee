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

import numpy as np

from engines.http.addresses import Address
from harness.drivers.base import DriveReport
from harness.drivers.http.connection import Connection, End, Exchange
from harness.drivers.http.place import Place
from harness.drivers.http.poller import Poller
from harness.drivers.http.response import ResponseReader
from harness.drivers.stub import CANARY_PATH, StubServer
from harness.drivers.timeline import NS_PER_MS, StampClock, Trace
from harness.errors import TrialFailed
from harness.schedule.requests import Row

_SENT = re.compile(rb'"text":" (\d+)"')
_LONGEST_EVENT = 1024
_ROW = Row(0, "canary", None, 0, None, None, None, 0, None, 0, 0)  # of no plan


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


class Canary(ResponseReader):
    """The connection to the canary's server, and the reply on it, of which nothing is kept but how late its events are.

    A failure never ends the trial: there are just no more readings.
    """

    def __init__(self, poller: Poller, stamps: StampClock, port: int) -> None:
        super().__init__()
        self._stamps = stamps
        self._late_ns = array("q")
        self._rest = b""
        self._trace = Trace(_ROW, 0, "")
        place = Place(Address.of(f"http://127.0.0.1:{port}"))
        self._asking = place.head("GET", CANARY_PATH, {}) + b"0\r\n\r\n"
        self._connection = Connection(poller, (socket.AF_INET, place.dialled), place, stamps, self, sys.maxsize)

    def start(self) -> None:
        """Request the stream and read it from now on."""
        self._connection.send(Exchange(self._trace, self._asking, self))

    def close(self) -> None:
        """Read no more."""
        self._connection.close()

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

    # What the connection calls:

    def feed(self, data: bytes) -> bool:
        """Note how late the events of a read are; the stream has no end."""
        arrival_ns, _lag_ns = self._stamps.arrival(self._trace.stamps.pop(), self._trace.read_ns.pop(), 0)
        self._rest += data
        end = 0
        for found in _SENT.finditer(self._rest):
            self._late_ns.append(arrival_ns - int(found[1]))
            end = found.end()
        self._rest = self._rest[end:][-_LONGEST_EVENT:]
        return False

    def connected(self, connection: Connection) -> None:
        """Wait for the start of the trial."""

    def completed(self, connection: Connection, exchange: Exchange) -> None:
        """Read no more."""
        connection.close()

    def lost(self, connection: Connection, exchange: Exchange | None, reason: str, end: End) -> None:
        """Have no more readings."""
