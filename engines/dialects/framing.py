"""How the body of an answer is framed. The bytes decide; its content type only where they do not tell."""

from __future__ import annotations

from enum import Enum, auto

from engines.dialects.base import WireResponse
from engines.dialects.broken_text import tolerant

_ENOUGH = 8
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
        return _of_json(b"".join(response.reads), kind)
    if start.startswith(b"<"):
        return Framing.PAGE
    if "event-stream" in kind:
        return Framing.EVENTS
    if "ndjson" in kind or "jsonl" in kind:
        return Framing.LINES
    if "json" in kind:
        return Framing.DOCUMENT
    return Framing.PAGE if "html" in kind else Framing.EVENTS


def _beginning(response: WireResponse) -> bytes:
    """The first bytes that are not blank."""
    start = b""
    for data in response.reads:
        start = (start + data).removeprefix(_BYTE_ORDER_MARK).lstrip()
        if len(start) >= _ENOUGH:
            break
    return start


def _of_json(body: bytes, kind: str) -> Framing:
    if b"\ndata:" in body or b"\rdata:" in body:
        return Framing.EVENTS
    if "ndjson" in kind or "jsonl" in kind:
        return Framing.LINES
    first, _, rest = body.lstrip().partition(b"\n")
    return Framing.LINES if rest and not rest.isspace() and is_whole(first) else Framing.DOCUMENT


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
