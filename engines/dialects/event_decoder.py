"""From the bodies of an answer to chunks: JSON in server-sent events, a JSON object a line, or one JSON document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from engines.base import Chunk, ChunkKind
from engines.dialects.base import Pieces, WireResponse
from engines.dialects.event_scan import EventScan, KnownPieces
from engines.dialects.line_scan import scan_lines
from engines.dialects.sse import COMMENT

ToChunks = Callable[[Mapping[str, Any]], list[Chunk]]
_DONE = b"[DONE]"
_QUOTED_CHARACTERS = 200


class EventDecoder:
    """Decodes answers whose events `to_chunks` understands."""

    def __init__(self, to_chunks: ToChunks) -> None:
        self._to_chunks = to_chunks
        self._known = KnownPieces()

    def answer(self, response: WireResponse) -> Pieces:
        """The chunks of a response, read as its status and its content type say."""
        last = max(len(response.reads) - 1, 0)
        if response.status >= 300:
            text = server_text(b"".join(response.reads))
            return Pieces([last], [Chunk(ChunkKind.ERROR, f"the server answered HTTP {response.status}{text}")])
        kind = response.headers.get("content-type", "")
        if "html" in kind:
            text = server_text(b"".join(response.reads))
            return Pieces([last], [Chunk(ChunkKind.ERROR, f"the server answered with a web page{text}")])
        if "ndjson" in kind:
            return scan_lines(response.reads, self.parse)
        if "json" in kind and "event-stream" not in kind:
            return self.document(response.reads)
        return self.stream(response.reads)

    def stream(self, reads: Sequence[bytes]) -> Pieces:
        """The chunks of a stream of events."""
        found = EventScan(reads, self._known, self.parse).pieces()
        return found if found.chunks else self._not_a_stream(reads)

    def document(self, reads: Sequence[bytes]) -> Pieces:
        """The chunks of one JSON document; they all arrived with its last byte."""
        chunks = self.parse(b"".join(reads))
        return Pieces([max(len(reads) - 1, 0)] * len(chunks), chunks)

    def parse(self, event: bytes) -> list[Chunk]:
        """The chunks in the data of one event."""
        if event == COMMENT:
            return [Chunk(ChunkKind.COMMENT)]
        if event.strip() == _DONE:
            return [Chunk(ChunkKind.FINISH)]
        try:
            return self._to_chunks(orjson.loads(event))
        except (ValueError, TypeError, AttributeError, KeyError):
            return [Chunk(ChunkKind.ERROR, f"the server sent something that cannot be read{server_text(event)}")]

    def _not_a_stream(self, reads: Sequence[bytes]) -> Pieces:
        """A body without any event: a server that forgot to say that it answers with plain JSON, or nothing at all."""
        return self.document(reads) if b"".join(reads).strip() else Pieces([], [])


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


def tool_text(call: Mapping[str, Any]) -> str:
    """What a call of a tool holds of generated text."""
    function = call.get("function") or {}
    arguments = function.get("arguments") or ""
    written = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return str(function.get("name") or "") + written
