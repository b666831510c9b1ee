"""Check whether anything listens at the addresses of a plan's servers, before a run starts."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence

from engines.http.addresses import Address, proxy_for
from harness.errors import TrialFailed
from harness.scenario.base import listed
from harness.schedule.cells import Cell, Skip

CONNECT_LIMIT_S = 2.0


def silent_servers(planned: Sequence[Cell | Skip]) -> dict[str, str]:
    """Return a sentence for each cell one of whose servers refuses connections, by the cell's id."""
    urls = {cell.id: _urls(cell) for cell in planned if isinstance(cell, Cell)}
    refused = {url for url in {url for some in urls.values() for url in some} if _refuses(url)}
    found = {name: next((url for url in some if url in refused), None) for name, some in urls.items()}
    return {name: f"no server at {url}: start it, or correct `url`" for name, url in found.items() if url is not None}


def check_servers(planned: Sequence[Cell | Skip]) -> list[str]:
    """Return a sentence for each silent server.

    Raises:
        TrialFailed: No cell has a server that can be reached.
    """
    silent = silent_servers(planned)
    sentences = list(dict.fromkeys(silent.values()))
    if silent and all(cell.id in silent for cell in planned if isinstance(cell, Cell)):
        raise TrialFailed("; ".join(sentences))
    return sentences


def _urls(cell: Cell) -> list[str]:
    """Return the addresses that are reached directly; a server with `ready` may come up later."""
    options = cell.spec.options
    if options.get("ready"):
        return []
    urls = [str(url) for url in listed(options.get("url") or ())]
    with contextlib.suppress(ValueError):  # the start of the engine reports a wrong address or proxy
        return [url for url in urls if proxy_for(Address.of(url), options.get("proxy")) is None]
    return []


def _refuses(url: str) -> bool:
    """Return True if nothing listens at an address; an address that does not answer in time is unknown."""
    address = Address.of(url)
    try:
        if address.socket_path is None:
            socket.create_connection((address.host, address.port), CONNECT_LIMIT_S).close()
        else:
            with socket.socket(socket.AF_UNIX) as one:
                one.settimeout(CONNECT_LIMIT_S)
                one.connect(address.socket_path)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False
