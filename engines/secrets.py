"""Secrets of this process, and texts of others without them.

A secret is hidden where it is read (`hide`). From then on `masked` puts `***` in its place, in every text that a
server, a proxy, a log or a library's error gave us, before the text is cut or kept. The secrets are those of the whole
process, as with the masks of CI systems: no function has to pass them on, so that a new one cannot forget to. Without
secrets `masked` only cuts.

A secret is found as it is, as the start of itself (where another program cut the text), in base64, and with characters
escaped for JSON, URLs or HTML. One of 3 to 5 characters is masked only where it is a word of its own:
inside of words it would destroy ordinary text. A shorter one is not masked.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

MASK = "***"
LEAST = 3  # characters of a secret that is masked at all
_WORD = 6  # characters from which a secret is masked inside of words too
_WHOLE = 12  # characters from which the start of a secret is masked too
_HEAD = 8  # least characters of such a start
_EDGE = 4  # least characters of a start at the end of a text, where the text was cut
_WINDOW = 8_192  # longest start of a text that is looked through for `most` characters, beside 20 times `most`
_CACHED = 256
_SECRET_NAME = re.compile(
    r"(^|_)(TOKEN|KEY|APIKEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH)(_|$)", re.IGNORECASE
)
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})
_ROUNDS = 2  # a text may be escaped for two purposes
# \u0041, %41, &#65; &#x41; &amp; \/ in this order; JSON within JSON doubles its backslashes.
_ESCAPE = re.compile(
    r"\\+u([0-9a-fA-F]{4})|%([0-9a-fA-F]{2})|&#(?:0*(\d{1,7})|[xX]0*([0-9a-fA-F]{1,6}));|&(amp|lt|gt|quot|apos);|\\+([^\w\s\\])"
)
# A path, a number, a switch, or a mask.
_NO_SECRET = re.compile(r"[/~.*]|[+-]?\d{1,9}$|(?:true|false|yes|no|none)$", re.IGNORECASE)


def looks_secret(name: str) -> bool:
    """Return True if an environment variable of this name is likely to contain a secret."""
    return _SECRET_NAME.search(name) is not None


def is_secret_header(name: str) -> bool:
    """Return True if a header of this name is likely to contain a secret."""
    return name.lower() in SECRET_HEADERS or looks_secret(name.replace("-", "_"))


def hide(*values: str | None) -> None:
    """Mask these secrets from now on: keys, values of headers, passwords, addresses with a password."""
    new = {form for value in values if value for form in _forms(value)} - _Hidden.forms
    if new:
        _Hidden.forms |= new
        _Hidden.of_now = _Mask(_Hidden.forms)
        _masked_short.cache_clear()


def hide_environment(environment: Mapping[str, str]) -> None:
    """Hide the variables whose names look secret, and the passwords in addresses, such as those of proxies."""
    for name, value in environment.items():
        address = "://" in value
        if "@" in value if address else looks_secret(name) and not _NO_SECRET.match(value):
            hide(value)


def hide_headers(headers: Mapping[str, str]) -> None:
    """Hide the values of the headers whose names look secret."""
    hide(*(value for name, value in headers.items() if is_secret_header(name)))


def forget() -> None:
    """Forget all secrets. Only tests need it."""
    _Hidden.forms, _Hidden.of_now = set(), None
    _masked_short.cache_clear()


def masked(text: str, most: int | None = None) -> str:
    """Return a text of others without the secrets, and at most its first `most` characters.

    It is masked first: the start of a secret would remain of a text that was cut before.
    """
    if _Hidden.of_now is None:
        return text[:most]
    if most is not None:
        text = text[: 20 * most + _WINDOW]
    return (_masked_short(text) if len(text) <= _CACHED else _Hidden.of_now.masked(text))[:most]


def masked_in(found: Any, ours: frozenset[str] = frozenset()) -> Any:
    """Return mappings and lists with all their texts masked, except under the keys in `ours`."""
    if _Hidden.of_now is None:
        return found
    if isinstance(found, str):
        return masked(found)
    if isinstance(found, Mapping):
        return {key: value if key in ours else masked_in(value, ours) for key, value in found.items()}
    return [masked_in(one, ours) for one in found] if isinstance(found, list | tuple) else found


class _Hidden:
    """Secrets of this process in all forms, and the mask of them."""

    forms: set[str] = set()  # noqa: RUF012
    of_now: _Mask | None = None


@lru_cache(maxsize=4096)
def _masked_short(text: str) -> str:
    """Return a short text masked. Finish reasons and names of servers repeat with every request."""
    return text if _Hidden.of_now is None else _Hidden.of_now.masked(text)


class _Mask:
    """Search for some secrets."""

    def __init__(self, secrets: Iterable[str]) -> None:
        ordered = sorted(secrets, key=lambda secret: (-len(secret), secret))
        self._long = [(_head(secret), secret) for secret in ordered if len(secret) >= _WORD]
        short = [re.escape(secret) for secret in ordered if len(secret) < _WORD]
        self._short = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(short)})(?![A-Za-z0-9])") if short else None

    def masked(self, text: str) -> str:
        """Return a text without the secrets."""
        text = self._without_long(text)
        if _ESCAPE.search(text):
            text = "\n".join(map(self._without_escaped, text.split("\n")))
        for _, secret in self._long:
            if len(secret) >= _WHOLE:
                text = _without_edges(text, secret)
        return text if self._short is None else self._short.sub(MASK, text)

    def _without_long(self, text: str) -> str:
        for head, secret in self._long:
            if head in text:
                text = _without(text, head, secret)
        return text

    def _without_escaped(self, line: str) -> str:
        """Return a line as it is unless it holds an escaped secret; then all of it without escapes."""
        plain = line
        for _ in range(_ROUNDS):
            plain = _ESCAPE.sub(_unescaped, plain)
            found = self._without_long(plain)
            if found != plain:
                return found
        return line


def _forms(value: str) -> Iterator[str]:
    """Yield the forms in which a server may repeat a secret."""
    value = value.strip()
    if "://" in value and "@" in value:
        yield from _forms_of_address(value)
        return
    scheme, _, rest = value.rpartition(" ")
    for secret in dict.fromkeys((value, rest)):
        if len(secret) >= LEAST:
            yield secret
        if len(secret) >= _WORD:
            pairs = (secret, f":{secret}", f"{secret}:")
            yield from map(_in_base64, pairs)
    if scheme.lower() == "basic":
        try:
            yield from _forms_of_pair(base64.b64decode(rest, validate=True).decode("utf-8", "replace"))
        except (binascii.Error, ValueError):
            return


def _forms_of_address(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.password and len(parts.password) >= LEAST:
        yield parts.password
        yield from _forms_of_pair(f"{unquote(parts.username or '')}:{unquote(parts.password)}")
    elif not parts.password and parts.username and len(parts.username) >= _WHOLE:  # a token in the place of the user
        yield unquote(parts.username)


def _forms_of_pair(pair: str) -> Iterator[str]:
    password = pair.partition(":")[2]
    if len(password) >= LEAST:
        yield from (password, pair, _in_base64(pair))


def _in_base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def _head(secret: str) -> str:
    """Return the start that shows a secret: all of a short one, and no ordinary word."""
    if len(secret) < _WHOLE or "://" in secret or " " in secret or secret.startswith("/"):
        return secret
    return next((secret[:size] for size in range(_HEAD, len(secret)) if not secret[:size].isalpha()), secret)


def _without(text: str, head: str, secret: str) -> str:
    """Return a text in which each start of the secret is masked, as far as it goes."""
    kept, at = [], 0
    while (found := text.find(head, at)) >= 0:
        end = found + len(head)
        while end < len(text) and end - found < len(secret) and text[end] == secret[end - found]:
            end += 1
        kept += [text[at:found], MASK]
        at = end
    return "".join([*kept, text[at:]])


def _without_edges(text: str, secret: str) -> str:
    """Return a text without the start of the secret at its end, and without the end of the secret at its start."""
    at = text.find(secret[:_EDGE], max(0, len(text) - len(secret)))
    while at >= 0:
        if _is_piece(text[at:]) and secret.startswith(text[at:]):
            text = text[:at] + MASK
            break
        at = text.find(secret[:_EDGE], at + 1)
    at = text.rfind(secret[-_EDGE:], 0, len(secret))
    while at >= 0:
        if _is_piece(text[: at + _EDGE]) and secret.endswith(text[: at + _EDGE]):
            return MASK + text[at + _EDGE :]
        at = text.rfind(secret[-_EDGE:], 0, at + _EDGE - 1)
    return text


def _is_piece(piece: str) -> bool:
    """Return True unless a piece of a secret may be an ordinary word."""
    return len(piece) >= _HEAD or not piece.isalpha()


def _unescaped(escape: re.Match[str]) -> str:
    """Return the character of an escape for JSON, URLs or HTML."""
    code, named, sign = escape[1] or escape[2] or escape[4], escape[5], escape[6]
    if escape[3]:
        return chr(min(int(escape[3]), 0xFFFF))
    return chr(min(int(code, 16), 0xFFFF)) if code else sign or html.unescape(f"&{named};")
