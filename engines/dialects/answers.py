"""Reading the JSON of servers: invalid JSON, unexpected types, split characters, and token counts per chunk."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import orjson

from engines.base import TOKEN_BEARING, Chunk, ChunkKind, Usage
from engines.dialects.base import Pieces
from engines.secrets import masked

_HALF = re.compile("[\ud800-\udfff]")
_FIRST_HALF = re.compile("[\ud800-\udbff]$")
_NO_BYTE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


def tolerant(data: bytes) -> object:
    """Parse JSON, including invalid JSON: NaN, infinities, bare control characters, split characters.

    Bytes that are not UTF-8 stay in the texts as lone surrogates; see `mend`.

    Raises ValueError if the data is not JSON at all.
    """
    try:
        return orjson.loads(data)
    except ValueError:
        pass  # not valid JSON
    try:
        return json.loads(data.decode("utf-8", "surrogateescape"), strict=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_json(found: object) -> str:
    """Return any value as one line of text."""
    try:
        return found if isinstance(found, str) else orjson.dumps(found).decode()
    except TypeError:
        return json.dumps(found, default=str)


def clean(text: str) -> str:
    """Replace lone surrogates by U+FFFD, so that the text can be encoded."""
    return _HALF.sub(_UNKNOWN, text) if _HALF.search(text) else text


def cut(text: str, most: int) -> str:
    """Return the first `most` characters of a server's words, without secrets and halves of characters.

    No dialect cuts in another way. A secret is masked before the cut: nobody behind the dialect could, for its start
    would be left. So a dialect depends on the secrets of the process, and stays free of I/O.
    """
    return clean(masked(text, most))


def mend(chunks: list[Chunk]) -> None:
    """Join characters that were split between chunks, in place. Each goes to the chunk that completed it.

    A part is a surrogate of a pair, or some bytes of UTF-8. A part that stays incomplete becomes U+FFFD.
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
            reason, backend = (None if text is None else clean(text) for text in (chunk.finish_reason, chunk.backend))
            chunks[place] = replace(chunk, text=clean(chunk.text), finish_reason=reason, backend=backend)


class _Joiner:
    """Decoder of consecutive texts that carries over an incomplete character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._first_half = ""

    def take(self, text: str, *, last: bool) -> str:
        """Return the text that is complete after this one."""
        text, self._first_half = self._first_half + text, ""
        if not last and (half := _FIRST_HALF.search(text)):
            text, self._first_half = text[: half.start()], half.group()
        paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        known = _NO_BYTE.sub(_UNKNOWN, paired)
        return self._decoder.decode(known.encode("utf-8", "surrogateescape"), final=last)


def broken(chunks: list[Chunk]) -> bool:
    """Return True if a chunk contains a part of a character."""
    return any(_HALF.search(f"{one.text}{one.finish_reason or ''}{one.backend or ''}") for one in chunks)


_MOST_TOKENS = 2**31 - 1
_MOST = 2**53 * 1e6
_DEEPEST = 8
_WITHIN = ("text", "thinking", "reasoning", "refusal", "content", "summary", "parts", "transcript")
_THOUGHTS = ("think", "reason", "thought")
_CALLS = ("tool", "function", "call")
_QUOTED = 40
NOTHING: Mapping[str, Any] = {}


def mapping_at(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object at this name; an empty one if the value is not an object."""
    found = event.get(name)
    return found if isinstance(found, dict) else NOTHING


def listed(found: object) -> Sequence[object]:
    """Return a list unchanged, an object as a list of one, and [] for anything else."""
    if isinstance(found, list):
        return found
    return [found] if isinstance(found, dict) and found else []


def text_at(event: Mapping[str, Any], name: str) -> str:
    """Return the text at this name; "" if the value is not a text."""
    found = event.get(name)
    return found if isinstance(found, str) else ""


def count_of(found: object) -> int | None:
    """Return a token count; None for a text, a fraction, a negative or a huge number."""
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= _MOST_TOKENS:
        return None
    return int(found) if int(found) == found else None


def usage_of(
    prompt_tokens: object, output_tokens: object, reasoning_tokens: object = None, cached_tokens: object = None
) -> tuple[Usage, str]:
    """Return the token counts that a server states, and a note about the invalid ones, which become None."""
    stated = (prompt_tokens, output_tokens, reasoning_tokens, cached_tokens)
    for found in stated:
        if found is not None and (type(found) is not int or not 0 <= found <= _MOST_TOKENS):
            break
    else:
        return Usage(*stated), ""  # type: ignore[arg-type]
    counts = [count_of(found) for found in stated]
    impossible = [found for found, count in zip(stated, counts, strict=True) if found is not None and count is None]
    note = ", ".join(cut(as_json(found) or "an empty text", _QUOTED) for found in impossible)
    return Usage(*counts), f"invalid token count: {note}" if note else ""


def amount_at(event: Mapping[str, Any], name: str, factor: float = 1.0) -> float | None:
    """Return a non-negative number, times the factor that converts its unit; None if there is none."""
    found = event.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _MOST:
        return None
    return float(found) * factor


def reported_of(**amounts: float | None) -> dict[str, float] | None:
    """Return the amounts that a server reports; None if it reports none."""
    return {name: amount for name, amount in amounts.items() if amount is not None} or None


@lru_cache(maxsize=20_000)
def piece(kind: ChunkKind, text: str, tokens: int | None = None) -> Chunk:
    """Return a chunk of text. Few differ, and a lookup is cheaper than a new object."""
    return Chunk(kind, text, tokens)


def unreadable(found: object) -> Chunk:
    """Return a chunk for data without a known meaning, with the start of the data."""
    return Chunk(ChunkKind.UNREADABLE, f"the server sent something that cannot be read: {cut(as_json(found), 200)}")


def pieces_of(content: object, kind: ChunkKind = ChunkKind.CONTENT) -> list[Chunk]:
    """Return the chunks in a content: a text, or a list of parts, of which thinking is REASONING."""
    if type(content) is str:
        return [piece(kind, content)] if content else []
    if content is None or content is False or content == [] or content == {}:
        return []
    found: list[Chunk] = []
    for own, text in _parts(content, kind, _DEEPEST):
        if found and found[-1].kind is own:
            found[-1] = Chunk(own, found[-1].text + text)
        else:
            found.append(Chunk(own, text))
    return [chunk for chunk in found if chunk.text] if found else [unreadable(content)]


def _parts(part: object, kind: ChunkKind, deepest: int) -> Iterator[tuple[ChunkKind, str]]:
    """Yield the texts in a part with their kinds: nothing for an unknown part, "" for a known one without text."""
    if isinstance(part, str):
        yield kind, part
    elif isinstance(part, list) and deepest:
        for one in part:
            yield from _parts(one, kind, deepest - 1)
    elif isinstance(part, dict) and deepest:
        own = _kind_of(part, kind)
        if own is ChunkKind.TOOL:
            yield own, tool_text(part)
            return
        name = next((name for name in _WITHIN if part.get(name)), None)
        if name is not None:
            yield from _parts(part[name], own, deepest - 1)
        elif own is not kind or any(name in part for name in _WITHIN):
            yield own, ""


def _kind_of(part: Mapping[str, Any], kind: ChunkKind) -> ChunkKind:
    type_name = text_at(part, "type").lower()
    if part.get("thought") is True or any(word in type_name for word in _THOUGHTS):
        return ChunkKind.REASONING
    if not type_name and kind is ChunkKind.CONTENT and ("thinking" in part or "reasoning" in part):
        return ChunkKind.REASONING
    return ChunkKind.TOOL if any(word in type_name for word in _CALLS) else kind


def tool_text(call: object) -> str:
    """Return the generated text in a tool call."""
    if not isinstance(call, dict):
        return ""
    inner = mapping_at(call, "function") or mapping_at(call, "custom") or call
    given = next((inner[name] for name in ("arguments", "input", "partial_json", "parameters") if inner.get(name)), "")
    return text_at(inner, "name") + (given if isinstance(given, str) else as_json(given))


def tool_pieces(calls: object) -> list[Chunk]:
    """Return the chunk of some tool calls; [] if they contain no text."""
    text = "".join(map(tool_text, listed(calls)))
    return [piece(ChunkKind.TOOL, text)] if text else []


def with_tokens(found: list[Chunk], tokens: int | None) -> list[Chunk]:
    """Add the token count of an event to its chunks.

    Tokens without text become a chunk of their own. With several chunks the share of each is unknown.
    """
    if not tokens:
        return found
    if len(found) == 1 and found[0].kind is not ChunkKind.UNREADABLE:
        return [piece(found[0].kind, found[0].text, tokens)]
    return found or [piece(ChunkKind.CONTENT, "", tokens)]


_USAGE = ChunkKind.USAGE
_ENDS = (ChunkKind.FINISH, ChunkKind.ERROR)


def count_chunks(pieces: Pieces) -> Pieces:
    """Add token counts to the chunks, from the running count that the server states in its events.

    An event without text that raises the count bore a token, unless it ends the reply. The counts are not running
    counts, and are ignored, if they fall or leave most chunks without a token.
    """
    if pieces.kinds.count(_USAGE) < 2:
        return pieces
    counted = _counted(pieces)
    if counted is None:
        return pieces
    chunks = list(pieces.chunks)
    for at, tokens in counted.items():
        kind = chunks[at].kind
        chunks[at] = piece(kind if kind in TOKEN_BEARING else ChunkKind.CONTENT, chunks[at].text, tokens)
    return Pieces(pieces.reads, chunks, joined=pieces.joined)


def _counted(pieces: Pieces) -> dict[int, int] | None:
    """Return the token counts by position, where known; None if these are not running counts."""
    joined, counted = set(pieces.joined), dict[int, int]()
    before = bearing = without = 0
    own: list[int] = []  # positions of the event's chunks with text
    empty: int | None = None  # position of its chunk without text
    ends = waiting = False
    for at, kind in enumerate(pieces.kinds):
        if at not in joined:
            waiting = waiting or bool(own)
            own, empty, ends = [], None, False
        if kind in TOKEN_BEARING:
            own.append(at)
            bearing += 1
        elif kind is _USAGE and (usage := pieces.chunks[at].usage) is not None and usage.output_tokens is not None:
            more, before = usage.output_tokens - before, usage.output_tokens
            if more < 0:
                return None
            if not waiting:
                without += bool(own) and not more
                if own:  # its chunks arrived together: the last one gets all tokens
                    counted.update(dict.fromkeys(own[:-1], 0))
                    counted[own[-1]] = more
                elif more and empty is not None and not ends:
                    counted[empty] = more
            waiting, own = False, []
        elif kind is ChunkKind.EMPTY:
            empty = at
        elif kind in _ENDS:
            ends = True
    return counted if counted and 2 * without <= bearing else None
