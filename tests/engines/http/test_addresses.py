"""Addresses of servers: what is one, and the sentence for what is none."""

from __future__ import annotations

import pytest

from engines.http.addresses import Address


@pytest.mark.parametrize(
    "url",
    ["http://h/a b", "http://h/\x01", "http://ex..de", "http://" + "a" * 64 + ".de", "ftp://h", "http://h:0", "h"],
)
def test_what_is_no_address_says_what_to_write(url: str) -> None:
    """Also what could not be sent in a request line, or asked of a name server."""
    with pytest.raises(ValueError, match="write http://host:port"):
        Address.of(url)


def test_a_name_in_another_script_is_sent_as_name_servers_know_it() -> None:
    """As IDNA says; addresses of version 6 stay as they are."""
    assert Address.of("http://bücher.example").host == "xn--bcher-kva.example"
    assert Address.of("http://[::1]:8000").host == "::1"
