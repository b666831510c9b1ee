"""Addresses of servers: what is one, and the sentence for what is none."""

from __future__ import annotations

import pytest

from engines.http.addresses import Address


@pytest.mark.parametrize(
    "url",
    ["http://h/a b", "http://h/\x01", "http://ex..de", "http://" + "a" * 64 + ".de", "ftp://h", "http://h:0", "h"],
)
def test_an_invalid_address_is_refused_with_a_fix(url: str) -> None:
    """Addresses invalid in a request line or for a name server are refused too."""
    with pytest.raises(ValueError, match="write http://host:port"):
        Address.of(url)


def test_a_name_in_another_script_is_sent_as_name_servers_know_it() -> None:
    """Host names follow IDNA; IPv6 addresses stay unchanged."""
    assert Address.of("http://bücher.example").host == "xn--bcher-kva.example"
    assert Address.of("http://[::1]:8000").host == "::1"


@pytest.mark.parametrize(
    ("url", "target", "page"),
    [
        ("http://h", "/v1/chat/completions", "/version"),
        ("http://h/", "/v1/chat/completions", "/version"),
        ("http://h/v1/", "/v1/chat/completions", "/version"),
        ("http://h/proxy", "/proxy/v1/chat/completions", "/proxy/version"),
        ("http://h/proxy/v1", "/proxy/v1/chat/completions", "/proxy/version"),
        ("http://h/v3", "/v3/chat/completions", "/version"),
        ("http://h/v1beta/openai/", "/v1beta/openai/chat/completions", "/version"),
        ("http://h/api/paas/v4", "/api/paas/v4/chat/completions", "/api/paas/version"),
        ("http://h/v1/projects/p/endpoints/openapi", "/v1/projects/p/endpoints/openapi/chat/completions", "/version"),
        ("http://h/serving/chat/completions", "/serving/chat/completions", "/serving/version"),
        ("http://h/chat/completions", "/chat/completions", "/version"),
        ("http://h/d/x?api-version=2", "/d/x/chat/completions?api-version=2", "/d/x/version"),
        ("http://h/v2-model", "/v2-model/v1/chat/completions", "/v2-model/version"),
        ("http+unix:///s.sock:/v3", "/v3/chat/completions", "/version"),
    ],
)
def test_a_base_with_a_version_of_its_own_replaces_that_of_the_api(url: str, target: str, page: str) -> None:
    """So does one that names an operation, or has a query; pages of the server stand before the version."""
    address = Address.of(url)
    assert address.target("/v1/chat/completions") == target
    assert address.page("/version") == page
    assert address.page("/v1/models") == target.replace("chat/completions", "models")


def test_other_paths_follow_the_whole_base() -> None:
    """Those of APIs that have no version, with the query."""
    assert Address.of("http://h/v2/m?a=b%20c").target("/api/chat") == "/v2/m/api/chat?a=b%20c"
    assert Address.of("http://h:8/v3").page_url("/metrics") == "http://h:8/metrics"
    assert Address.of("http+unix:///a/s.sock").page_url("/metrics") == "http+unix:///a/s.sock:/metrics"
