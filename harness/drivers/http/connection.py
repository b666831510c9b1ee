"""Non-blocking connection that stamps every read and does nothing else with it.

The hot path of the whole program is `Connection._read`: one `recvmsg`, one clock reading, three appends.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from dataclasses import dataclass
from enum import Enum
from time import monotonic_ns
from typing import Any, Protocol

from engines.http.addresses import tls_failure
from harness.drivers.http.place import Place, TlsStream, Tunnel, TunnelRefused
from harness.drivers.http.poller import READ, WRITE, Poller
from harness.drivers.http.response import ResponseReader
from harness.drivers.timeline import StampClock, Trace
from harness.telemetry.kernel_clock import STAMP_RECEIVED_IN_SOFTWARE, TIMESTAMPING

_READ_BYTES = 65_536
_ANCILLARY_BYTES = 64
AT_ONCE_NS = 500_000_000  # a connection closed sooner after a reply was not closed by an idle time-out
_SOON_NS = 20_000_000  # a closed connection answers the next request with a reset within this time
_UNACKED_AT = 24  # offset in struct tcp_info of the number of unacknowledged segments


@dataclass(slots=True, eq=False)
class Exchange:
    """Request in flight: the bytes to send, its trace, and the incoming reply."""

    trace: Trace
    payload: bytes
    reply: ResponseReader
    due: Any = None
    streams: bool = True
    connection: Connection | None = None


class End(Enum):
    """State of a request when its connection ended."""

    UNREAD = 0
    BEHIND_A_REPLY = 1  # sent right after a reply: discarded by a server that closes then, or the server failed at once
    READ = 2


class Owner(Protocol):
    """User of connections."""

    def connected(self, connection: Connection) -> None:
        """Handle a connection that is ready for requests."""

    def completed(self, connection: Connection, exchange: Exchange) -> None:
        """Handle a complete reply."""

    def lost(self, connection: Connection, exchange: Exchange | None, reason: str, end: End) -> None:
        """Handle the end of a connection; reason: one sentence."""


class Connection:
    """Connection that carries one request at a time."""

    __slots__ = (
        "_connected", "_file", "_number", "_out", "_owner", "_place", "_poller", "_recvmsg", "_socket", "_stamps",
        "_taken", "_tls", "_tunnel", "_writing", "exchange", "idle_since_ns", "ready", "used",
    )  # fmt: skip

    def __init__(
        self, poller: Poller, address: tuple[Any, ...], place: Place, stamps: StampClock, owner: Owner, spare: int
    ) -> None:
        """Start to connect; file descriptors from `spare` on are kept for others.

        Raises OSError if no descriptor is available.
        """
        family, target = address
        self.ready = False  # connected, and secured if TLS is used
        self.used = False  # it has carried a request
        self.idle_since_ns = 0  # time at which it was last returned to its pool; 0: never
        self.exchange: Exchange | None = None
        self._place, self._poller, self._stamps, self._owner = place, poller, stamps, owner
        self._tls = TlsStream(place.tls, place.address.host) if place.tls else None
        self._tunnel = Tunnel(place.proxy, place.address.at) if place.proxy and place.tls else None
        self._out = b""
        self._writing = False
        self._taken = False  # the system accepted a part of the request
        self._connected = False
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        if self._socket.fileno() >= spare:
            self._socket.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._recvmsg = self._socket.recvmsg
        self._socket.setblocking(False)
        if family != getattr(socket, "AF_UNIX", None):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sys.platform == "linux":
            self._socket.setsockopt(socket.SOL_SOCKET, TIMESTAMPING, STAMP_RECEIVED_IN_SOFTWARE)
        self._file = self._socket.fileno()
        number = self._socket.connect_ex(target)  # failures are handled later, with the poller's events
        self._number = 0 if number == errno.EINPROGRESS else number
        poller.add(self._file, self._on_event, READ | WRITE)

    def send(self, exchange: Exchange) -> None:
        """Send a request as soon as the connection is ready."""
        self.exchange = exchange
        exchange.connection = self
        exchange.trace.connection_reused = self.used or self.ready
        if self.ready:
            self._start()

    def gone(self) -> bool:
        """Return True if the peer closed the idle connection or sent unrequested data."""
        try:
            found = self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        return not found or self._tls is None  # TLS sends messages of its own

    @property
    def clean(self) -> bool:
        """True if no part of a request is left to send; a reply may come before its request has left."""
        return not self._out

    def close(self) -> None:
        """Close without a call to the owner."""
        if self._file >= 0:
            self._poller.remove(self._file)
            self._file = -1
            self._socket.close()
            self.exchange = None

    def _start(self) -> None:
        assert self.exchange is not None
        self.used = True
        self._taken = False
        self.exchange.trace.earliest_ns = monotonic_ns()
        self._push(self.exchange.payload)

    def _push(self, data: bytes) -> None:
        if self._tls is not None:
            data = self._tls.encrypt(data)
        self._out = self._out + data if self._out else data
        self._flush()

    def _flush(self) -> None:
        while self._out:
            now_ns = monotonic_ns()
            try:
                count = self._socket.send(self._out)
            except (BlockingIOError, InterruptedError):
                self._writing = True
                self._poller.change(self._file, READ | WRITE)
                return
            except OSError as error:
                self._lose(_reason(error, self._place), End.READ if self._taken else End.UNREAD)
                return
            self._taken = True
            self._out = self._out[count:]
            if not self._out and self.ready and self.exchange is not None:
                trace = self.exchange.trace
                if trace.attempt_sent_ns is None:
                    trace.attempt_sent_ns = now_ns
                if trace.sent_ns is None:  # a repeated request keeps the time of its first sending
                    trace.sent_ns = now_ns
                    at_once = trace.connection_reused and not trace.retries
                    began_ns = trace.earliest_ns if at_once else trace.dispatched_ns
                    trace.accepting_ns = 0 if began_ns is None else now_ns - began_ns
        if self._writing:
            self._writing = False
            self._poller.change(self._file, READ)

    def _on_event(self, events: int) -> None:
        if not self._connected:
            self._finish_connecting()
        else:
            self._secure()

    def _read(self, events: int) -> None:
        if events & WRITE:
            self._flush()
            if events == WRITE or self._file < 0:
                return
        try:
            data, ancillary, _, _ = self._recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end_of_stream(_reason(error, self._place), reset=True)
            return
        read_ns = monotonic_ns()
        if not data:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._end_of_stream("the server closed the connection", reset=number != 0)
            return
        if self._tls is not None:
            data = self._decrypted(data)
            if not data:
                return
        exchange = self.exchange
        if exchange is None:
            self._lose("the server sent data without a request")
            return
        trace = exchange.trace
        trace.stamps.append(ancillary[0][2] if ancillary else b"")
        trace.read_ns.append(read_ns)
        if exchange.reply.feed(data):
            trace.done_ns = self._stamps.last_arrival(trace)
            self._owner.completed(self, exchange)

    def _end_of_stream(self, reason: str, *, reset: bool) -> None:
        exchange = self.exchange
        if exchange is not None and exchange.reply.started and exchange.reply.closed():
            exchange.trace.done_ns = monotonic_ns()
            self._owner.completed(self, exchange)
        else:
            self._lose(reason, self._end(reset=reset))

    def _end(self, *, reset: bool) -> End:
        """Return whether the peer had closed the connection before it read the request.

        A system resets a connection that is closed with unread data, or that was closed before the data came, and does
        not acknowledge data after its end. A server that reads a request and then closes does neither. A reset may also
        be deliberate, so it counts only right after a reply and the next request.
        """
        now_ns = monotonic_ns()
        trace = None if self.exchange is None else self.exchange.trace
        if trace is None or not self.idle_since_ns or trace.sent_ns is None:
            return End.READ
        soon = now_ns - self.idle_since_ns < AT_ONCE_NS and now_ns - trace.earliest_ns < _SOON_NS
        if self._unacknowledged() or (reset and soon):
            return End.UNREAD
        return End.BEHIND_A_REPLY if soon else End.READ

    def _unacknowledged(self) -> bool:
        if sys.platform != "linux" or self._socket.family == socket.AF_UNIX:
            return False
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNACKED_AT + 4)
        return len(info) == _UNACKED_AT + 4 and int.from_bytes(info[_UNACKED_AT:], sys.byteorder) > 0

    def _finish_connecting(self) -> None:
        number = self._number or self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._lose(_reason(OSError(number, os.strerror(number)), self._place))
            return
        self._connected = True
        self._poller.change(self._file, READ)
        if self._tunnel is not None:
            self._out = self._tunnel.opening
            self._flush()
        elif self._tls is None:
            self._become_ready()
        else:
            self._secure()

    def _secure(self) -> None:
        """Continue with the proxy's tunnel or the TLS handshake."""
        assert self._tls is not None
        try:
            data = self._received()
            if self._tunnel is not None:
                if not self._tunnel.received(data):
                    return
                self._tunnel, data = None, b""
            self._tls.handshake(data)
        except TunnelRefused as refused:
            self._lose(str(refused))
        except ssl.SSLError as error:
            self._lose(tls_failure(error, self._place.address.host))
        except OSError as error:
            self._lose(_reason(error, self._place))
        else:
            self._push(b"")
            if self._tls.ready:
                self._become_ready()

    def _received(self) -> bytes:
        """Read bytes of the handshake. Raises ConnectionResetError if the server closed the connection."""
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return b""
        if not data:
            raise ConnectionResetError("the connection was closed during the handshake")
        return data

    def _become_ready(self) -> None:
        self.ready = True
        self._poller.handle(self._file, self._read)
        if self.exchange is not None:
            self.exchange.trace.connected_ns = monotonic_ns()
            self._start()
        self._owner.connected(self)

    def _decrypted(self, data: bytes) -> bytes:
        assert self._tls is not None
        try:
            return self._tls.decrypt(data)
        except ssl.SSLError as error:
            self._lose(tls_failure(error, self._place.address.host))
            return b""

    def _lose(self, reason: str, end: End = End.READ) -> None:
        exchange = self.exchange
        self.close()
        self._owner.lost(self, exchange, reason, end)


def _reason(error: OSError, place: Place) -> str:
    at = place.at
    if error.errno == errno.EAGAIN:
        return f"{at} accepts no further connection: its queue is full"
    if isinstance(error, ConnectionRefusedError) or error.errno == getattr(os, "ECONNREFUSED", 111):
        return f"nothing listens at {at}: the connection was refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return f"{at} closed the connection"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"no connection to {at}: {error.strerror}: this machine has no port left for one more connection"
    return f"no connection to {at}: {error.strerror or error}"
