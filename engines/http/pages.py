"""Pages of a server that describe it, fetched by the same route as the requests, but not timed."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engines.base import StartFailed
from engines.dialects.base import WireRequest, WireResponse
from engines.http.addresses import Address, proxy_for, tls_context, tls_failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp
    from yarl import URL

ANSWER_LIMIT_S = 10.0
REPLY_LIMIT_S = 300.0
LARGEST_PAGE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Page:
    """Answer to a GET. `content`: JSON object, None if the page is not one."""

    status: int
    html: bool
    content: dict[str, Any] | None


class Pages:
    """Pages of one server, inside `open_pages`."""

    def __init__(self, session: aiohttp.ClientSession, address: Address, proxy: Mapping[str, Any]) -> None:
        self.url = address.url  # for messages
        self._address = address
        self._session = session
        self._proxy = proxy

    def at(self, path: str) -> str:
        """Return the URL of a page, for messages."""
        return self._address.page_url(path)

    async def get(self, path: str) -> Page:
        """Return a page. Raises StartFailed, one sentence, if the server does not answer."""
        response, body = await self._answer("GET", self._address.page(path))
        return Page(response.status, _is_html(response.content_type, body), _object(body))

    async def send(self, request: WireRequest) -> WireResponse:
        """Return the reply to a request, whose model may have to be loaded first. Raises as `get`."""
        target = self._address.target(request.path)
        response, body = await self._answer(request.method, target, request, REPLY_LIMIT_S)
        return WireResponse(response.status, {name.lower(): value for name, value in response.headers.items()}, [body])

    async def _answer(
        self, method: str, target: str, sent: WireRequest | None = None, limit_s: float = ANSWER_LIMIT_S
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Return the response to a request and its whole body."""
        import aiohttp

        url, way = self._address.full(target), {"timeout": aiohttp.ClientTimeout(total=limit_s), **self._proxy}
        if sent is not None:
            way |= {"data": sent.body, "headers": {**sent.headers, **way.get("headers", {})}}
        try:
            async with self._session.request(method, self._url(target), allow_redirects=False, **way) as response:
                body = await read_body(response, LARGEST_PAGE_BYTES)
                if body is None:
                    raise StartFailed(f"{url} answers with more than {LARGEST_PAGE_BYTES >> 20} MiB; correct url")
                return response, body
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise StartFailed(f"no secure connection to {url}: {self._tls_failure(error)}") from error
        except TimeoutError as error:
            waited = f"{url} did not answer within {limit_s:g} s"
            raise StartFailed(f"{waited}; is the server busy or hanging?") from error
        except aiohttp.ClientProxyConnectionError as error:
            raise StartFailed(f"the proxy for {url} does not answer: {error.strerror or error}") from error
        except aiohttp.ClientHttpProxyError as error:
            raise StartFailed(f"the proxy opens no tunnel to {url} (HTTP {error.status} {error.message})") from error
        except (aiohttp.ClientError, OSError) as error:
            why = str(error).replace(" ssl:default", "")  # in aiohttp's text even without TLS
            raise StartFailed(f"no server answers at {url}: {why}; start it, or correct url") from error

    async def post(self, path: str) -> int | None:
        """Send a POST without a body. Return its status, None without an answer."""
        import aiohttp

        try:
            url = self._url(self._address.page(path))
            async with self._session.post(url, allow_redirects=False, **self._proxy) as response:
                return response.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    def _url(self, target: str) -> URL:
        """Return the URL for the HTTP library, which must not encode it again."""
        from yarl import URL

        return URL(self._address.origin + target, encoded=True)

    async def optional(self, path: str) -> dict[str, Any]:
        """Return the JSON object of an optional page; {} if there is none."""
        try:
            page = await self.get(path)
        except StartFailed:
            return {}
        return page.content or {} if page.status == 200 else {}

    def _tls_failure(self, error: Exception) -> str:
        """Return OpenSSL's error, which aiohttp wraps."""
        inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        return tls_failure(inner, self._address.host) if isinstance(inner, ssl.SSLError) else str(error)


async def read_body(response: aiohttp.ClientResponse, most_bytes: int) -> bytes | None:
    """Return a whole page; None if it is larger than `most_bytes`."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > most_bytes:
            return None
    return bytes(body)


def connector_to(address: Address, tls: Mapping[str, Any], **options: Any) -> aiohttp.BaseConnector:
    """Return a connector for the socket or port of a server. Raises EngineError if a TLS file cannot be used."""
    import aiohttp

    if address.socket_path is not None:
        return aiohttp.UnixConnector(address.socket_path, **options)
    return aiohttp.TCPConnector(ssl=tls_context(tls) if address.secure else True, **options)


@asynccontextmanager
async def open_pages(
    url: str, *, headers: Mapping[str, str], tls: Mapping[str, Any], proxy: str | None
) -> AsyncIterator[Pages]:
    """Open the pages of a server.

    Raises StartFailed for an unusable address or proxy, EngineError for an unusable certificate.
    """
    import aiohttp

    try:
        address = Address.of(url)
        through = proxy_for(address, proxy)
    except ValueError as error:
        raise StartFailed(str(error)) from error
    connector = connector_to(address, tls)
    way: dict[str, Any] = {}
    if through is not None:
        secret = {"Proxy-Authorization": through.authorization} if through.authorization else {}
        # The request for the tunnel carries the password. A request inside the tunnel goes to the server.
        way = {"proxy": through.url} | ({"proxy_headers" if address.secure else "headers": secret} if secret else {})
    timeout = aiohttp.ClientTimeout(total=ANSWER_LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        yield Pages(session, address, way)


def _is_html(content_type: str, body: bytes) -> bool:
    return content_type == "text/html" or body[:100].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
