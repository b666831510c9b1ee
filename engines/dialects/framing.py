"""Framing of the body of an answer. The bytes decide; the content type counts only if they leave it open."""

from __future__ import annotations

from enum import Enum, auto

from engines.dialects.answers import tolerant
from engines.dialects.base import WireResponse

_ENOUGH = 8
_LOOKED_AT = 4096
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Framing(Enum):
    """Server-sent events, JSON lines, one JSON document, or a web page."""

    EVENTS = auto()
    LINES = auto()
    DOCUMENT = auto()
    PAGE = auto()


def framing_of(response: WireResponse) -> Framing:
    """Return the framing of a body, which may be truncated or empty."""
    kind = response.headers.get("content-type", "").lower()
    lines = "ndjson" in kind or "jsonl" in kind or "json-lines" in kind
    start = _beginning(response)
    if start.startswith(_FIELDS):
        return Framing.EVENTS
    if start.startswith((b"{", b"[")):
        if lines and start.endswith(b"}\n"):
            return Framing.LINES
        return _of_json(b"".join(response.reads), lines)
    if start.startswith(b"<"):
        return Framing.PAGE
    if lines:
        return Framing.LINES
    if "json" in kind:
        return Framing.DOCUMENT
    return Framing.PAGE if "html" in kind else Framing.EVENTS


def _beginning(response: WireResponse) -> bytes:
    """Return the first bytes without leading white space."""
    start = next(filter(None, response.reads), b"")
    if start.startswith(_FIELDS):
        return start
    start = b""
    for data in response.reads:
        start = (start + data).removeprefix(BYTE_ORDER_MARK).lstrip()
        if len(start) >= _ENOUGH:
            break
    return start


def _of_json(body: bytes, lines: bool) -> Framing:
    """Return the framing of a JSON body, by the text behind its first line (`lines`: as the content type states)."""
    body = body.removeprefix(BYTE_ORDER_MARK).lstrip()
    first, _, rest = body.partition(b"\n")
    rest = rest[:_LOOKED_AT].lstrip()
    if lines and not (rest and not is_whole(first) and is_whole(body)):
        return Framing.LINES
    if not rest or not is_whole(first):
        return Framing.DOCUMENT
    return Framing.EVENTS if rest.startswith(_FIELDS) else Framing.LINES


def is_whole(text: bytes) -> bool:
    """Return True for a complete JSON object or list, or the mark of an end."""
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
