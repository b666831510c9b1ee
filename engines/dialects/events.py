"""Decoding the body of an answer: server-sent events, JSON lines, or one JSON document.

Servers repeat one event with different texts. `EventScan` learns what surrounds the text (the template) from one event
and proves it. From then on it splits the body at what lies between two texts, and looks each text up. An event that
does not fit is parsed. If the body is not a sequence of plain `data: ...` lines, each perhaps behind an `event: ...`
line that names no failure, `EventSplitter` takes over. These short cuts change no result: the tests compare them with
the parser, for any division into reads.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
import orjson

from engines.base import TOKEN_BEARING, Chunk, ChunkKind
from engines.dialects.answers import broken, count_chunks, mend, tolerant
from engines.dialects.base import Pieces, WireResponse
from engines.dialects.failures import failure_in, server_text, text_chunk, unknown_text
from engines.dialects.framing import BYTE_ORDER_MARK, Framing, framing_of, is_whole
from engines.dialects.sse import COMMENT, FAILURE, EventSplitter, failing, one_line_each

Parse = Callable[[bytes], list[Chunk]]
_KNOWN_PIECES = 20_000
_PROBE = "probe 0f9b"
_MARK = 3  # bytes of a line that make five with LF LF, the longest pattern of the fastest search
_TEMPLATES = 6  # per reply: reasoning, content, tool ...; more means that nothing is repeated
_RUNS = 12  # per reply, so that an irregular one costs only some passes


class KnownPieces:
    """Chunks seen so far, by kind and text on the wire."""

    def __init__(self) -> None:
        self.of: dict[ChunkKind, dict[bytes, Chunk]] = {kind: {} for kind in TOKEN_BEARING}

    def add(self, kind: ChunkKind, text: bytes) -> Chunk | None:
        """Return the chunk of a new text; None if only the parser can decode the text."""
        if not text or b'"' in text or b"\\" in text or min(text) < 0x20:
            return None
        try:
            chunk = Chunk(kind, text.decode())
        except UnicodeDecodeError:
            return None
        pieces = self.of[kind]
        if len(pieces) >= _KNOWN_PIECES:
            pieces.clear()
        pieces[text] = chunk
        return chunk


class _Template:
    """Bytes around the text in the events of one answer. `line_*` also include the rest of the lines.

    `mark`: the end of an event and the beginning of the next.
    """

    __slots__ = ("between", "head", "kind", "line_head", "line_tail", "mark", "tail")

    def __init__(self, before: bytes, head: bytes, tail: bytes, kind: ChunkKind, blank: bytes) -> None:
        self.head, self.tail, self.kind = head, tail, kind
        self.line_head, self.line_tail = before + head, tail + blank
        self.between = self.line_tail + self.line_head
        self.mark = blank + before[:_MARK]


class EventScan:
    """Scan over the events of one body.

    `_ends` holds, for each chunk, the offset behind the byte that completed its event.
    """

    def __init__(self, reads: Sequence[bytes], known: KnownPieces, parse: Parse) -> None:
        self._known = known
        self._parse = parse
        self._body = b"".join(reads)
        self._read_ends = list(accumulate(map(len, reads)))
        line_end = self._body.find(b"\n")
        self._blank = b"\r\n\r\n" if self._body[max(line_end - 1, 0) : line_end] == b"\r" else b"\n\n"
        self._line_end = self._blank[: len(self._blank) // 2]
        self._after_end = len(self._line_end) - 1  # a CR ends the blank line, even if an LF follows
        self._template: _Template | None = None
        self._templates_left = _TEMPLATES
        self._runs_left = _RUNS
        self._chunks: list[Chunk] = []
        self._kinds: list[ChunkKind] = []
        self._ends: list[int] = []
        self._joined: list[int] = []

    def pieces(self) -> Pieces:
        """Return all chunks of the body."""
        body = self._body
        at = 0
        while at < len(body):
            template = self._template
            if template is not None and self._runs_left and body.startswith(template.line_head, at):
                at = self._run(template, at)
            following = self._plain(at, at + 1)
            if following == at < len(body):
                self._split(at)
                break
            at = following
        if not self._chunks:
            return Pieces([], [])
        read_ends = np.array(self._read_ends)
        reads = read_ends.searchsorted(np.array(self._ends), "left").clip(max=len(read_ends) - 1)
        return Pieces(reads.tolist(), self._chunks, self._kinds, self._joined)

    def _run(self, template: _Template, at: int) -> int:
        """Take the events from `at` to the last with the template's tail. Return the offset behind them."""
        first = at + len(template.line_head)
        last = self._body.rfind(template.line_tail, first)
        self._runs_left -= 1
        if last < 0:
            return at
        run = self._body[first:last]
        texts = self._texts(template, run)
        around = len(template.line_head) + len(template.line_tail)
        ends = list(accumulate(map(around.__add__, map(len, texts)), initial=at))[1:]
        chunks = list(map(self._known.of[template.kind].get, texts))
        if not all(chunks):
            return self._run_with_others(template, texts, ends)
        self._chunks += chunks  # type: ignore[arg-type]
        self._kinds += [template.kind] * len(chunks)
        self._ends += [end - self._after_end for end in ends] if self._after_end else ends
        return ends[-1]

    def _texts(self, template: _Template, run: bytes) -> list[bytes]:
        """Split a run at template tail, empty line and template head.

        To split at a few bytes of that and to compare is several times faster than to split at all of it.
        """
        before, after = template.between.split(template.mark, 1)
        start, stop = len(after), -len(before)
        texts = [line[start:stop] for line in (after + run + before).split(template.mark)]
        return texts if template.between.join(texts) == run else run.split(template.between)

    def _run_with_others(self, template: _Template, texts: Sequence[bytes], ends: Sequence[int]) -> int:
        """Take texts that may be new, or that span whole events which do not fit. Return the offset behind them."""
        get, add = self._known.of[template.kind].get, self._known.add
        around = len(template.line_head) + len(template.line_tail)
        for text, end in zip(texts, ends, strict=True):
            chunk = get(text) or add(template.kind, text)
            if chunk is not None:
                self._add([chunk], end - self._after_end)
                continue
            start = end - around - len(text)
            if end == ends[-1] and b"\n" in text:
                return start  # another template may fit what follows
            stopped = self._plain(start, end)
            if stopped < end:
                return stopped
        return ends[-1]

    def _plain(self, at: int, stop: int) -> int:
        """Take the events that begin before `stop`. Return the offset of the first that is not a plain line of data."""
        body, blank = self._body, self._blank
        while at < stop and at < len(body):
            end = body.find(blank, at)
            first, line_end, event = b"", b"", body[at:end]
            if event.startswith(b"event:"):
                first, line_end, event = event.partition(self._line_end)
            if end < 0 or b"\n" in event or b"\r" in event or (first and _tells(first)):
                return at
            if event.startswith(b"data: "):
                self._take(event[6:], end + len(blank) - self._after_end, first + line_end)
            elif event.startswith(b":") and not first:
                self._take(COMMENT, end + 1)
            else:
                return at
            at = end + len(blank)
        return at

    def _split(self, at: int) -> None:
        """Take the rest from `at` by the standard, read by read."""
        splitter = EventSplitter(started=at > 0, single=one_line_each(self._body))
        for read_end in self._read_ends[bisect_right(self._read_ends, at) :]:
            for event in splitter.feed(self._body[at:read_end]):
                self._take(event, read_end)
            at = read_end
        for event in splitter.finish():
            rest = self._parse(event)
            if not any(chunk.kind is ChunkKind.UNREADABLE for chunk in rest):  # half an event only shows truncation
                self._add(rest, len(self._body) + 1)  # complete only with the last read, which may be empty

    def _take(self, event: bytes, end: int, line_before: bytes = b"") -> None:
        """Add the chunks of an event that ends at an offset of the body. line_before: its line above that of data."""
        template = self._template
        if template is not None and event.startswith(template.head) and event.endswith(template.tail):
            text = event[len(template.head) : -len(template.tail)]
            chunk = self._known.of[template.kind].get(text) or self._known.add(template.kind, text)
            if chunk is not None:
                self._add([chunk], end)
                return
        chunks = self._parse(event)
        self._learn(event, chunks, line_before + b"data: ")
        self._add(chunks, end)

    def _add(self, chunks: Sequence[Chunk], end: int) -> None:
        """Add chunks that were complete at one offset of the body."""
        if len(chunks) > 1:
            self._joined += range(len(self._chunks) + 1, len(self._chunks) + len(chunks))
        self._chunks += chunks
        self._kinds += [chunk.kind for chunk in chunks]
        self._ends += [end] * len(chunks)

    def _learn(self, event: bytes, chunks: list[Chunk], before: bytes) -> None:
        """Learn a template from an event that holds one text and nothing else. before: what precedes it in the body.

        The full parser proves it: it must return another text in that place, and nothing else. So any text without
        escapes may stand there.
        """
        if not self._templates_left or len(chunks) != 1:
            return
        kind, text = chunks[0].kind, chunks[0].text
        if kind not in TOKEN_BEARING or chunks[0].tokens is not None:
            return
        if not text.isascii() and broken(chunks):
            return
        quoted = orjson.dumps(text)
        at = event.find(quoted)
        if at < 0:
            return
        head, tail = event[: at + 1], event[at + len(quoted) - 1 :]
        known = self._template
        if known is not None and (known.head, known.tail, known.kind) == (head, tail, kind):
            return
        self._templates_left -= 1
        if self._parse(head + _PROBE.encode() + tail) == [Chunk(kind, _PROBE)]:
            self._template = _Template(before, head, tail, kind, self._blank)


@lru_cache(maxsize=256)
def _tells(line: bytes) -> bool:
    """Return whether an `event` line names a failure, or is more than one line to `EventSplitter`."""
    return b"\n" in line or b"\r" in line or bool(failing(line))


def scan_lines(reads: Sequence[bytes], parse: Callable[[bytes], list[Chunk]]) -> Pieces:
    """Return the chunks of a body of JSON lines.

    Each line is parsed: such servers write a time into each, so that there is no template. An incomplete last line only
    shows truncation.
    """
    chunks: list[Chunk] = []
    ends: list[int] = []
    joined: list[int] = []
    at = 0
    body = b"".join(reads)
    for line in body.split(b"\n"):
        at += len(line) + 1
        if not line or line.isspace():
            continue
        found = parse(line)
        if at > len(body) and any(chunk.kind is ChunkKind.UNREADABLE for chunk in found):
            break
        if len(found) > 1:
            joined += range(len(chunks) + 1, len(chunks) + len(found))
        chunks += found
        ends += [at] if len(found) == 1 else [at] * len(found)
    if not chunks:
        return Pieces([], [])
    read_ends = np.array(list(accumulate(map(len, reads))))
    return Pieces(read_ends.searchsorted(np.array(ends).clip(max=len(body)), "left").tolist(), chunks, joined=joined)


ToChunks = Callable[[Mapping[str, Any]], list[Chunk]]
_DONE = b"[DONE]"
_DEEPEST = 4
_SEVERAL = re.compile(rb"\r\n|\n|\r|(?<=[}\]])\s*data:\s*")


class EventDecoder:
    """Decoder of answers, for the events of one dialect.

    `to_chunks` receives objects only, and returns [] for those of another format.
    """

    def __init__(self, to_chunks: ToChunks) -> None:
        self._to_chunks = to_chunks
        self._known = KnownPieces()
        self._broken = False

    def answer(self, response: WireResponse) -> Pieces:
        """Return the chunks of a response, read according to its status and its bytes."""
        last = max(len(response.reads) - 1, 0)
        if response.status >= 300:
            text = server_text(b"".join(response.reads))
            return Pieces([last], [Chunk(ChunkKind.ERROR, f"the server answered HTTP {response.status}{text}")])
        self._broken = False
        framing = framing_of(response)
        if framing is Framing.EVENTS:
            pieces = self.stream(response.reads)
        elif framing is Framing.LINES:
            pieces = scan_lines(response.reads, self.parse)
        elif framing is Framing.DOCUMENT:
            pieces = self.document(response.reads)
        else:
            text = server_text(b"".join(response.reads))
            pieces = Pieces([last], [Chunk(ChunkKind.ERROR, f"the server answered with a web page{text}")])
        if self._broken:
            mend(pieces.chunks)
        return count_chunks(pieces)

    def stream(self, reads: Sequence[bytes]) -> Pieces:
        """Return the chunks of an event stream; for a body without events, the text it holds."""
        found = EventScan(reads, self._known, self.parse).pieces()
        return found if found.chunks else self.document(reads)

    def document(self, reads: Sequence[bytes]) -> Pieces:
        """Return the chunks of one JSON document, which arrived with its last byte."""
        body = b"".join(reads)
        chunks = self.parse(body) if body.strip() else []
        return Pieces([max(len(reads) - 1, 0)] * len(chunks), chunks, joined=list(range(1, len(chunks))))

    def parse(self, event: bytes) -> list[Chunk]:
        """Return the chunks in the data of one event."""
        if event == _DONE:
            return [Chunk(ChunkKind.FINISH)]
        try:
            found = orjson.loads(event)
        except ValueError:
            return self._invalid(event)
        if type(found) is dict and not found.get("error"):
            chunks = self._to_chunks(found)
            return chunks if chunks and chunks[0].kind in TOKEN_BEARING else self._without_tokens(found, chunks)
        return self._of(found) if isinstance(found, dict) else self._no_object(found)

    def _of(self, event: Mapping[str, Any]) -> list[Chunk]:
        """Return the chunks of an object. A failure in it takes precedence."""
        if event.get("error") and (failure := failure_in(event, alone=False)):
            return [Chunk(ChunkKind.ERROR, failure)]
        chunks = self._to_chunks(event)
        return chunks if chunks and chunks[0].kind in TOKEN_BEARING else self._without_tokens(event, chunks)

    def _without_tokens(self, event: Mapping[str, Any], chunks: list[Chunk]) -> list[Chunk]:
        """Return the chunks of an object without tokens, which may report a failure."""
        if failure := failure_in(event, alone=not chunks):
            return [*chunks, Chunk(ChunkKind.ERROR, failure)]
        if chunks:
            return chunks
        return [unknown_text(event) or Chunk(ChunkKind.EMPTY)]

    def _no_object(self, found: object, deepest: int = _DEEPEST) -> list[Chunk]:
        """Return the chunks of JSON that is not an object: those of objects within it, else a keep-alive."""
        if isinstance(found, list):
            inner = [one for part in found if deepest for one in self._any(part, deepest - 1)]
            return inner or [Chunk(ChunkKind.COMMENT)]
        if isinstance(found, str) and found.strip():
            text = found.encode("utf-8", "replace")
            return self.parse(text) if deepest and is_whole(text) else [text_chunk(text)]
        return [Chunk(ChunkKind.COMMENT)]

    def _any(self, found: object, deepest: int) -> list[Chunk]:
        return self._of(found) if isinstance(found, dict) else self._no_object(found, deepest)

    def _invalid(self, event: bytes) -> list[Chunk]:
        """Return the chunks of invalid JSON."""
        text = event.strip()
        if text.startswith(BYTE_ORDER_MARK):
            return self.parse(text.removeprefix(BYTE_ORDER_MARK))
        if text.upper() == _DONE:
            return [Chunk(ChunkKind.FINISH)]
        if event.startswith(FAILURE):
            message = server_text(event.removeprefix(FAILURE).strip()).removeprefix(": ")
            return [Chunk(ChunkKind.ERROR, message or "the server sent an error without a message")]
        if not text or event == COMMENT:
            return [Chunk(ChunkKind.COMMENT)]
        try:
            found = self._any(tolerant(text), _DEEPEST)
        except ValueError:
            return self._several(text)
        self._broken = self._broken or broken(found)
        return found

    def _several(self, text: bytes) -> list[Chunk]:
        """Return the chunks of several complete events in the place of one, else of the text."""
        parts = [part.strip().removeprefix(b"data:").strip() for part in _SEVERAL.split(text)]
        parts = [part for part in parts if part]
        if parts != [text] and parts and all(map(is_whole, parts)):
            return [chunk for part in parts for chunk in self.parse(part)]
        return [text_chunk(text)]
