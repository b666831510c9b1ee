"""The `metrics_urls` of a scenario: Prometheus pages of servers and exporters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field

from engines.http.addresses import UNIX_SCHEME, Address
from engines.secrets import looks_secret
from harness.scenario.base import Name, StrictModel, TextOrItems, items_by

# Names of `page_names.GAUGES` and `COUNTERS`.
ServerName = Literal[
    "running_requests",
    "waiting_requests",
    "kv_cache_share",
    "prompt_tokens",
    "generation_tokens",
    "finished_requests",
    "preemptions",
    "prefix_queries_tokens",
    "prefix_hits_tokens",
    "cached_prompt_tokens",
    "queue_time_s",
    "queue_time_count",
]


def checked_address(value: str, *, query: bool = False) -> str:
    """Return a server's address; raise ValueError for a wrong one or one with secrets.

    Args:
        query: It may have one, such as `?api-version=2024-10-21`.
    """
    if value.startswith(UNIX_SCHEME + ":"):
        Address.of(value)
        return value
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # raised for a port that is no number
        usable = False
    if not usable:
        form = f"{UNIX_SCHEME}:///path/to.sock" if value.startswith(("unix:", "/")) else "http://host:port"
        raise ValueError(f"{value!r} is not an address; write `{form}`")
    if parts.username or parts.password:
        raise ValueError("contains a user name or password; name their variable in `headers_env` or `api_key_env`")
    secret = next((name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if looks_secret(name)), None)
    if query and secret is not None:
        raise ValueError(f"contains `{secret}`, which would be stored; name its variable in `headers_env`, as a header")
    if parts.fragment or (parts.query and not query):
        raise ValueError("contains a `?` or `#`, which is not sent; name a key's variable in `api_key_env`")
    Address.of(value)
    return value


def check_distinct(urls: Sequence[str]) -> None:
    """Raise ValueError if an address occurs twice."""
    if repeated := next((url for url in urls if urls.count(url) > 1), None):
        raise ValueError(f"lists {repeated} twice; keep one")


class MetricsPage(StrictModel):
    """Prometheus page, with the meaning of its names if its server is unknown."""

    url: Annotated[str, AfterValidator(checked_address)] = Field(
        description="Address of the page. Default path: `/metrics`.", examples=["http://127.0.0.1:8000/metrics"]
    )
    names: dict[ServerName, Name] = Field(
        default={},
        description="The harness's names to the page's own names, for an unknown server. Only these are read.",
        examples=[{"running_requests": "active_requests", "waiting_requests": "queue_length"}],
    )


def _each_once(pages: tuple[MetricsPage, ...]) -> tuple[MetricsPage, ...]:
    check_distinct([page.url for page in pages])
    return pages


MetricsPages = Annotated[tuple[MetricsPage, ...], items_by("url"), AfterValidator(_each_once), TextOrItems()]


def pages_of(*lists: Sequence[MetricsPage] | None) -> tuple[MetricsPage, ...] | None:
    """Return the distinct pages of several lists; None if all lists are None."""
    if all(one is None for one in lists):
        return None
    return tuple({page.url: page for one in lists for page in one or ()}.values())
