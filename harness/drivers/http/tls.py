"""Sans-I/O TLS of a connection, and the request for a proxy's tunnel (CONNECT)."""

from __future__ import annotations

import contextlib
import ssl

from harness.drivers.http.place import Place

_RECORD = 65_536
_LONGEST_ANSWER = 65_536


class TlsStream:
    """Plain bytes on one side, encrypted bytes on the other. Raises ssl.SSLError for an untrusted peer."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ready = False

    def handshake(self, data: bytes) -> None:
        """Continue the handshake with the data received; `ready` is True at its end."""
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            self.ready = True

    def encrypt(self, data: bytes) -> bytes:
        """Return the bytes to send: those of the handshake, and these bytes encrypted."""
        if data:
            self._tls.write(data)
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return the plain bytes that these encrypted bytes complete."""
        self._incoming.write(data)
        plain = []
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self._tls.read(_RECORD):
                plain.append(part)
        return b"".join(plain)


class TunnelRefused(Exception):
    """Refusal of a tunnel by the proxy; one sentence."""


class Tunnel:
    """Request for a tunnel, and the proxy's answer. opening: the bytes to send."""

    def __init__(self, place: Place) -> None:
        self.opening = place.tunnel_request()
        self._place = place
        self._came = b""

    def received(self, data: bytes) -> bool:
        """Add bytes of the answer; return True if the tunnel is open. Raises TunnelRefused."""
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
