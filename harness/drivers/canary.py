"""Canary: a stream whose events contain their sending times, read beside the load on the same path.

Its recorded arrivals have the same errors as those of the load.
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
    """Port of the canary's server; None if there is none."""

    port: int | None = None
    missing: str | None = None  # reason for which the server is missing, if a canary was requested


@contextlib.contextmanager
def sender(wanted: bool) -> Iterator[Sender]:
    """Run the canary's server for the block, if one is wanted and can be started."""
    with contextlib.ExitStack() as stack:
        found = Sender()
        if wanted:
            try:
                found = Sender(stack.enter_context(StubServer()).port)
            except (OSError, TrialFailed) as error:
                found = Sender(None, f"no canary: {error}")
        yield found


class Canary(ResponseReader):
    """Reader of the canary's endless reply, and owner of its connection. A failure only ends the readings."""

    def __init__(self, poller: Poller, stamps: StampClock, port: int) -> None:
        super().__init__()
        self._stamps = stamps
        self._late_ns = array("q")
        self._rest = b""
        self._trace = Trace(_ROW, 0, "")
        place = Place(Address.of(f"http://127.0.0.1:{port}"))
        self._request = place.head("GET", CANARY_PATH, {}) + b"0\r\n\r\n"
        self._connection = Connection(poller, (socket.AF_INET, place.dialled), place, stamps, self, sys.maxsize)
        self.close = self._connection.close

    def start(self) -> None:
        self._connection.send(Exchange(self._trace, self._request, self))

    def fill(self, report: DriveReport) -> None:
        """Write the lateness of the events into the report."""
        if not self._late_ns:
            report.notes.append("no canary: its server could not be read")
            return
        late_ms = np.frombuffer(self._late_ns, dtype=np.int64) / NS_PER_MS
        report.canary_events = len(late_ms)
        p50, p95, p99 = np.percentile(late_ms, (50, 95, 99), method="inverted_cdf")
        report.canary_p50_ms, report.canary_p95_ms, report.canary_p99_ms = float(p50), float(p95), float(p99)
        report.canary_max_ms = float(late_ms.max())

    # Called by the connection:

    def feed(self, data: bytes) -> bool:
        """Note the lateness of the events of a read; the stream has no end."""
        arrival_ns, _lag_ns = self._stamps.arrival(self._trace.stamps.pop(), self._trace.read_ns.pop(), 0)
        self._rest += data
        end = 0
        for found in _SENT.finditer(self._rest):
            self._late_ns.append(arrival_ns - int(found[1]))
            end = found.end()
        self._rest = self._rest[end:][-_LONGEST_EVENT:]
        return False

    def connected(self, connection: Connection) -> None: ...

    def completed(self, connection: Connection, exchange: Exchange) -> None:
        connection.close()

    def lost(self, connection: Connection, exchange: Exchange | None, reason: str, end: End) -> None: ...
