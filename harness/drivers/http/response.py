"""Sans-I/O reader of one HTTP response: bytes in, "is it complete?" out.

While a reply streams, only its end is looked for. After the head, reads are stored unparsed and checked for the two
line ends that close every last chunk. Then all stored reads are parsed. The parser alone decides: payload bytes that
look like an end change nothing.

An unrequested content encoding is undone read by read, so that the times of the reads stay true.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from itertools import accumulate

import httptools

from engines.dialects.base import WireResponse

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_RAW = -zlib.MAX_WBITS
_AT_ONCE = 4096  # size of one step, because data after a compressed member is copied


def decoded(encoding: str, reads: Sequence[bytes], most: int) -> tuple[Sequence[bytes], bool]:
    """Remove the content encoding; return the bytes that each read completed, and whether they are the whole body.

    The result is limited to about `most` bytes, however small the input. Raises ValueError for an unknown encoding or a
    damaged body.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return reads, True
    if kind not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"the server encoded its answer as {encoding}, which was not requested and cannot be read")
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
    """Yield each read's share, until more than `most` bytes came out; compressed members may follow each other."""
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
MOST_BYTES = 64 << 20  # longest reply: more than 200,000 tokens in events of their own
KEPT_BYTES = 4 << 20  # stored part of a longer reply: it has failed, so little of it is needed
MOST_OF_A_HEAD = 256 << 10
_ALLOWED = f"than {MOST_BYTES >> 20} MiB, which is the most; the first {KEPT_BYTES >> 20} MiB were kept"
_HEAD, _CHUNKED, _LENGTH, _CLOSE = range(4)  # end of a body: unknown yet, its last chunk, its length, the connection


class ResponseReader:
    """Reader of one response."""

    __slots__ = (
        "_chunked", "_kept", "_left", "_parser", "_parts", "_until", "bodies", "complete", "failure",
        "first_body_read", "headers", "headers_read", "on_body", "reusable", "size", "status", "too_long",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.bodies: list[bytes] = []
        self.size = 0  # stored bytes
        self.complete = False
        self.reusable = False  # the connection may carry another request
        self.failure: str | None = None  # one sentence if the data are not HTTP
        self.too_long: str | None = None  # end of a sentence, if the response exceeds the largest size
        self.headers_read: int | None = None  # index of the read that completed the headers
        self.first_body_read: int | None = None
        self._kept: list[bytes] = []
        self._parts: list[bytes] = []
        self.on_body = self._parts.append  # called by httptools with each piece of the body
        self._until = _HEAD
        self._chunked = False
        self._left = 0
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> bool:
        """Add one read; return True if the response has ended or is abandoned."""
        self._kept.append(data)
        self.size += len(data)
        if self.size > MOST_BYTES:
            return self._abandon()
        if self._chunked:
            return (data[-4:] == b"\r\n\r\n" or len(data) < _SHORTEST_END) and self._parse()
        if self._until == _LENGTH:
            self._left -= len(data)
            return self._left <= 0 and self._parse()
        if self._until == _CLOSE:
            return False
        if not self._parse() and self._until == _HEAD and self.size > MOST_OF_A_HEAD:
            self.failure = f"the head of the reply is longer than {MOST_OF_A_HEAD >> 10} KiB"
        return self.complete or self.failure is not None

    @property
    def waiting(self) -> int:
        """Number of reads not parsed yet."""
        return len(self._kept)

    def catch_up(self) -> None:
        """Parse the stored reads, so that little is left to do at the end."""
        if self._chunked:  # other responses find their end by their length or the close
            self._parse()

    def closed(self) -> bool:
        """Handle the end of the connection; return True if the response is complete."""
        self._parse()
        if self._until == _CLOSE and self.failure is None:
            self.complete = True
        return self.complete

    def release(self) -> None:
        """Parse the rest and drop the parser, whose callbacks would keep both alive."""
        self._parse()
        self._parser = None

    @property
    def started(self) -> bool:
        return bool(self._kept or self.bodies)

    def wire_response(self) -> WireResponse:
        """Return the response for a dialect. Raises ValueError, one sentence, if its encoding cannot be removed."""
        bodies: Sequence[bytes] = self.bodies
        if encoding := self.headers.get("content-encoding"):
            bodies, whole = decoded(encoding, bodies, MOST_BYTES)
            if not whole:
                self.too_long = f"uncompressed it is longer {_ALLOWED}"
                bodies = _beginning(bodies, KEPT_BYTES)
        return WireResponse(self.status, self.headers, bodies)

    def _abandon(self) -> bool:
        self.too_long = f"it is longer {_ALLOWED}"
        parsed = len(self.bodies)
        reads = _beginning([*self.bodies, *self._kept], KEPT_BYTES)
        self.bodies[:], self._kept[:] = reads[:parsed], reads[parsed:]
        self.size = sum(map(len, reads))
        return True

    def _parse(self) -> bool:
        """Parse all stored reads, one by one; return True if the response has ended or failed."""
        parser, bodies = self._parser, self.bodies
        if parser is None:
            return self.complete
        for data in self._kept:
            if not self.complete and self.failure is None:
                if data:  # a too long response has emptied its last reads
                    self._give(parser, data)
            elif data:
                self.reusable = False  # data of a second response
            parts = self._parts
            if parts and self.first_body_read is None:
                self.first_body_read = len(bodies)
            bodies.append(parts[0] if len(parts) == 1 else b"".join(parts))
            parts.clear()
        self._kept.clear()
        if self._until == _HEAD and self.headers_read is not None:
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
            self._until = _CHUNKED
            self._chunked = True
        elif length.isdigit():
            self._until = _LENGTH
            self._left = int(length) - sum(map(len, self.bodies))
        else:
            self._until = _CLOSE

    # Called by httptools:

    def on_message_begin(self) -> None:
        if self.complete:  # an unrequested second response
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.complete:
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        if not self.complete:
            self.status = self._parser.get_status_code()
            if self.status >= 200:  # not interim
                self.headers_read = len(self.bodies)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self.complete:
            return
        if self.status < 200:  # interim
            self.headers.clear()
        else:
            self.complete = True
            self._parts = self._parts.copy()  # the parser adds unrequested data to the old list
            self.reusable = self._parser.should_keep_alive()


def _beginning(reads: Sequence[bytes], most: int) -> list[bytes]:
    """Return the reads without what follows the first `most` bytes."""
    starts = accumulate(map(len, reads), initial=0)
    return [data[: max(0, most - start)] for data, start in zip(reads, starts, strict=False)]
