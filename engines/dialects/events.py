"""From the bodies of an answer to chunks: JSON in server-sent events, a JSON object a line, or one JSON document.

One pass over the events of a reply: short cuts for what servers repeat, the full parser for everything else.

Servers send the same event again and again with another text in it. What surrounds the text (the template) is learned
from one event and proven; from there on, the body is split at everything that lies between two texts, and each text is
looked up. Any event that does not fit is parsed, and a body that is no sequence of plain `data: ...` lines is left to
`EventSplitter` from there on. Short cuts change no result: the tests hold them against the parser, for any reads.

A JSON object a line (application/x-ndjson): which read brought each line's last byte.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import orjson

from engines.base import TOKEN_BEARING, Chunk, ChunkKind
from engines.dialects.answers import broken, count_chunks, mend, tolerant
from engines.dialects.base import Pieces, WireResponse
from engines.dialects.failures import failure_in, server_text, text_chunk, told_failure, web_page, words_alone
from engines.dialects.framing import BYTE_ORDER_MARK, Framing, framing_of, is_whole
from engines.dialects.sse import COMMENT, FAILURE, EventSplitter, one_line_each

Parse = Callable[[bytes], list[Chunk]]
_KNOWN_PIECES = 20_000
_PROBE = "probe 0f9b"
_DATA = b"dat"  # with LF LF five bytes, up to which bytes are searched fastest
_TEMPLATES = 6  # learned in one reply: reasoning, content, tool ...; more means that nothing is repeated
_RUNS = 12  # begun in one reply, so that a strange one costs no more than some passes


class KnownPieces:
    """The pieces met so far, by kind and text as on the wire."""

    def __init__(self) -> None:
        self._by_kind: dict[ChunkKind, dict[bytes, Chunk]] = {kind: {} for kind in TOKEN_BEARING}

    def of(self, kind: ChunkKind) -> dict[bytes, Chunk]:
        """The pieces of one kind."""
        return self._by_kind[kind]

    def add(self, kind: ChunkKind, text: bytes) -> Chunk | None:
        """The piece with a text not met before; None if only the parser can tell what it is."""
        if not text or b'"' in text or b"\\" in text or min(text) < 0x20:
            return None
        try:
            chunk = Chunk(kind, text.decode())
        except UnicodeDecodeError:
            return None
        pieces = self._by_kind[kind]
        if len(pieces) >= _KNOWN_PIECES:
            pieces.clear()
        pieces[text] = chunk
        return chunk


@dataclass(frozen=True, slots=True)
class _Template:
    """What surrounds the text in the events of one answer; `line_*` with what makes the event a line of the body."""

    head: bytes
    tail: bytes
    kind: ChunkKind
    line_head: bytes
    line_tail: bytes
    between: bytes

    @classmethod
    def around(cls, head: bytes, tail: bytes, kind: ChunkKind, blank: bytes) -> _Template:
        line_head, line_tail = b"data: " + head, tail + blank
        return cls(head, tail, kind, line_head, line_tail, line_tail + line_head)


class EventScan:
    """Reads the events of one body, which came in `reads`.

    ends: for each chunk, the offset in the body behind the byte that completed its event.
    """

    def __init__(self, reads: Sequence[bytes], known: KnownPieces, parse: Parse) -> None:
        self._known = known
        self._parse = parse
        self._body = b"".join(reads)
        self._read_ends = list(accumulate(map(len, reads)))
        line_end = self._body.find(b"\n")
        self._blank = b"\r\n\r\n" if self._body[max(line_end - 1, 0) : line_end] == b"\r" else b"\n\n"
        self._after_end = len(self._blank) // 2 - 1  # a CR ends the blank line, whether or not an LF follows
        self._template: _Template | None = None
        self._templates_left = _TEMPLATES
        self._runs_left = _RUNS
        self._chunks: list[Chunk] = []
        self._kinds: list[ChunkKind] = []
        self._ends: list[int] = []
        self._joined: list[int] = []

    def pieces(self) -> Pieces:
        """Everything in the body."""
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
        """Take the events from `at` up to the last with the template's tail; where it stopped."""
        first = at + len(template.line_head)
        last = self._body.rfind(template.line_tail, first)
        if last < 0:
            return at
        self._runs_left -= 1
        run = self._body[first:last]
        texts = self._texts(template, run)
        around = len(template.line_head) + len(template.line_tail)
        ends = list(accumulate(map(around.__add__, map(len, texts)), initial=at))[1:]
        chunks = list(map(self._known.of(template.kind).get, texts))
        if not all(chunks):
            return self._run_with_others(template, texts, ends)
        self._chunks += chunks  # type: ignore[arg-type]
        self._kinds += [template.kind] * len(chunks)
        self._ends += [end - self._after_end for end in ends] if self._after_end else ends
        return ends[-1]

    def _texts(self, template: _Template, run: bytes) -> list[bytes]:
        """What lies between the places where the template's tail, an empty line and its head meet.

        The same as a split by all that, which is long: to split by a few bytes of it, and to compare, is several times
        faster.
        """
        before, after = template.between.split(self._blank + _DATA, 1)
        start, stop = len(after), -len(before)
        texts = [line[start:stop] for line in (after + run + before).split(self._blank + _DATA)]
        return texts if template.between.join(texts) == run else run.split(template.between)

    def _run_with_others(self, template: _Template, texts: Sequence[bytes], ends: Sequence[int]) -> int:
        """Take these texts, of which some are new, or hold what is no text: whole events that do not fit."""
        get, add = self._known.of(template.kind).get, self._known.add
        around = len(template.line_head) + len(template.line_tail)
        for text, end in zip(texts, ends, strict=True):
            chunk = get(text) or add(template.kind, text)
            if chunk is not None:
                self._add([chunk], end - self._after_end)
                continue
            start = end - around - len(text)
            if end == ends[-1] and b"\n" in text:
                return start  # much may follow, for which there may be another template
            stopped = self._plain(start, end)
            if stopped < end:
                return stopped
        return ends[-1]

    def _plain(self, at: int, stop: int) -> int:
        """Take the events that begin before `stop`; where it stopped, as no plain line of data begins there."""
        body, blank = self._body, self._blank
        while at < stop and at < len(body):
            end = body.find(blank, at)
            event = body[at:end]
            if end < 0 or b"\n" in event or b"\r" in event:
                return at
            if event.startswith(b"data: "):
                self._take(event[6:], end + len(blank) - self._after_end)
            elif event.startswith(b":"):
                self._take(COMMENT, end + 1)
            else:
                return at
            at = end + len(blank)
        return at

    def _split(self, at: int) -> None:
        """Take everything from `at` on as the standard says, read by read."""
        splitter = EventSplitter(started=at > 0, single=one_line_each(self._body))
        for read_end in self._read_ends[bisect_right(self._read_ends, at) :]:
            for event in splitter.feed(self._body[at:read_end]):
                self._take(event, read_end)
            at = read_end
        for event in splitter.finish():
            rest = self._parse(event)
            if not any(chunk.kind is ChunkKind.UNREADABLE for chunk in rest):  # half an event says only that it was cut
                self._add(rest, len(self._body) + 1)  # known to be all when the last read came, if empty

    def _take(self, event: bytes, end: int) -> None:
        """Add the chunks of one event."""
        template = self._template
        chunks = self._fitting(template, event) if template is not None else None
        if chunks is None:
            chunks = self._parse(event)
            self._learn(event, chunks)
        self._add(chunks, end)

    def _add(self, chunks: Sequence[Chunk], end: int) -> None:
        """Add chunks that were complete at one place in the body."""
        if len(chunks) > 1:
            self._joined += range(len(self._chunks) + 1, len(self._chunks) + len(chunks))
        self._chunks += chunks
        self._kinds += [chunk.kind for chunk in chunks]
        self._ends += [end] * len(chunks)

    def _fitting(self, template: _Template, event: bytes) -> list[Chunk] | None:
        """The piece in an event that the template fits; None in any other."""
        if not (event.startswith(template.head) and event.endswith(template.tail)):
            return None
        text = event[len(template.head) : -len(template.tail)]
        chunk = self._known.of(template.kind).get(text) or self._known.add(template.kind, text)
        return None if chunk is None else [chunk]

    def _learn(self, event: bytes, chunks: list[Chunk]) -> None:
        """Take a template from an event that holds one piece of text and nothing else.

        Proven, not guessed: with another text in its place the full parser must give that text and nothing else, so any
        string that needs no escape may stand there.
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
            self._template = _Template.around(head, tail, kind, self._blank)


def scan_lines(reads: Sequence[bytes], parse: Callable[[bytes], list[Chunk]]) -> Pieces:
    """The pieces of a body that came in `reads`.

    Every line of such servers has a time in it, so there is no template to learn, as there is of events: each is
    parsed. Half a line at the end says only that the reply was cut off.
    """
    chunks: list[Chunk] = []
    ends: list[int] = []
    joined: list[int] = []
    at = 0
    *lines, rest = b"".join(reads).split(b"\n")
    for line in lines:
        at += len(line) + 1
        if line and not line.isspace():
            found = parse(line)
            if len(found) > 1:
                joined += range(len(chunks) + 1, len(chunks) + len(found))
            chunks += found
            ends += [at] if len(found) == 1 else [at] * len(found)
    if rest.strip():
        found = parse(rest)
        if not any(chunk.kind is ChunkKind.UNREADABLE for chunk in found):
            joined += range(len(chunks) + 1, len(chunks) + len(found))
            chunks += found
            ends += [at + len(rest)] * len(found)
    if not chunks:
        return Pieces([], [])
    read_ends = np.array(list(accumulate(map(len, reads))))
    return Pieces(read_ends.searchsorted(np.array(ends), "left").tolist(), chunks, joined=joined)


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
