"""Generated images: pure functions of (seed, salt, index), cheap enough to be made while the load runs.

An image is PNG (RFC 2083): RGB, 8 bits a channel, blocks of 4 pixels in random colours. At 512x512 it has about as many
bytes as a photograph in JPEG. Its first row of pixels is its own, so that no cache of images finds one that it knows.
The rest are bands of 16 rows out of a few that are compressed once: an image of 512x512 costs the time of a checksum.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from base64 import b64encode
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.scenario.images import Images
from harness.seeding import generator

_BAND_ROWS, _BLOCK, _BANDS = 16, 4, 16
_STREAM = 5  # of the seed's random numbers
_ADLER_BASE = 65521
_SIGNATURE, _ZLIB_HEAD, _LAST_BLOCK = b"\x89PNG\r\n\x1a\n", b"\x78\x01", b"\x03\x00"
_RGB_OF_8_BITS = (8, 2, 0, 0, 0)


class _Part(NamedTuple):
    """Some rows: their deflate blocks (RFC 1951), and checksum (Adler-32) and length before compression."""

    blocks: bytes
    checksum: int
    length: int


class GeneratedImages:
    """Images of a load.

    Attributes:
        fingerprint: Identity of the images. The salt is not part of it.
    """

    def __init__(self, images: Images, seed: int, salt: int = 0) -> None:
        self._count, (self._width, height) = images.count, images.pixels
        self._name = f"{seed} {salt}"
        self.fingerprint = f"1 {images.count} {images.size}"
        whole, rest = divmod(height - 1, _BAND_ROWS)
        random = generator(seed, _STREAM)
        self._bands = [_band(random, self._width, _BAND_ROWS) for _ in range(_BANDS if whole else 0)]
        self._places, self._rest = whole, [_band(random, self._width, rest)] if rest else []
        header = _chunk(b"IHDR", struct.pack(">II5B", self._width, height, *_RGB_OF_8_BITS))
        self._head, self._tail = _SIGNATURE + header, _chunk(b"IEND", b"")

    def of(self, index: int) -> tuple[str, ...]:
        """Return the images of prompt number `index` in base64."""
        return tuple(b64encode(self._image(f"{self._name} {index} {n}")).decode("ascii") for n in range(self._count))

    def _image(self, name: str) -> bytes:
        own = 3 * self._width
        drawn = hashlib.shake_128(name.encode()).digest(own + self._places)
        bands = [self._bands[byte % _BANDS] for byte in drawn[own:]]
        parts = [_stored(b"\0" + drawn[:own]), *bands, *self._rest]
        pixels = b"".join(part.blocks for part in parts)
        data = b"%b%b%b%b" % (_ZLIB_HEAD, pixels, _LAST_BLOCK, struct.pack(">I", _checksum(parts)))
        return b"%b%b%b" % (self._head, _chunk(b"IDAT", data), self._tail)


def _band(random: np.random.Generator, width: int, rows: int) -> _Part:
    """Return rows of random blocks, each row after the byte that says that it is not filtered."""
    blocks = random.integers(256, size=(-(-rows // _BLOCK), -(-width // _BLOCK), 3), dtype=np.uint8)
    pixels = blocks.repeat(_BLOCK, axis=0)[:rows].repeat(_BLOCK, axis=1)[:, :width].reshape(rows, 3 * width)
    raw = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    deflate = zlib.compressobj(wbits=-15)
    return _Part(deflate.compress(raw) + deflate.flush(zlib.Z_FULL_FLUSH), zlib.adler32(raw), len(raw))


def _stored(raw: bytes) -> _Part:
    """Return rows as one block without compression; at most 65,535 bytes."""
    return _Part(struct.pack("<BHH", 0, len(raw), len(raw) ^ 0xFFFF) + raw, zlib.adler32(raw), len(raw))


def _checksum(parts: Sequence[_Part]) -> int:
    """Return the Adler-32 of all parts in a row (RFC 1950: sums of bytes, and of those sums, modulo 65,521)."""
    low, high = 1, 0
    for part in parts:
        high = (high + (part.checksum >> 16) + part.length * (low - 1)) % _ADLER_BASE
        low = (low + (part.checksum & 0xFFFF) - 1) % _ADLER_BASE
    return high << 16 | low


def _chunk(kind: bytes, data: bytes) -> bytes:
    return b"%b%b%b%b" % (
        struct.pack(">I", len(data)),
        kind,
        data,
        struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))),
    )
