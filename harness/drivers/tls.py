"""TLS around a connection, without input and output of its own."""

from __future__ import annotations

import ssl

_RECORD = 65_536


class TlsStream:
    """Plain bytes on one side, encrypted ones on the other. Raises ssl.SSLError where the peer is not to be trusted."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ready = False

    def handshake(self) -> None:
        """Go on with the handshake as far as what came in allows; `ready` says when it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        self.ready = True

    def encrypt(self, data: bytes) -> None:
        """Put bytes on their way; fetch them with `to_send`."""
        self._tls.write(data)

    def to_send(self) -> bytes:
        """Encrypted bytes that wait to be sent."""
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """The plain bytes which encrypted ones complete."""
        self._incoming.write(data)
        plain = []
        while True:
            try:
                part = self._tls.read(_RECORD)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                break
            if not part:
                break
            plain.append(part)
        return b"".join(plain)

    def received(self, data: bytes) -> None:
        """Encrypted bytes that came in during the handshake."""
        self._incoming.write(data)
