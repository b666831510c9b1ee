"""One HTTP response as a machine without input and output: bytes in, "is it complete?" out.

While a reply streams, nothing is parsed but what is needed to find its end: the parser has seen the head and waits; a
read is only kept, and looked at for the two line ends that every last chunk ends with. Only then is all that was kept
parsed, and the parser alone decides: bytes inside the payload that look like an end change nothing.

Undoing a content encoding that was not asked for, read by read, so that the times of the reads stay true.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from itertools import accumulate

import httptools

from engines.dialects.base import WireResponse

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_RAW = -zlib.MAX_WBITS
_AT_ONCE = 4096  # what follows a compressed member is copied, so that little must follow


def decoded(encoding: str, reads: Sequence[bytes], most: int) -> tuple[Sequence[bytes], bool]:
    """The body without its content encoding, cut as it came in: what a read completed is in that read. And whether that
    is all of it: no more than `most` bytes are made of it, however little came in.

    Raises ValueError, one sentence, for an encoding that is not known, and for a body that is not so encoded.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return reads, True
    if kind not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"the server encoded its answer as {encoding}, which was not asked for and cannot be read")
    for bits in (_GZIP_OR_ZLIB, _RAW) if kind == "deflate" else (_GZIP_OR_ZLIB,):
        try:
            found = list(_inflated(reads, bits, most))
        except zlib.error as error:
            failure = error
        else:
            missing = len(reads) - len(found)
            return found + [b""] * missing, missing == 0 and sum(map(len, found)) <= most
    raise ValueError(f"the server compressed its answer in a way that cannot be read ({failure})") from failure


def _inflated(reads: Sequence[bytes], bits: int, most: int) -> Iterator[bytes]:
    """Each read's share, up to the one that brings more than `most` bytes in all; one compressed member may follow
    another.
    """
    inflater = zlib.decompressobj(wbits=bits)
    left = most + 1
    for data in reads:
        parts = []
        for start in range(0, len(data), _AT_ONCE):
            rest = data[start : start + _AT_ONCE]
            while rest and left:
                parts.append(inflater.decompress(rest, left))
                left -= len(parts[-1])
                rest = inflater.unused_data
                if inflater.eof:
                    inflater = zlib.decompressobj(wbits=bits)
        yield b"".join(parts)
        if not left:
            return


_SHORTEST_END = 4
MOST_BYTES = 64 << 20  # of a reply: more than 200,000 tokens in events of their own
KEPT_BYTES = 4 << 20  # of a reply that has more: it has failed, and what little is looked at of it costs no time
MOST_OF_A_HEAD = 256 << 10
_ALLOWED = f"than {MOST_BYTES >> 20} MiB, which is the most; the first {KEPT_BYTES >> 20} MiB were kept"


class _Until(Enum):
    """How the end of the body is known."""

    HEAD = auto()
    LAST_CHUNK = auto()
    LENGTH = auto()
    CLOSE = auto()


class ResponseReader:
    """Takes the reads of one response.

    complete: the response has ended.   reusable: the connection may carry another request.
    failure: one sentence when what came in is not HTTP.   headers_read, first_body_read: which read brought them.
    too_long: why it was given up, as the end of a sentence: more came in, or was compressed in it, than is kept of one.
    """

    __slots__ = (
        "_chunked", "_kept", "_left", "_parser", "_parts", "_size", "_until", "bodies", "complete", "failure",
        "first_body_read", "headers", "headers_read", "on_body", "reusable", "status", "too_long",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.bodies: list[bytes] = []
        self.complete = False
        self.reusable = False
        self.failure: str | None = None
        self.too_long: str | None = None
        self.headers_read: int | None = None
        self.first_body_read: int | None = None
        self._kept: list[bytes] = []
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # called by httptools: the piece of a body
        self._until = _Until.HEAD
        self._chunked = False
        self._left = 0
        self._size = 0
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bool:
        """Take what one read brought; whether the response has ended, or is given up."""
        self._kept.append(data)
        self._size += len(data)
        if self._size > MOST_BYTES:
            return self._given_up()
        if self._chunked:
            return (data[-4:] == b"\r\n\r\n" or len(data) < _SHORTEST_END) and self._parse()
        if self._until is _Until.LENGTH:
            self._left -= len(data)
            return self._left <= 0 and self._parse()
        if self._until is _Until.CLOSE:
            return False
        return self._parse() or self._endless_head()

    @property
    def waiting(self) -> int:
        """How many reads were kept and not yet parsed."""
        return len(self._kept)

    def catch_up(self) -> None:
        """Parse what was kept, so that little is left to do at the end."""
        if self._chunked:  # elsewhere the end is not looked for in what comes next alone
            self._parse()

    def closed(self) -> bool:
        """The server has closed the connection; whether the response was complete by that."""
        self._parse()
        if self._until is _Until.CLOSE and self.failure is None:
            self.complete = True
        return self.complete

    def release(self) -> None:
        """Parse what is left and let go of the parser, whose callbacks would keep both alive."""
        self._parse()
        self._parser = None

    @property
    def started(self) -> bool:
        """Whether anything at all came in."""
        return bool(self._kept or self.bodies)

    @property
    def size(self) -> int:
        """Bytes that are held of it."""
        return self._size

    def wire_response(self) -> WireResponse:
        """The response for a dialect, content encoding removed.

        Raises ValueError, one sentence, for a content encoding that was not asked for and cannot be removed.
        """
        bodies: Sequence[bytes] = self.bodies
        if encoding := self.headers.get("content-encoding"):
            bodies, whole = decoded(encoding, bodies, MOST_BYTES)
            if not whole:
                self.too_long = f"uncompressed it is longer {_ALLOWED}"
                bodies = _beginning(bodies, KEPT_BYTES)
        return WireResponse(self.status, self.headers, bodies)

    def _given_up(self) -> bool:
        """It has become too long."""
        self.too_long = f"it is longer {_ALLOWED}"
        parsed = len(self.bodies)
        reads = _beginning([*self.bodies, *self._kept], KEPT_BYTES)
        self.bodies[:], self._kept[:] = reads[:parsed], reads[parsed:]
        self._size = sum(map(len, reads))
        return True

    def _endless_head(self) -> bool:
        """Whether the head alone has become too long."""
        if self._until is _Until.HEAD and self._size > MOST_OF_A_HEAD:
            self.failure = f"the head of the reply is longer than {MOST_OF_A_HEAD >> 10} KiB"
        return self.failure is not None

    def _parse(self) -> bool:
        """Give the parser everything that was kept, read by read."""
        parser, bodies = self._parser, self.bodies
        if parser is None:
            return self.complete
        for data in self._kept:
            if not self.complete and self.failure is None:
                if data:  # nothing is left of what came too late
                    self._give(parser, data)
            elif data:
                self.reusable = False  # more than one response came in
            parts = self._parts
            if parts and self.first_body_read is None:
                self.first_body_read = len(bodies)
            bodies.append(parts[0] if len(parts) == 1 else b"".join(parts))
            parts.clear()
        self._kept.clear()
        if self._until is _Until.HEAD and self.headers_read is not None:
            self._choose_end()
        return self.complete or self.failure is not None

    def _give(self, parser: httptools.HttpResponseParser, data: bytes) -> None:
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.failure = "the server switched to another protocol"
        except httptools.HttpParserError as error:
            if not self.complete:
                self.failure = f"the server sent something that is not HTTP ({error})"
            self.reusable = False

    def _choose_end(self) -> None:
        length = self.headers.get("content-length", "")
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            self._until = _Until.LAST_CHUNK
            self._chunked = True
        elif length.isdigit():
            self._until = _Until.LENGTH
            self._left = int(length) - sum(map(len, self.bodies))
        else:
            self._until = _Until.CLOSE

    # What httptools calls:

    def on_message_begin(self) -> None:
        """A response begins; one after the end answers no request of ours."""
        if self.complete:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if not self.complete:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head has ended; interim responses (1xx) are not it."""
        assert self._parser is not None
        if not self.complete:
            self.status = self._parser.get_status_code()
            if self.status >= 200:
                self.headers_read = len(self.bodies)

    def on_message_complete(self) -> None:
        """The response, or an interim one, has ended."""
        assert self._parser is not None
        if self.complete:
            return
        if self.status < 200:
            self.headers.clear()
        else:
            self.complete = True
            self._parts = self._parts.copy()  # the parser goes on adding to the old list what no request asked for
            self.reusable = self._parser.should_keep_alive()


def _beginning(reads: Sequence[bytes], most: int) -> list[bytes]:
    """As many reads, without what comes after so many bytes."""
    starts = accumulate(map(len, reads), initial=0)
    return [data[: max(0, most - start)] for data, start in zip(reads, starts, strict=False)]
