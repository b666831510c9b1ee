"""Connection pools, one per server: opened before the clock starts, reused, extended when all are busy.

Some servers close a connection after each reply, some without notice, and discard what arrives meanwhile (llama.cpp's
does). So a connection rests after its first replies, and others are used, until one stayed open for _REST_NS. After a
few closings in a row, each connection carries one request, and another is opened ahead for each one taken.

No request waits for a connection. Requests go round the servers of an endpoint; a conversation stays at one server.
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from time import monotonic_ns
from typing import Any, Protocol

from harness.drivers.base import DriveReport
from harness.drivers.http.connection import AT_ONCE_NS, Connection, End, Exchange
from harness.drivers.http.place import Place
from harness.drivers.http.poller import Poller
from harness.drivers.timeline import StampClock
from harness.telemetry.cgroup import NO_FILE_LEFT, read_ceilings

REFUSED = 400  # least HTTP status of an error
_OPENED_AT_ONCE = 128
_PATIENCE_S = 5.0
_IN_A_ROW = 3
_MOST_RESTING = 16
_REST_NS = 50_000_000  # longest delay of a server that closes after its replies
_SPARE_FILES = 16  # for other files of the process: records, readings of the machine, modules


class Sender(Protocol):
    """Sender of the requests on a pool's connections."""

    def ended(self, exchange: Exchange) -> None:
        """Handle a complete reply."""

    def lost(self, exchange: Exchange, reason: str, *, again: bool) -> None:
        """Handle a lost connection; again: the server has not read the request, so it is to be sent once more."""


class Pool:
    """All connections to one place, and their owner."""

    def __init__(self, poller: Poller, place: Place, stamps: StampClock, sender: Sender, report: DriveReport) -> None:
        self.place = place
        self._poller, self._stamps, self._sender, self._report = poller, stamps, sender, report
        self._files = read_ceilings().files
        self._addresses: list[tuple[Any, ...]] = []
        self._unknown: OSError | None = None
        self._idle: list[Connection] = []  # unused ones first; each kind in the order in which it became idle
        self._resting: list[Connection] = []
        self._keeps_open = False  # best present knowledge
        self._opening: set[Connection] = set()
        self._changed: asyncio.Future[None] | None = None
        self._choosing = False
        self._ahead = 0
        self._one_request_each = False
        self._closed_in_a_row = 0
        self._closed_idle = 0

    async def warm(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        """Resolve the address and open `count` connections, or as many as the server accepts."""
        try:
            self._addresses = await self._found(loop)
        except OSError as error:
            name = self.place.dialled[0]
            self._unknown = OSError(error.errno or 0, f"the name {name} is not known ({error.strerror})")
            self._report.notes.append(f"before the start: the name {name} could not be found")
            return
        await self._choose_address(loop)
        self._ahead = count
        while len(self._idle) < count:
            before = len(self._idle)
            why = self._open_several(min(_OPENED_AT_ONCE, count - before))
            await self._settled(loop)
            if why or len(self._idle) == before:
                opened = f"before the start: {len(self._idle)} of {count} connections could be opened"
                self._report.notes.append(opened + (f" ({why})" if why else ""))
                return

    def take(self, *, fresh: bool = False) -> Connection:
        """Return an idle connection, or a new one, not ready yet, if there is none or `fresh`.

        Raises OSError if none can be opened: no address, no free descriptor.

        The most recently used connection comes first, because its server certainly attends to it. Unused ones come
        oldest first: a server with few threads gives them to the first connections and reads nothing from the others.
        """
        self._end_rest()
        while self._idle and not fresh:
            taken = self._idle.pop(-1 if self._idle[-1].used else 0)
            if not taken.gone():
                self._open_ahead()
                return taken
            self._stale(taken)
        try:
            return self._open()
        except OSError:
            if fresh or not self._resting:
                raise
            return self._resting.pop(0)

    def _end_rest(self) -> None:
        """Release all resting connections if one has stayed open long enough after its reply."""
        while self._resting and monotonic_ns() - self._resting[0].idle_since_ns >= _REST_NS:
            rested = self._resting.pop(0)
            if rested.gone():
                self._stale(rested)
                continue
            self._keeps_open = True
            self._idle += [rested, *self._resting]
            self._resting.clear()

    def _stale(self, connection: Connection) -> None:
        """Close and count an idle connection that the server had closed."""
        connection.close()
        if connection.idle_since_ns and monotonic_ns() - connection.idle_since_ns < AT_ONCE_NS:
            self._closed_by_habit()
        else:
            self._closed_idle += 1

    def _closed_by_habit(self) -> None:
        """Count a connection closed right after its reply. A single one may be chance; several are a habit."""
        self._closed_in_a_row += 1
        self._keeps_open = False
        if not self._one_request_each and self._closed_in_a_row >= _IN_A_ROW:
            self._one_request_each = True
            at = self.place.at
            self._report.notes.append(f"{at} closes connections after their replies: another is opened ahead for each")
        self._open_ahead()

    def _open_ahead(self) -> None:
        """Keep as many connections ready as before the start, if the server closes each after use."""
        if self._one_request_each and len(self._idle) + len(self._opening) < self._ahead:
            self._open_several(1)  # on failure the request that needs it reports the error

    def connected(self, connection: Connection) -> None:
        """Make a connection that was opened ahead idle."""
        if connection in self._opening:
            self._opening.discard(connection)
            self._idle.insert(bisect_left(self._idle, True, key=attrgetter("used")), connection)
            self._notify()

    def completed(self, connection: Connection, exchange: Exchange) -> None:
        """Take a connection back after its reply, and end the request."""
        if connection.idle_since_ns:
            self._closed_in_a_row = 0
        reply = exchange.reply
        if reply.reusable and connection.clean and not self._one_request_each:
            connection.exchange = None
            connection.idle_since_ns = monotonic_ns()
            resting = not self._keeps_open and len(self._resting) < _MOST_RESTING
            (self._resting if resting else self._idle).append(connection)
        else:
            connection.close()
            if reply.complete and reply.status < REFUSED and not reply.reusable:
                self._closed_by_habit()
        self._sender.ended(exchange)

    def lost(self, connection: Connection, exchange: Exchange | None, reason: str, end: End) -> None:
        """Forget a closed connection and count it. A request that the server has not read is sent again once."""
        ahead_of_accept = connection in self._opening and self.place.address.socket_path is not None
        # A Unix socket's queue is short, and `warm` retries. One working address of several is enough.
        if not connection.ready and not ahead_of_accept and not self._choosing:
            self._report.connect_errors += 1
        waiting = self._idle if connection in self._idle else self._resting
        if connection in waiting:
            waiting.remove(connection)
            self._stale(connection)
        if connection in self._opening:
            self._opening.discard(connection)
            self._notify()
        if exchange is None:
            return
        trace = exchange.trace
        unread = end is End.UNREAD or (end is End.BEHIND_A_REPLY and self._closed_in_a_row > 0)
        again = unread and bool(trace.connection_reused) and not exchange.reply.started and not trace.resends
        if again:
            self._stale(connection)
        self._sender.lost(exchange, reason, again=again)

    def close(self) -> None:
        for connection in [*self._idle, *self._resting, *self._opening]:
            connection.close()
        if self._closed_idle:
            closed = f"{self._closed_idle} idle connections were closed by {self.place.at}"
            self._report.notes.append(f"{closed}; new ones took their place")

    async def _found(self, loop: asyncio.AbstractEventLoop) -> list[tuple[Any, ...]]:
        """Return family and target of every address. Raises OSError for an unknown name."""
        if (path := self.place.address.socket_path) is not None:
            return [(socket.AF_UNIX, path)]
        found = await loop.getaddrinfo(*self.place.dialled, type=socket.SOCK_STREAM)
        return [(family, target) for family, _, _, _, target in found]

    def _open(self) -> Connection:
        if not self._addresses:
            raise self._unknown or OSError(0, f"the name {self.place.dialled[0]} has no address")
        spare = sys.maxsize if self._files is None else self._files - _SPARE_FILES
        try:
            opened = Connection(self._poller, self._addresses[0], self.place, self._stamps, self, spare)
        except OSError as error:
            if error.errno in NO_FILE_LEFT and self._files is not None:
                why = f"{error.strerror}: `ulimit -n` lets this process have {self._files}, all are in use"
                raise OSError(error.errno, why) from error
            raise
        self._report.connections_opened += 1
        return opened

    def _open_several(self, count: int) -> str | None:
        """Start to open connections that become idle; return the error if the system refuses a socket."""
        try:
            for _ in range(count):
                self._opening.add(self._open())
        except OSError as error:
            return error.strerror or str(error)
        return None

    async def _choose_address(self, loop: asyncio.AbstractEventLoop) -> None:
        """Move the first address that answers to the front; some addresses of a name may not work."""
        self._choosing = True
        for _ in range(len(self._addresses) if len(self._addresses) > 1 else 0):
            self._open_several(1)
            await self._settled(loop)
            if self._idle:
                break
            self._addresses.append(self._addresses.pop(0))
        self._choosing = False

    async def _settled(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until every opening connection is open or has failed."""
        until_s = loop.time() + _PATIENCE_S
        while self._opening and loop.time() < until_s:
            self._changed = loop.create_future()
            self._poller.wake()
            await asyncio.wait([self._changed], timeout=until_s - loop.time())
        for connection in self._opening:
            connection.close()
        self._opening.clear()

    def _notify(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)


async def warm(pools: Sequence[Pool], count: int, loop: asyncio.AbstractEventLoop) -> None:
    """Open `count` connections, and with several places some more, because users meet at a place by chance.

    Of `count` users spread at random, more than n + 3 sqrt(n) are rarely at one place (n: their mean).
    """
    mean = count / len(pools)
    each = count if len(pools) == 1 else min(count, math.ceil(mean + 3 * math.sqrt(mean)))
    for pool in pools:
        await pool.warm(each, loop)
