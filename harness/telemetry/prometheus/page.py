"""Schedule, fetch and statistics of a Prometheus page."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from engines.base import EngineError
from engines.http.addresses import Address
from engines.http.pages import connector_to, read_body
from engines.secrets import masked
from harness.telemetry.prometheus.names import NO_KNOWN_NAME, Page, read_page
from harness.telemetry.prometheus.tally import Tally

if TYPE_CHECKING:
    import aiohttp

EVERY_NS = 1_000_000_000
PATIENCE_S = 0.8
LARGEST_PAGE_BYTES = 8 << 20
CLEAR_OF_AN_END_NS = 300_000_000
LONGEST_REASON = 500


class PageFailed(Exception):
    """Failure to read a page, without secrets. final: a retry is useless."""

    def __init__(self, why: str, *, final: bool = False) -> None:
        super().__init__(masked(why, LONGEST_REASON))
        self.final = final


@dataclass(frozen=True, slots=True)
class PageOrder:
    """Page to read."""

    url: str
    names: Mapping[str, str] = field(default_factory=dict)  # our names to the page's own, if the scenario states them
    requested: bool = False  # the scenario names the page, so its absence is reported
    # Headers of the requests and TLS files, if the page is on the same server.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tls: Mapping[str, Any] = field(default_factory=dict)


class PageReader:
    """Reader of one page. `tally`: of the trial under way, or of the last one."""

    def __init__(self, order: PageOrder) -> None:
        self.order = order
        self.kind: str | None = None
        self.source = ""
        self.dropped = False  # not read any more
        self.ending = False  # the engine stops: a last reading may still succeed, its failure is none
        self.misses = 0  # failures in a row
        self.tally = Tally()
        self.begin_tally()

    def begin_tally(self) -> None:
        """Restart the counts, for another trial."""
        reason = self.tally.reason if self.dropped else None
        about = {"url": self.order.url, "source": self.source or None, "kind": self.kind or None, "reason": reason}
        self.tally = Tally.model_validate({**Tally().model_dump(), **about})  # stores the values not yet known too

    async def fetch(self, session: aiohttp.ClientSession, url: str) -> tuple[Page, int, int]:
        """Return the page, and the times before the request and after the last byte. Raises PageFailed."""
        before_ns = time.monotonic_ns()
        try:
            text = await _text(session, url)
            after_ns = time.monotonic_ns()
            page = read_page(text, self.order.names)
        except ValueError as error:
            raise self._failed(PageFailed(f"is not in Prometheus text format: {error}", final=True)) from error
        except PageFailed as failure:
            raise self._failed(failure) from failure
        if not page.kind:
            raise self._failed(PageFailed(NO_KNOWN_NAME, final=True))
        self.tally.count(after_ns - before_ns, time.monotonic_ns() - after_ns)
        self.kind = self.tally.kind = page.kind
        self.misses = 0
        return page, before_ns, after_ns

    def _failed(self, failure: PageFailed) -> PageFailed:
        if self.ending:
            return failure
        self.misses += 1
        self.tally.failures += 1
        self.tally.reason = str(failure)
        return failure


async def _text(session: aiohttp.ClientSession, url: str, *, turns: int = 1) -> str:
    """Return the content of an address, after at most one redirect within the server (/metrics to /metrics/)."""
    import aiohttp

    try:
        async with session.get(url, allow_redirects=False) as response:
            there = _same_server(response) if turns else None
            if there is not None:
                return await _text(session, there, turns=0)
            if response.status != 200:
                raise PageFailed(f"answers with status {response.status}", final=400 <= response.status < 500)
            body = await read_body(response, LARGEST_PAGE_BYTES)
            if body is None:
                raise PageFailed(f"is larger than {LARGEST_PAGE_BYTES >> 20} MiB", final=True)
            return body.decode("utf-8", "replace")
    except TimeoutError as error:
        raise PageFailed(f"did not answer within {PATIENCE_S:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise PageFailed(f"is unavailable: {str(error).replace(' ssl:default', '')}") from error


def _same_server(response: aiohttp.ClientResponse) -> str | None:
    """Return the target of a redirect to the same server; other servers must not get the headers."""
    if response.status not in (301, 302, 307, 308) or "Location" not in response.headers:
        return None
    target = urljoin(str(response.url), response.headers["Location"])
    return target if urlsplit(target)[:2] == urlsplit(str(response.url))[:2] else None


@contextlib.asynccontextmanager
async def session_for(order: PageOrder) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """Yield a session that fetches a page without any proxy, and the page's address.

    Each fetch uses a new connection, because a persistent one occupies a thread of some servers. Raises PageFailed for
    unusable TLS files.
    """
    import aiohttp

    address = Address.of(order.url)
    try:
        connector = connector_to(address, order.tls, force_close=True)
    except EngineError as error:
        raise PageFailed(str(error), final=True) from error
    url = address.request_url if address.base_path else f"{address.request_url}/metrics"
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(connector=connector, headers=order.headers, timeout=timeout) as session:
        yield session, url


class Due:
    """Schedule of a page: once a second on a grid, and at extra moments, which have priority."""

    def __init__(self, now_ns: int) -> None:
        self._tick_ns = now_ns
        self._moments: list[int] = []
        self.changed = asyncio.Event()

    def at(self, *moments_ns: int) -> None:
        """Add extra moments."""
        self._moments += moments_ns
        self.changed.set()

    def next_ns(self, now_ns: int) -> int:
        """Return the next moment, which may have passed. A tick shortly before an extra moment is skipped."""
        if self._tick_ns < now_ns - EVERY_NS:
            self._tick_ns += (now_ns - self._tick_ns) // EVERY_NS * EVERY_NS
        first = min(self._moments, default=math.inf)
        if self._tick_ns <= first <= self._tick_ns + CLEAR_OF_AN_END_NS:
            self._tick_ns += EVERY_NS
        return int(min(first, self._tick_ns))

    def owes(self, now_ns: int) -> bool:
        """Return True if an extra moment has passed without a reading."""
        return any(moment <= now_ns for moment in self._moments)

    def done(self, now_ns: int, *, again: bool = False) -> None:
        """Remove the moments that have passed; with `again` the extra ones stay, because their reading failed."""
        if not again:
            self._moments = [moment for moment in self._moments if moment > now_ns]
        if self._tick_ns <= now_ns:
            self._tick_ns += EVERY_NS

    async def wait(self) -> None:
        """Wait until the next moment."""
        while (due_ns := self.next_ns(now_ns := time.monotonic_ns())) > now_ns:
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), (due_ns - now_ns) / 1e9)
