"""How the body of an answer is framed. The bytes decide; its content type only where they do not tell."""

from __future__ import annotations

from enum import Enum, auto

from engines.dialects.answers import tolerant
from engines.dialects.base import WireResponse

_ENOUGH = 8
_LOOKED_AT = 4096
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Framing(Enum):
    """Server-sent events, a JSON object a line, one JSON document, or a page for people."""

    EVENTS = auto()
    LINES = auto()
    DOCUMENT = auto()
    PAGE = auto()


def framing_of(response: WireResponse) -> Framing:
    """The framing of a body, which may be cut off or empty."""
    kind = response.headers.get("content-type", "").lower()
    start = _beginning(response)
    if start.startswith(_FIELDS):
        return Framing.EVENTS
    if start.startswith((b"{", b"[")):
        if _is_lines(kind) and start.endswith(b"}\n"):
            return Framing.LINES
        return _of_json(b"".join(response.reads), _is_lines(kind))
    if start.startswith(b"<"):
        return Framing.PAGE
    if "event-stream" in kind:
        return Framing.EVENTS
    if _is_lines(kind):
        return Framing.LINES
    if "json" in kind:
        return Framing.DOCUMENT
    return Framing.PAGE if "html" in kind else Framing.EVENTS


def _beginning(response: WireResponse) -> bytes:
    """The first bytes that are not blank."""
    start = next(filter(None, response.reads), b"")
    if start.startswith(_FIELDS):
        return start
    start = b""
    for data in response.reads:
        start = (start + data).removeprefix(BYTE_ORDER_MARK).lstrip()
        if len(start) >= _ENOUGH:
            break
    return start


def _is_lines(kind: str) -> bool:
    return "ndjson" in kind or "jsonl" in kind or "json-lines" in kind


def _of_json(body: bytes, lines: bool) -> Framing:
    """By what follows the first line, where that is whole: events, or further lines. lines: the server says lines."""
    body = body.removeprefix(BYTE_ORDER_MARK).lstrip()
    first, _, rest = body.partition(b"\n")
    rest = rest[:_LOOKED_AT].lstrip()
    if lines and not (rest and not is_whole(first) and is_whole(body)):
        return Framing.LINES
    if not rest or not is_whole(first):
        return Framing.DOCUMENT
    return Framing.EVENTS if rest.startswith(_FIELDS) else Framing.LINES


def is_whole(text: bytes) -> bool:
    """Whether a text is a JSON object or list from its first byte to its last, or the mark of an end."""
    text = text.strip()
    if text == b"[DONE]":
        return True
    if not (text.startswith(b"{") and text.endswith(b"}")) and not (text.startswith(b"[") and text.endswith(b"]")):
        return False
    try:
        tolerant(text)
    except ValueError:
        return False
    return True
