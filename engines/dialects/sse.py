"""Server-sent events: bytes in, the `data` of each event out.

Follows the HTML standard, section "Parsing an event stream"
(https://html.spec.whatwg.org/multipage/server-sent-events.html): lines end with CRLF, LF or CR; a blank line ends an
event; several `data` lines are joined with LF.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COMMENT = b":"


class EventSplitter:
    """Cuts a body, given read by read, into events.

    An event comes out of the `feed` that brings the byte which ends it. A comment line comes out as `COMMENT`.
    started: the first byte to come begins an event, but not the body, so that it is no byte order mark.
    """

    __slots__ = ("_after_cr", "_data", "_pending", "_started")

    def __init__(self, *, started: bool = False) -> None:
        self._pending = b""
        self._data: list[bytes] = []
        self._after_cr = False
        self._started = started

    def feed(self, body: bytes) -> list[bytes]:
        """The data of every event that these bytes complete."""
        if not self._started and not self._pending and len(body) >= 3 and not body.startswith(_BYTE_ORDER_MARK):
            self._started = True
        if self.at_boundary and body.endswith(b"\n\n") and body.find(b"\r") < 0:
            events = body[:-2].split(b"\n\n")
            data = [event[6:] for event in events if event.startswith(b"data: ") and event.find(b"\n") < 0]
            if len(data) == len(events):
                return data
        return self._feed_lines(body)

    def finish(self) -> list[bytes]:
        """What an ended body leaves behind: the data of an event that no blank line ended."""
        done = self._feed_lines(b"\n\n") if self._pending or self._data else []
        return [event for event in done if event != COMMENT]

    @property
    def at_boundary(self) -> bool:
        """Whether the next byte begins a new event."""
        return self._started and not (self._pending or self._data or self._after_cr)

    def _feed_lines(self, body: bytes) -> list[bytes]:
        if self._after_cr and body:
            self._after_cr = False
            if body.startswith(b"\n"):  # second half of a CRLF whose CR ended the previous read
                body = body[1:]
        pending = self._pending + body
        if not self._started:
            if len(pending) < 3 and _BYTE_ORDER_MARK.startswith(pending):
                self._pending = pending
                return []
            pending = pending.removeprefix(_BYTE_ORDER_MARK)
            self._started = True
        *lines, self._pending = _LINE_END.split(pending)
        self._after_cr = pending.endswith(b"\r")
        return self._events(lines)

    def _events(self, lines: list[bytes]) -> list[bytes]:
        done = []
        for line in lines:
            if not line:
                if self._data:
                    done.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b":"):
                done.append(COMMENT)
            else:
                name, _, value = line.partition(b":")
                if name == b"data":
                    self._data.append(value.removeprefix(b" "))
        return done
