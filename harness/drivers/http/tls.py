"""TLS around a connection, and the request to a proxy for a tunnel (CONNECT); both without input and output."""

from __future__ import annotations

import contextlib
import ssl

from harness.drivers.http.place import Place

_RECORD = 65_536
_LONGEST_ANSWER = 65_536


class TlsStream:
    """Plain bytes on one side, encrypted ones on the other. Raises ssl.SSLError where the peer is not to be trusted."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ready = False

    def handshake(self, data: bytes) -> None:
        """Go on with the handshake as far as what came in allows; `ready` says when it is done."""
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            self.ready = True

    def encrypt(self, data: bytes) -> bytes:
        """Return what is to be sent: of the handshake, and of these bytes."""
        if data:
            self._tls.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """The plain bytes which encrypted ones complete."""
        self._incoming.write(data)
        plain = []
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self._tls.read(_RECORD):
                plain.append(part)
        return b"".join(plain)


class TunnelRefused(Exception):
    """The proxy opens no tunnel; one sentence."""


class Tunnel:
    """From the request for a tunnel to the proxy's answer. opening: the bytes that ask for it."""

    def __init__(self, place: Place) -> None:
        self.opening = place.tunnel_request()
        self._place = place
        self._came = b""

    def received(self, data: bytes) -> bool:
        """Take what came in; whether the tunnel is open. Raises TunnelRefused."""
        self._came += data
        head, end, rest = self._came.partition(b"\r\n\r\n")
        if not end:
            if len(self._came) > _LONGEST_ANSWER:
                raise TunnelRefused(f"{self._place.at} did not answer like a proxy")
            return False
        version, _, status = head.split(b"\r\n")[0].decode("latin-1").partition(" ")
        if not version.startswith("HTTP/") or (status.startswith("2") and rest):
            raise TunnelRefused(f"{self._place.at} did not answer like a proxy")
        if not status.startswith("2"):
            key = "; give user and password in its address" if status.startswith("407") else ""
            to = f"{self._place.address.at} (HTTP {status[:80]})"
            raise TunnelRefused(f"{self._place.at} opens no tunnel to {to}{key}")
        return True
