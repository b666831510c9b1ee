"""Asking a proxy for a tunnel (CONNECT), without input and output of its own."""

from __future__ import annotations

from harness.drivers.place import Place

_LONGEST_ANSWER = 65_536


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
