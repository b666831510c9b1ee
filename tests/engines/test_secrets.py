"""What `masked` takes out of texts: secrets in each form in which another program repeats them, and nothing else."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.http.addresses import Address, proxy_for
from engines.process.log import mask
from engines.secrets import forget, hide, hide_environment, hide_headers, masked, masked_in

KEY = "sk-Proj/7f3+9c-0123456789abcdef"
SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60)
PIECE = 8


def pieces_in(text: str, secret: str) -> list[str]:
    """The pieces of a secret that a text holds."""
    pieces = {secret[at : at + PIECE] for at in range(len(secret) - PIECE + 1)}
    return [piece for piece in pieces if piece in text]


def test_without_secrets_a_text_stays_as_it_is() -> None:
    """It is only cut."""
    assert masked("Bearer abcdefgh", 8) == "Bearer a"
    assert masked("Bearer abcdefgh") == "Bearer abcdefgh"


@pytest.mark.parametrize(
    "echoed",
    [
        f"Bearer {KEY}",
        json.dumps({"key": KEY}),
        json.dumps({"key": KEY}).replace("/", "\\/"),
        json.dumps(json.dumps({"key": KEY}).replace("/", "\\/")),
        "".join(f"\\u{ord(sign):04X}" for sign in KEY),
        f"GET /v1?key={quote(KEY, safe='')}",
        "".join(f"%{ord(sign):02x}" for sign in KEY),
        html.escape(KEY).replace("/", "&#x2F;").replace("+", "&#43;"),
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f":{KEY}".encode()).decode(),
        repr({"Authorization": f"Bearer {KEY}"}),
        f"Incorrect API key provided: {KEY[:12]}***********cdef.",
        f"{KEY}{KEY},{KEY}",
    ],
)
def test_a_key_is_found_in_every_form(echoed: str) -> None:
    """As it is, escaped, encoded, and the start of it."""
    hide(f"Bearer {KEY}")
    found = masked(f"no such key: {echoed}, see the manual")
    assert "***" in found
    assert found.startswith("no such key: ")
    assert found.endswith(", see the manual")
    assert not pieces_in(found, KEY)
    assert not pieces_in(found, base64.b64encode(KEY.encode()).decode())


@given(secret=SECRETS, before=st.text(max_size=80), after=st.text(max_size=80), most=st.integers(0, 120))
def test_no_piece_of_a_secret_is_left_wherever_a_text_is_cut(secret: str, before: str, after: str, most: int) -> None:
    """Also where it stands at the place of the cut, which comes last."""
    forget()
    hide(secret)
    found = masked(f"{before}{secret}{after}", most)
    assert len(found) <= most
    assert secret not in found
    if secret not in before + after and not pieces_in(before + "\0" + after, secret):
        assert not pieces_in(found, secret)
    forget()


@pytest.mark.parametrize("at", range(1, len(KEY)))
def test_a_text_that_was_cut_before_ends_without_a_piece(at: int) -> None:
    """A plugin or a library may cut by itself."""
    hide(KEY)
    assert not pieces_in(masked(f"no such key: {KEY[:at]}"), KEY)
    assert not pieces_in(masked(f"{KEY[at:]} is no key"), KEY)


def test_a_long_text_is_masked_without_looking_through_all_of_it() -> None:
    """A reply of megabytes that repeats the key leaves none of it in the part that is kept."""
    hide(KEY)
    found = masked(f"{KEY} " * 100_000, 200)
    assert found == ("*** " * 50)


@pytest.mark.parametrize(
    ("secret", "text", "expected"),
    [
        ("abc", "key abc is unknown: abcdef", "key *** is unknown: abcdef"),
        ("ab", "key ab is unknown", "key ab is unknown"),
        ("", "key  is unknown", "key  is unknown"),
        ("tiny", "model tiny-1, untiny", "model ***-1, untiny"),
        ("content-123-456", "a content, some content", "a content, some content"),
        ("research-team-1", "research is done by researchers", "research is done by researchers"),
    ],
)
def test_a_short_secret_is_masked_as_a_word_only(secret: str, text: str, expected: str) -> None:
    """Inside of words it would destroy ordinary text, and so would ordinary words that a secret begins with."""
    hide(secret)
    assert masked(text) == expected


def test_secrets_of_the_environment_are_hidden_by_their_names() -> None:
    """And passwords in addresses; but no path, number, switch, or plain address."""
    hide_environment(
        {
            "HF_TOKEN": "hf_abcdefghijkl",
            "HTTPS_PROXY": "http://me:geh%40im@proxy:3128",
            "SSH_AUTH_SOCK": "/run/ssh-1/agent",
            "KEY": "true",
            "AUTH_TOKEN": "1234",
            "TOKEN_URL": "http://login.test/token",
            "HOME": "/home/somebody",
        }
    )
    text = "/run/ssh-1/agent true 1234 http://login.test/token /home/somebody"
    assert masked(text) == text
    assert masked("hf_abcdefghijkl geh@im geh%40im bWU6Z2VoQGlt me:geh@im") == "*** *** *** *** ***"


@given(value=st.text(max_size=40), text=st.text(max_size=80))
def test_any_text_can_be_hidden_and_masked(value: str, text: str) -> None:
    """Also with bytes that are no text, as an environment may have them."""
    forget()
    hide(value, f"Basic {value}", "key-\udcff-of-bytes", "http://me:\udcff-of-bytes@h")
    hide_environment({"SOME_KEY": value, "SOME_PROXY": f"http://{value}@[h"})
    masked(f"{text}{value}{text}\\u00e4%e4&#0;&#x10ffff;", 50)
    forget()


def test_headers_are_hidden_by_their_names() -> None:
    """Those that may be secret; a plain one is an ordinary word."""
    hide_headers({"Authorization": "Basic bWU6cGFzc3dvcmQx", "x-api-key": "abcdef12", "X-Team": "research"})
    assert masked("bWU6cGFzc3dvcmQx password1 me:password1 abcdef12 research") == "*** *** *** *** research"


def test_the_password_of_a_proxy_is_hidden_where_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever variable or process it comes from."""
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret-word-7@127.0.0.1:3128")
    proxy_for(Address.of("http://model.test"))
    assert masked("407 for me:secret-word-7") == "407 for ***"


def test_a_password_of_a_letter_is_no_secret() -> None:
    """It would be masked wherever the letter stands alone, as in a version."""
    hide("redis://:1@localhost", "postgres://app:a@db/x")
    assert masked("version 0.1.2 of a server") == "version 0.1.2 of a server"
    hide("postgres://app:abc@db/x")
    assert masked("abc") == "***"


def test_mappings_and_lists_are_masked_except_our_own_words() -> None:
    """Keys stay, and what the names of our own hold."""
    hide("complete")
    found = masked_in({"status": "complete", "notes": ["complete: 1", 2, None]}, frozenset({"status"}))
    assert found == {"status": "complete", "notes": ["***: 1", 2, None]}


def test_a_log_is_masked_in_place(tmp_path: Path) -> None:
    """Bytes that are no text stay as they are; a log without secrets is not written again."""
    log = tmp_path / "log.txt"
    log.write_bytes(b"\xff started\n" + f"key {KEY}\n".encode() * 3)
    before = log.stat().st_ino
    mask(log)
    assert log.stat().st_ino == before
    hide(KEY)
    mask(log)
    assert log.read_bytes() == b"\xff started\n" + b"key ***\n" * 3
    assert [found.name for found in tmp_path.iterdir()] == ["log.txt"]
    mask(tmp_path / "none.txt")
