"""Choose the metrics pages to read beside a cell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from engines.base import EngineSpec
from engines.http.addresses import Address
from harness.schedule.availability import answers_in_process
from harness.schedule.cells import Cell
from harness.telemetry.prometheus.names import SERVER
from harness.telemetry.prometheus.page import PageOrder
from harness.telemetry.prometheus.scraper import ServerPages, Sink


def pages_beside(cell: Cell, sink: Sink) -> ServerPages:
    """Return the reader of the metrics pages of a cell."""
    likely = not answers_in_process(cell.engine) if cell.pages is None else bool(cell.pages)
    return ServerPages(sink, partial(orders_for, cell), server_is_here=cell.scope == SERVER, likely=likely)


def orders_for(cell: Cell, own: Sequence[str]) -> list[PageOrder]:
    """Return the pages to read beside a cell; `own` are those that its engine names.

    The API key and the headers go to pages of the same server only (scheme, host and port).
    """
    spec = cell.spec
    if cell.pages == ():
        return []
    own = list(filter(_is_address, own))
    requested = {page.url: page for page in cell.pages or ()}
    urls = spec.options.get("url") or ()
    servers = {_origin(url) for url in (*([urls] if isinstance(urls, str) else urls), *own)}
    found = []
    for url in dict.fromkeys((*own, *requested)):
        names = {str(ours): theirs for ours, theirs in requested[url].names.items()} if url in requested else {}
        trusted = _origin(url) in servers
        headers, tls = (_headers(spec), dict(spec.options.get("tls") or {})) if trusted else ({}, {})
        found.append(PageOrder(url, names, url in requested, headers, tls))
    return found


def _headers(spec: EngineSpec) -> dict[str, str]:
    plain = {name: str(value) for name, value in (spec.options.get("headers") or {}).items()}
    return {**plain, **spec.headers, **({"Authorization": f"Bearer {spec.api_key}"} if spec.api_key else {})}


def _is_address(url: str) -> bool:
    """Return whether a page that an engine names (a plugin, perhaps) has a valid address."""
    try:
        return bool(Address.of(url))
    except ValueError:
        return False


def _origin(url: str) -> tuple[bool, str, int, str | None]:
    address = Address.of(url)
    return address.secure, address.host, address.port, address.socket_path
