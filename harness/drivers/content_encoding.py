"""Undoing a content encoding that was not asked for, read by read, so that the times of the reads stay true."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_RAW = -zlib.MAX_WBITS


def decoded(encoding: str, reads: Sequence[bytes]) -> Sequence[bytes]:
    """The body without its content encoding, cut as it came in: what a read completed is in that read.

    Raises ValueError, one sentence, for an encoding that is not known, and for a body that is not so encoded.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return reads
    if kind not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"the server encoded its answer as {encoding}, which was not asked for and cannot be read")
    for bits in (_GZIP_OR_ZLIB, _RAW) if kind == "deflate" else (_GZIP_OR_ZLIB,):
        try:
            return list(_inflated(reads, bits))
        except zlib.error as error:
            failure = error
    raise ValueError(f"the server compressed its answer in a way that cannot be read ({failure})") from failure


def _inflated(reads: Sequence[bytes], bits: int) -> Iterator[bytes]:
    """Each read's share; one compressed member may follow another."""
    inflater = zlib.decompressobj(wbits=bits)
    for data in reads:
        parts = []
        while data:
            parts.append(inflater.decompress(data))
            data = inflater.unused_data
            if inflater.eof:
                inflater = zlib.decompressobj(wbits=bits)
        yield b"".join(parts)
