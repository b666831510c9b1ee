"""Parser of server-sent events: bytes in, the `data` of each event out.

Follows the HTML standard, section "Parsing an event stream"
(https://html.spec.whatwg.org/multipage/server-sent-events.html): lines end with CRLF, LF or CR; a blank line ends an
event; several `data` lines are joined with LF. Beyond the standard, the message in a field `error` or in an event of
that name becomes `FAILURE` and the message. A line that is no field (JSON or a sentence of a gateway) becomes an event.
A whole body may end its events with one line end.
"""

from __future__ import annotations

import re
from functools import lru_cache

from engines.dialects.framing import BYTE_ORDER_MARK, is_whole

_LINE_END = re.compile(rb"\r\n|\n|\r")
COMMENT = b":"
FAILURE = b":error "
_ERROR_FIELDS = (b"error", b"exception")
_FIELDS = (b"data", b"event", b"id", b"retry")
_FAILS = re.compile(rb"error|exception|fail|fatal", re.IGNORECASE)
_HARMLESS = frozenset({b"event: message", b"event:message", b"event: completion", b"event: chunk", b"event: delta"})
_BEGINS_LOOSE = (b"{", b"[", b"<", b'"')


class EventSplitter:
    """Splitter of a body into events, read by read.

    The `feed` with the last byte of an event returns it. A comment line is returned as `COMMENT`. Bytes without a line
    end are searched once only, however long the line.

    Args:
        started: The first byte begins an event but not the body, so it is no byte order mark.
        single: A line of data that is complete JSON is an event without a blank line behind it.
    """

    __slots__ = ("_after_cr", "_data", "_failing", "_loose", "_pending", "_single", "_started")

    def __init__(self, *, started: bool = False, single: bool = False) -> None:
        self._pending: list[bytes] = []  # parts of an incomplete line
        self._data: list[bytes] = []
        self._loose: list[bytes] = []
        self._failing = b""
        self._after_cr = False
        self._started = started
        self._single = single

    def feed(self, body: bytes) -> list[bytes]:
        """Return the data of every event that these bytes complete."""
        if not self._started and not self._pending and len(body) >= 3 and not body.startswith(BYTE_ORDER_MARK):
            self._started = True
        in_event = self._pending or self._data or self._after_cr or self._loose or self._failing
        if self._started and not in_event and body.endswith(b"\n\n") and body.find(b"\r") < 0:
            events = body[:-2].split(b"\n\n")
            data = [event[6:] for event in events if event.startswith(b"data: ") and event.find(b"\n") < 0]
            if len(data) == len(events):
                return data
        return self._feed_lines(body)

    def finish(self) -> list[bytes]:
        """Return the data of a last event that no blank line ended."""
        done = self._feed_lines(b"\n\n") if self._pending or self._data or self._loose or self._failing else []
        return [event for event in done if event != COMMENT]

    def _feed_lines(self, body: bytes) -> list[bytes]:
        if not body:  # a read that held no bytes of the body: a CR before it still waits for its LF
            return []
        if self._after_cr:
            self._after_cr = False
            if body.startswith(b"\n"):  # second half of a CRLF that was split between two reads
                body = body[1:]
        if not self._started:
            body = b"".join([*self._pending, body])
            self._pending = []
            if len(body) < 3 and BYTE_ORDER_MARK.startswith(body):
                self._pending = [body]
                return []
            body = body.removeprefix(BYTE_ORDER_MARK)
            self._started = True
        *lines, rest = _LINE_END.split(body) if b"\n" in body or b"\r" in body else (body,)
        if lines:
            lines[0] = b"".join([*self._pending, lines[0]])
            self._pending = []
        if rest:
            self._pending.append(rest)
        self._after_cr = body.endswith(b"\r")
        return self._events(lines)

    def _events(self, lines: list[bytes]) -> list[bytes]:
        done: list[bytes] = []
        for line in lines:
            if not line:
                if self._failing or self._loose:
                    self._end(done)
                elif self._data:
                    done.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b" ", 5) else line[5:])
                if self._loose:
                    self._end_loose(done)
                if self._single and len(self._data) == 1 and is_whole(self._data[0]):
                    self._end(done)
            elif line.startswith(b":"):
                done.append(COMMENT)
            elif line in _HARMLESS and not self._loose:
                self._failing = b""
            else:
                self._other(line, done)
        return done

    def _other(self, line: bytes, done: list[bytes]) -> None:
        """Take a line without data. An unknown field is ignored; a line that is no field is loose text."""
        name, colon, value = line.partition(b":")
        if name in _FIELDS:
            if self._loose:
                self._end_loose(done)
            if name == b"event":
                self._failing = failing(line)
            elif name == b"data":
                self._data.append(value)
        elif colon and name.lower() in _ERROR_FIELDS:
            done.append(FAILURE + value.strip())
        elif self._loose or line.lstrip().startswith(_BEGINS_LOOSE) or b" " in name.strip():
            self._loose.append(line)
            if len(self._loose) == 1 and is_whole(line):
                self._end_loose(done)

    def _end(self, done: list[bytes]) -> None:
        """End an event."""
        if self._loose:
            self._end_loose(done)
        data = b"\n".join(self._data)
        if self._failing:
            done.append(FAILURE + (data or self._failing))
        elif self._data:
            done.append(data)
        self._data = []
        self._failing = b""

    def _end_loose(self, done: list[bytes]) -> None:
        done.append(b"\n".join(self._loose))
        self._loose = []


@lru_cache(maxsize=256)
def failing(line: bytes) -> bytes:
    """Return the name of an event that reports a failure, from its line; b"" for any other."""
    name = line.partition(b":")[2].strip()
    return name if _FAILS.search(name) else b""


def one_line_each(body: bytes) -> bool:
    """Return True if a single line end ends the events.

    That is so if the first line of data is complete JSON and another follows without a blank line.
    """
    first, begin = False, 0
    for end in _LINE_END.finditer(body):
        line, begin = body[begin : end.start()], end.end()
        name, _, value = line.removeprefix(BYTE_ORDER_MARK).partition(b":")
        if not line and first:
            return False
        if name == b"data":
            value = value.strip()
            if first:
                return value == b"[DONE]" or value.startswith((b"{", b"["))
            first = is_whole(value)
            if not first:
                return False
    return False
