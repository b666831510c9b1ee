"""Undoing a content encoding that was not asked for, read by read, so that the times of the reads stay true."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

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
