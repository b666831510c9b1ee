"""Destination of requests: a server's address with its TLS and proxy."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engines.base import Endpoint, EngineError
from engines.http.addresses import Address, Proxy, proxy_for, tls_context


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """One server, with the TLS context of an https URL and the proxy on the way."""

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

    @property
    def tunnelled(self) -> bool:
        """True if requests pass through the proxy in a tunnel."""
        return self.proxy is not None and self.tls is not None

    def path(self, path: str) -> str:
        """Return the full path. A version that ends the base and begins the path appears once."""
        base_path = self.address.base_path
        first = path[: path.find("/", 1)]
        return base_path + (path.removeprefix(first) if first and base_path.endswith(first) else path)

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """Return the start of a request up to the length of its body."""
        target = self.path(path)
        lines = [f"host: {self.address.authority}", *(f"{name}: {value}" for name, value in headers.items())]
        if self.proxy is not None and not self.tunnelled:
            target = f"http://{self.address.authority}{target}"
            lines += _authorization(self.proxy)
        lines = [f"{method} {target} HTTP/1.1", *lines, "accept-encoding: identity", "content-length: "]
        return "\r\n".join(lines).encode("latin-1")

    def tunnel_request(self) -> bytes:
        """Return the request for a tunnel."""
        assert self.proxy is not None
        to = self.address.at
        lines = [f"CONNECT {to} HTTP/1.1", f"host: {to}", *_authorization(self.proxy), "", ""]
        return "\r\n".join(lines).encode("latin-1")


def places_of(endpoint: Endpoint) -> list[Place]:
    """Return the servers of an endpoint, in round-robin order.

    Raises ValueError, one sentence, for an invalid address, proxy or certificate.
    """
    addresses = [Address.of(url) for url in (endpoint.url, *endpoint.others)]
    try:
        context = tls_context(endpoint.tls) if any(one.secure for one in addresses) else None
    except EngineError as error:
        raise ValueError(str(error)) from error
    return [
        Place(address, context if address.secure else None, proxy_for(address, endpoint.proxy)) for address in addresses
    ]


def secrets_of(places: Sequence[Place]) -> list[str]:
    """Return the secrets that a proxy may repeat and that must not be stored."""
    proxies = [place.proxy for place in places if place.proxy is not None]
    parts = [part for one in proxies for part in ((one.authorization or "").rpartition(" ")[2], one.password)]
    known = {part for part in parts if part and len(part) > 3}  # a single letter would mask parts of every sentence
    return sorted(known, key=len, reverse=True)


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
