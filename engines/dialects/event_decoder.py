"""From the bodies of an answer to chunks: JSON in server-sent events, a JSON object a line, or one JSON document."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from engines.base import TOKEN_BEARING, Chunk, ChunkKind
from engines.dialects.base import Pieces, WireResponse
from engines.dialects.broken_text import broken, mend, tolerant
from engines.dialects.chunk_counts import count_chunks
from engines.dialects.event_scan import EventScan, KnownPieces
from engines.dialects.failures import failure_in, server_text, text_chunk, told_failure, web_page, words_alone
from engines.dialects.framing import BYTE_ORDER_MARK, Framing, framing_of, is_whole
from engines.dialects.line_scan import scan_lines
from engines.dialects.sse import COMMENT, FAILURE

ToChunks = Callable[[Mapping[str, Any]], list[Chunk]]
_DONE = b"[DONE]"
_DEEPEST = 4
_SEVERAL = re.compile(rb"\r\n|\n|\r|(?<=[}\]])\s*data:\s*")


class EventDecoder:
    """Decodes answers whose events `to_chunks` understands: it is given objects only, and finds nothing in those that
    are none of its format.
    """

    def __init__(self, to_chunks: ToChunks) -> None:
        self._to_chunks = to_chunks
        self._known = KnownPieces()
        self._broken = False

    def answer(self, response: WireResponse) -> Pieces:
        """The chunks of a response, read as its status and its bytes say."""
        last = max(len(response.reads) - 1, 0)
        if response.status >= 300:
            text = server_text(b"".join(response.reads))
            return Pieces([last], [Chunk(ChunkKind.ERROR, f"the server answered HTTP {response.status}{text}")])
        self._broken = False
        pieces = self._framed(response, last)
        if self._broken:
            mend(pieces.chunks)
        return count_chunks(pieces)

    def _framed(self, response: WireResponse, last: int) -> Pieces:
        framing = framing_of(response)
        if framing is Framing.EVENTS:
            return self.stream(response.reads)
        if framing is Framing.LINES:
            return scan_lines(response.reads, self.parse)
        if framing is Framing.DOCUMENT:
            return self.document(response.reads)
        return Pieces([last], [web_page(b"".join(response.reads))])

    def stream(self, reads: Sequence[bytes]) -> Pieces:
        """The chunks of a stream of events; of a body without any, what it says instead."""
        found = EventScan(reads, self._known, self.parse).pieces()
        return found if found.chunks else self.document(reads)

    def document(self, reads: Sequence[bytes]) -> Pieces:
        """The chunks of one JSON document; they all arrived with its last byte."""
        body = b"".join(reads)
        chunks = self.parse(body) if body.strip() else []
        return Pieces([max(len(reads) - 1, 0)] * len(chunks), chunks, joined=list(range(1, len(chunks))))

    def parse(self, event: bytes) -> list[Chunk]:
        """The chunks in the data of one event."""
        if event == _DONE:
            return [Chunk(ChunkKind.FINISH)]
        try:
            found = orjson.loads(event)
        except ValueError:
            return self._strange(event)
        if type(found) is dict and not found.get("error"):
            chunks = self._to_chunks(found)
            return chunks if chunks and chunks[0].kind in TOKEN_BEARING else self._silent(found, chunks)
        return self._of(found) if isinstance(found, dict) else self._no_object(found)

    def _of(self, event: Mapping[str, Any]) -> list[Chunk]:
        """The chunks of an object: a failure in it counts before all else."""
        if event.get("error") and (failure := failure_in(event, alone=False)):
            return [Chunk(ChunkKind.ERROR, failure)]
        chunks = self._to_chunks(event)
        return chunks if chunks and chunks[0].kind in TOKEN_BEARING else self._silent(event, chunks)

    def _silent(self, event: Mapping[str, Any], chunks: list[Chunk]) -> list[Chunk]:
        """The chunks of an object that bears no token: it may say that something went wrong."""
        if failure := failure_in(event, alone=not chunks):
            return [*chunks, Chunk(ChunkKind.ERROR, failure)]
        if chunks:
            return chunks
        return [words_alone(event) or Chunk(ChunkKind.EMPTY)]

    def _no_object(self, found: object, deepest: int = _DEEPEST) -> list[Chunk]:
        """The chunks of JSON that is no object: objects in a list or in a text, else a sign of life."""
        if isinstance(found, list):
            inner = [one for part in found if deepest for one in self._any(part, deepest - 1)]
            return inner or [Chunk(ChunkKind.COMMENT)]
        if isinstance(found, str) and found.strip():
            text = found.encode("utf-8", "replace")
            return self.parse(text) if deepest and is_whole(text) else [text_chunk(text)]
        return [Chunk(ChunkKind.COMMENT)]

    def _any(self, found: object, deepest: int) -> list[Chunk]:
        return self._of(found) if isinstance(found, dict) else self._no_object(found, deepest)

    def _strange(self, event: bytes) -> list[Chunk]:
        """The chunks of what is no JSON by the rules."""
        text = event.strip()
        if text.startswith(BYTE_ORDER_MARK):
            return self.parse(text.removeprefix(BYTE_ORDER_MARK))
        if text.upper() == _DONE:
            return [Chunk(ChunkKind.FINISH)]
        if event.startswith(FAILURE):
            return [told_failure(event.removeprefix(FAILURE).strip())]
        if not text or event == COMMENT:
            return [Chunk(ChunkKind.COMMENT)]
        try:
            found = self._any(tolerant(text), _DEEPEST)
        except ValueError:
            return self._several(text)
        self._broken = self._broken or broken(found)
        return found

    def _several(self, text: bytes) -> list[Chunk]:
        """Several events where one should be, each whole; else what the text is that is no JSON."""
        parts = [part.strip().removeprefix(b"data:").strip() for part in _SEVERAL.split(text)]
        parts = [part for part in parts if part]
        if parts != [text] and parts and all(map(is_whole, parts)):
            return [chunk for part in parts for chunk in self.parse(part)]
        return [text_chunk(text)]
