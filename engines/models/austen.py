"""The text behind `tiny`: Jane Austen's six novels (1811-1818, public domain), in Debian's r-cran-janeaustenr.

Only `train_tiny` needs it. The package keeps each novel as an R character vector of lines; no R is needed to read it.
"""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path

HELD_OUT_BYTES_PER_NOVEL = 10_000
_R_HEADER_BYTES = 14
_R_STRING_VECTOR = 16
_CHAPTER = re.compile(r"^(chapter|volume|vol\.)\b.*$", re.IGNORECASE)


def novels(path: Path) -> list[str]:
    """The texts in R's lazy-load file `Rdata.rdb`, ASCII, one line per paragraph and an empty line between two."""
    return [_paragraphs(lines) for lines in _string_vectors(path.read_bytes())]


def split(novel: str) -> tuple[list[str], str]:
    """(pieces to train on, held-out text): the middle 10 kB of paragraphs is held out, the rest splits at chapters."""
    middle = novel.index("\n\n", len(novel) // 2) + 2
    end = novel.index("\n\n", middle + HELD_OUT_BYTES_PER_NOVEL - 1_000)
    held_out = novel[middle:end]
    return _chapters(novel[:middle]) + _chapters(novel[end + 2 :]), held_out


def _chapters(text: str) -> list[str]:
    pieces: list[list[str]] = [[]]
    for paragraph in text.split("\n\n"):
        if _CHAPTER.match(paragraph):
            pieces.append([])
        pieces[-1].append(paragraph)
    return ["\n\n".join(piece).strip() for piece in pieces if len(piece) > 2]


def _paragraphs(lines: list[str]) -> str:
    text = "\n".join(line.strip() for line in lines)
    text = text.translate(str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"", "_"))
    text = unicodedata.normalize("NFKD", text.replace("\u2014", "--")).encode("ascii", "ignore").decode()
    found = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n\n".join(part for part in found if part)


def _string_vectors(raw: bytes) -> Iterator[list[str]]:
    """Every object of an .rdb file: a 4-byte length, then a zlib stream of R's XDR serialization, version 3."""
    start = 0
    while start < len(raw):
        stream = zlib.decompressobj()
        yield _strings(stream.decompress(raw[start + 4 :]))
        start = len(raw) - len(stream.unused_data)


def _strings(data: bytes) -> list[str]:
    (name_length,) = struct.unpack_from(">i", data, _R_HEADER_BYTES)
    position = _R_HEADER_BYTES + 4 + name_length
    kind, count = struct.unpack_from(">ii", data, position)
    if kind & 0xFF != _R_STRING_VECTOR:
        raise ValueError(f"an R object of type {kind & 0xFF} where a character vector was expected")
    position += 8
    strings = []
    for _ in range(count):
        _, length = struct.unpack_from(">ii", data, position)
        strings.append(data[position + 8 : position + 8 + max(length, 0)].decode("utf-8", "replace"))
        position += 8 + max(length, 0)
    return strings
