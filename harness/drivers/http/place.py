"""Destination of requests: a server's address, its TLS, and the proxy's tunnel. No I/O on sockets."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.base import Endpoint, EngineError
from engines.http.addresses import Address, Proxy, proxy_for, tls_context
from engines.secrets import masked

_MOST_BYTES = 65_536  # of one TLS record, and of a proxy's answer


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Server, with the TLS context of an https URL and the proxy on the way."""

    address: Address
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None

    @property
    def at(self) -> str:
        """Target of the connection, for messages."""
        return f"the proxy {self.proxy.at}" if self.proxy else self.address.at

    @property
    def dialled(self) -> tuple[str, int]:
        """Host and port to connect to; meaningless for a Unix socket."""
        return (self.proxy.host, self.proxy.port) if self.proxy else (self.address.host, self.address.port)

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """Return the start of a request up to the length of its body."""
        target = self.address.target(path)
        lines = [f"host: {self.address.authority}", *(f"{name}: {value}" for name, value in headers.items())]
        if self.proxy is not None and self.tls is None:  # no tunnel
            target = f"http://{self.address.authority}{target}"
            lines += _authorization(self.proxy)
        lines = [f"{method} {target} HTTP/1.1", *lines, "accept-encoding: identity", "content-length: "]
        return "\r\n".join(lines).encode("latin-1")


class TlsStream:
    """Plain bytes on one side, encrypted bytes on the other. Raises ssl.SSLError for an untrusted peer."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
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
            while part := self._tls.read(_MOST_BYTES):
                plain.append(part)
        return b"".join(plain)


class TunnelRefused(Exception):
    """Refusal of a tunnel by the proxy; one sentence."""


class Tunnel:
    """Request for a tunnel (CONNECT), and the proxy's answer. `opening` holds the bytes to send."""

    def __init__(self, proxy: Proxy, to: str) -> None:
        lines = [f"CONNECT {to} HTTP/1.1", f"host: {to}", *_authorization(proxy), "", ""]
        self.opening = "\r\n".join(lines).encode("latin-1")
        self._proxy, self._to = f"the proxy {proxy.at}", to
        self._came = b""

    def received(self, data: bytes) -> bool:
        """Add bytes of the answer; return True if the tunnel is open. Raises TunnelRefused."""
        self._came += data
        head, end, rest = self._came.partition(b"\r\n\r\n")
        if not end and len(self._came) <= _MOST_BYTES:
            return False
        version, _, status = head.split(b"\r\n")[0].decode("latin-1").partition(" ")
        granted = status.startswith("2")
        if not end or not version.startswith("HTTP/") or (granted and rest):
            raise TunnelRefused(f"{self._proxy} did not answer like a proxy")
        if not granted:
            key = "; give user and password in its address" if status.startswith("407") else ""
            raise TunnelRefused(f"{self._proxy} opens no tunnel to {self._to} (HTTP {masked(status, 80)}){key}")
        return True


def places_of(endpoint: Endpoint) -> list[Place]:
    """Return the servers of an endpoint, in round-robin order. Raises ValueError for an invalid one."""
    addresses = [Address.of(url) for url in (endpoint.url, *endpoint.others)]
    try:
        context = tls_context(endpoint.tls) if any(one.secure for one in addresses) else None
    except EngineError as error:
        raise ValueError(str(error)) from error
    return [
        Place(address, context if address.secure else None, proxy_for(address, endpoint.proxy)) for address in addresses
    ]


def notes_of(places: Sequence[Place]) -> list[str]:
    """Return notes about the way to the server."""
    proxies = {place.proxy.url: place.proxy.source for place in places if place.proxy is not None}
    notes = [
        f"requests go through the proxy {url} ({source}): its time is part of every latency"
        for url, source in proxies.items()
    ]
    if any(place.address.socket_path for place in places):
        notes.append("a Unix socket has no stamps of the kernel: arrivals are those of the event loop")
    return notes


def _authorization(proxy: Proxy) -> list[str]:
    return [] if proxy.authorization is None else [f"proxy-authorization: {proxy.authorization}"]
