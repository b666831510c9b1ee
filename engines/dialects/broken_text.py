"""JSON as servers write it against the rules, and characters that came in halves."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import replace

import orjson

from engines.base import TOKEN_BEARING, Chunk

_HALF = re.compile("[\ud800-\udfff]")
_FIRST_HALF = re.compile("[\ud800-\udbff]$")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def tolerant(data: bytes) -> object:
    """What JSON says that breaks the rules: NaN and infinities, bare control characters, halves of characters.

    Bytes that are no UTF-8 and lone surrogates stay in the texts as lone surrogates; see `mend`. Raises ValueError for
    what is no JSON at all.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        pass  # not by the rules
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"), strict=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_json(found: object) -> str:
    """A value as one line, whatever it is."""
    try:
        return found if isinstance(found, str) else orjson.dumps(found).decode()
    except TypeError:
        return json.dumps(found, default=str)


def clean(text: str) -> str:
    """The text with U+FFFD for halves of characters: it can be written down."""
    return _HALF.sub(_UNKNOWN, text) if _HALF.search(text) else text


def mend(chunks: list[Chunk]) -> None:
    """Put characters together that came in halves, in place: each stands in the piece that completed it.

    A half may be one of a pair of surrogates, or some bytes of UTF-8. One that nothing completes becomes U+FFFD.
    """
    for kind in TOKEN_BEARING:
        places = [place for place, chunk in enumerate(chunks) if chunk.kind is kind]
        joiner = _Joiner()
        for place in places:
            chunk = chunks[place]
            text = joiner.take(chunk.text, last=place == places[-1])
            if text != chunk.text:
                chunks[place] = Chunk(kind, text, chunk.tokens)
    for place, chunk in enumerate(chunks):
        if chunk.kind not in TOKEN_BEARING and _HALF.search(chunk.text + (chunk.finish_reason or "")):
            chunks[place] = _cleaned(chunk)


def _cleaned(chunk: Chunk) -> Chunk:
    reason = None if chunk.finish_reason is None else clean(chunk.finish_reason)
    backend = None if chunk.backend is None else clean(chunk.backend)
    return replace(chunk, text=clean(chunk.text), finish_reason=reason, backend=backend)


class _Joiner:
    """Takes texts one after the other and keeps the half that one ends with."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._first_half = ""

    def take(self, text: str, *, last: bool) -> str:
        """What can be shown once this text has come."""
        text, self._first_half = self._first_half + text, ""
        if not last and (half := _FIRST_HALF.search(text)):
            text, self._first_half = text[: half.start()], half.group()
        paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        known = _NO_BYTE.sub(_UNKNOWN, paired)
        return self._decoder.decode(known.encode("utf-8", "surrogateescape"), final=last)


def broken(chunks: list[Chunk]) -> bool:
    """Whether a half of a character stands in these."""
    return any(_HALF.search(f"{one.text}{one.finish_reason or ''}{one.backend or ''}") for one in chunks)
