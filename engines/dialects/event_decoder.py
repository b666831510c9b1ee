"""From the bodies of an answer to chunks: JSON in server-sent events, or one JSON document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from engines.base import TOKEN_BEARING, Chunk, ChunkKind
from engines.dialects.base import ReadChunk
from engines.dialects.sse import COMMENT, EventSplitter

ToChunks = Callable[[Mapping[str, Any]], list[Chunk]]
_DONE = b"[DONE]"
_QUOTED_CHARACTERS = 200
_KNOWN_PIECES = 20_000
_PROBE = "probe 0f9b"


class EventDecoder:
    """Decodes answers whose events `to_chunks` understands."""

    def __init__(self, to_chunks: ToChunks) -> None:
        self._to_chunks = to_chunks
        self._pieces: dict[ChunkKind, dict[bytes, Chunk]] = {kind: {} for kind in TOKEN_BEARING}

    def stream(self, reads: Sequence[bytes]) -> list[ReadChunk]:
        """The chunks of a stream of events."""
        splitter = EventSplitter()
        found: list[ReadChunk] = []
        template: _Template | None = None
        for index, body in enumerate(reads):
            if not body:
                continue
            if template is not None and splitter.at_boundary:
                known = self._known(template, body)
                if known is not None:
                    found += [ReadChunk(index, chunk) for chunk in known]
                    continue
            template = self._read(index, splitter.feed(body), template, found)
        last = max(len(reads) - 1, 0)
        for event in splitter.finish():
            rest = self._parse(event)
            if not any(chunk.kind is ChunkKind.ERROR for chunk in rest):  # half an event says only that it was cut
                found += [ReadChunk(last, chunk) for chunk in rest]
        return found or self._not_a_stream(reads)

    def _read(
        self, index: int, events: Sequence[bytes], template: _Template | None, found: list[ReadChunk]
    ) -> _Template | None:
        """Add the chunks of the events that one read completed; the template for what follows."""
        position = 0
        while template is None and position < len(events):
            template = self._parse_and_learn(index, events[position], found)
            position += 1
        if template is None:
            return None
        head, tail, pieces = template.head, template.tail, self._pieces[template.kind]
        start, stop = len(head), -len(tail)
        for event in events[position:]:
            if event.startswith(head) and event.endswith(tail):
                text = event[start:stop]
                chunk = pieces.get(text) or self._new_piece(template, text)
                if chunk is not None:
                    found.append(ReadChunk(index, chunk))
                    continue
            template = self._parse_and_learn(index, event, found) or template
            head, tail, pieces = template.head, template.tail, self._pieces[template.kind]
            start, stop = len(head), -len(tail)
        return template

    def _parse_and_learn(self, index: int, event: bytes, found: list[ReadChunk]) -> _Template | None:
        chunks = self._parse(event)
        found += [ReadChunk(index, chunk) for chunk in chunks]
        return self._learn(event, chunks)

    def document(self, reads: Sequence[bytes]) -> list[ReadChunk]:
        """The chunks of one JSON document; they all arrived with its last byte."""
        last = max(len(reads) - 1, 0)
        return [ReadChunk(last, chunk) for chunk in self._parse(b"".join(reads))]

    def _not_a_stream(self, reads: Sequence[bytes]) -> list[ReadChunk]:
        """A body without any event: a server that forgot to say that it answers with plain JSON, or nothing at all."""
        return self.document(reads) if b"".join(reads).strip() else []

    def _parse(self, event: bytes) -> list[Chunk]:
        if event == COMMENT:
            return [Chunk(ChunkKind.COMMENT)]
        if event.strip() == _DONE:
            return [Chunk(ChunkKind.FINISH)]
        try:
            return self._to_chunks(orjson.loads(event))
        except (ValueError, TypeError, AttributeError, KeyError):
            return [Chunk(ChunkKind.ERROR, f"the server sent something that cannot be read{server_text(event)}")]

    def _known(self, template: _Template, body: bytes) -> list[Chunk] | None:
        """The pieces in a read of whole events whose texts were all met before, as in most reads; None for any other.

        A text met before holds neither quote nor line end, so between two of them stands what the template says.
        """
        if not (body.startswith(template.line_head) and body.endswith(template.line_tail)):
            return None
        texts = body[len(template.line_head) : -len(template.line_tail)].split(template.between)
        pieces = self._pieces[template.kind]
        try:
            return [pieces[text] for text in texts]
        except KeyError:
            return None

    def _new_piece(self, template: _Template, text: bytes) -> Chunk | None:
        """The piece with a text not met before; None if only the parser can tell what it is."""
        if not text or b'"' in text or b"\\" in text or min(text) < 0x20:
            return None
        try:
            chunk = Chunk(template.kind, text.decode())
        except UnicodeDecodeError:
            return None
        pieces = self._pieces[template.kind]
        if len(pieces) >= _KNOWN_PIECES:
            pieces.clear()
        pieces[text] = chunk
        return chunk

    def _learn(self, event: bytes, chunks: list[Chunk]) -> _Template | None:
        """A template from an event that holds one piece of text and nothing else.

        Proven, not guessed: with another text in its place the full parser must give that text and nothing else, so any
        string that needs no escape may stand there.
        """
        if len(chunks) != 1 or chunks[0].kind not in TOKEN_BEARING or chunks[0].tokens is not None:
            return None
        quoted = orjson.dumps(chunks[0].text)
        at = event.find(quoted)
        if at < 0:
            return None
        template = _Template.around(event[: at + 1], event[at + len(quoted) - 1 :], chunks[0].kind)
        proof = self._parse(template.head + _PROBE.encode() + template.tail)
        return template if proof == [Chunk(chunks[0].kind, _PROBE)] else None


@dataclass(frozen=True, slots=True)
class _Template:
    """What surrounds the text in the events of one answer: servers repeat everything else in every event."""

    head: bytes
    tail: bytes
    kind: ChunkKind
    line_head: bytes
    line_tail: bytes
    between: bytes

    @classmethod
    def around(cls, head: bytes, tail: bytes, kind: ChunkKind) -> _Template:
        line_head, line_tail = b"data: " + head, tail + b"\n\n"
        return cls(head, tail, kind, line_head, line_tail, line_tail + line_head)


def server_text(body: bytes) -> str:
    """What a server said, as the end of a sentence: ': "..."', the first 200 characters; "" when it said nothing."""
    try:
        document = orjson.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict) and document.get("error"):
        return ": " + error_sentence(document["error"])
    text = " ".join(body[: 4 * _QUOTED_CHARACTERS].decode("utf-8", "replace").split())
    return f": {text[:_QUOTED_CHARACTERS]}" if text else ""


def error_sentence(error: object) -> str:
    """The message in an `error` object, at most 200 characters."""
    message = error.get("message", error) if isinstance(error, dict) else error
    text = message if isinstance(message, str) else orjson.dumps(message, default=str).decode()
    return " ".join(text.split())[:_QUOTED_CHARACTERS]
