"""One Prometheus page: when it is asked, how it is fetched, and how that went."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from engines.base import EngineError
from engines.http.addresses import Address, tls_context
from harness.telemetry.prometheus.names import NO_KNOWN_NAME, Page, read_page
from harness.telemetry.prometheus.tally import Tally

if TYPE_CHECKING:
    import aiohttp

EVERY_NS = 1_000_000_000
PATIENCE_S = 0.8
LARGEST_PAGE_BYTES = 8 << 20
CLEAR_OF_AN_END_NS = 300_000_000


def load_libraries() -> None:
    """What the first page would otherwise wait for."""
    import_module("aiohttp")
    import_module("prometheus_client.parser")


class PageFailed(Exception):
    """A page could not be read. final: it will not be there later either."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(why)
        self.final = final


@dataclass(frozen=True, slots=True)
class PageOrder:
    """A page to read.

    url: its address.   names: ours to the page's own, where the scenario states them.   asked: the scenario names it,
    so that its absence is worth a word.   headers, tls: as for requests, where it is the same server's.
    """

    url: str
    names: Mapping[str, str] = field(default_factory=dict)
    asked: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: Mapping[str, str] = field(default_factory=dict)


class PageReader:
    """One page: how it is fetched, what was found on it, and how it went.

    misses: failures in a row.   dropped: it is not asked any more.
    tally: of the trial under way, or of the last one.
    """

    def __init__(self, order: PageOrder) -> None:
        self.order = order
        self.kind: str | None = None
        self.source = ""
        self.dropped = False
        self.misses = 0
        self.tally = Tally()
        self.begin_tally()

    def begin_tally(self) -> None:
        """Count from here on, for another trial."""
        self.tally = Tally(
            url=self.order.url,
            source=self.source or None,
            kind=self.kind or None,
            scrapes=0,
            failures=0,
            ms_per_scrape=None,
            ms_per_reading=None,
            reason=self.tally.reason if self.dropped else None,
        )

    async def fetch(self, session: aiohttp.ClientSession, url: str) -> tuple[Page, int, int]:
        """The page, with the moments before the request and after the last byte. Raises PageFailed."""
        before_ns = time.monotonic_ns()
        try:
            text = await _text(session, url)
            after_ns = time.monotonic_ns()
            page = read_page(text, self.order.names)
        except ValueError as error:
            raise self._failed(PageFailed(f"is no page of Prometheus: {error}", final=True)) from error
        except PageFailed as failure:
            raise self._failed(failure) from failure
        if not page.kind:
            raise self._failed(PageFailed(NO_KNOWN_NAME, final=True))
        self.tally.count(after_ns - before_ns, time.monotonic_ns() - after_ns)
        self.kind = self.tally.kind = page.kind
        self.misses = 0
        return page, before_ns, after_ns

    def _failed(self, failure: PageFailed) -> PageFailed:
        self.misses += 1
        self.tally.failures += 1
        self.tally.reason = str(failure)
        return failure


async def _text(session: aiohttp.ClientSession, url: str, *, turns: int = 1) -> str:
    """What stands at an address, or where that points to once within the same server, as from /metrics to /metrics/."""
    import aiohttp

    try:
        async with session.get(url, allow_redirects=False) as response:
            there = _same_server(response) if turns else None
            if there is not None:
                return await _text(session, there, turns=0)
            if response.status != 200:
                raise PageFailed(f"answers with status {response.status}", final=400 <= response.status < 500)
            body = bytearray()
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > LARGEST_PAGE_BYTES:
                    raise PageFailed(f"is larger than {LARGEST_PAGE_BYTES >> 20} MiB", final=True)
            return body.decode("utf-8", "replace")
    except TimeoutError as error:
        raise PageFailed(f"did not answer within {PATIENCE_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise PageFailed(f"cannot be had: {str(error).replace(' ssl:default', '')}") from error


def _same_server(response: aiohttp.ClientResponse) -> str | None:
    """Where a response sends us, if that is the same server: our headers are for nobody else."""
    if response.status not in (301, 302, 307, 308) or "Location" not in response.headers:
        return None
    target = urljoin(str(response.url), response.headers["Location"])
    return target if urlsplit(target)[:2] == urlsplit(str(response.url))[:2] else None


@contextlib.asynccontextmanager
async def session_for(order: PageOrder) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """What fetches a page, without any proxy, and the address in its words. Each time over a connection of its own: one
    that is kept takes a thread from some servers. Raises PageFailed for useless TLS files.
    """
    import aiohttp

    address = Address.of(order.url)
    connector: aiohttp.BaseConnector
    try:
        if address.socket_path is not None:
            connector = aiohttp.UnixConnector(address.socket_path, force_close=True)
        else:
            context = tls_context(order.tls) if address.secure else True
            connector = aiohttp.TCPConnector(ssl=context, force_close=True)
    except (EngineError, ssl.SSLError) as error:
        raise PageFailed(str(error), final=True) from error
    url = f"{'https' if address.secure else 'http'}://{address.authority}{address.base_path or '/metrics'}"
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(connector=connector, headers=order.headers, timeout=timeout) as session:
        yield session, url


class Due:
    """When a page is asked next: once a second on a grid, and at moments that were asked for, which come first."""

    def __init__(self, now_ns: int) -> None:
        self._tick_ns = now_ns
        self._moments: list[int] = []
        self.changed = asyncio.Event()

    def at(self, *moments_ns: int) -> None:
        """Ask at these moments too."""
        self._moments += moments_ns
        self.changed.set()

    def next_ns(self, now_ns: int) -> int:
        """The next moment, which may have passed. A tick right before one that was asked for is left out."""
        if self._tick_ns < now_ns - EVERY_NS:
            self._tick_ns += (now_ns - self._tick_ns) // EVERY_NS * EVERY_NS
        first = min(self._moments, default=math.inf)
        if self._tick_ns <= first <= self._tick_ns + CLEAR_OF_AN_END_NS:
            self._tick_ns += EVERY_NS
        return int(min(first, self._tick_ns))

    def done(self, now_ns: int) -> None:
        """The page is asked now, for every moment that has passed."""
        self._moments = [moment for moment in self._moments if moment > now_ns]
        if self._tick_ns <= now_ns:
            self._tick_ns += EVERY_NS

    async def wait(self) -> None:
        """Until the next moment."""
        while (due_ns := self.next_ns(now_ns := time.monotonic_ns())) > now_ns:
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), (due_ns - now_ns) / 1e9)
