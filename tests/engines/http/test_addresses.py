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
