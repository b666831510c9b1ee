"""A JSON object a line (application/x-ndjson): which read brought each line's last byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np

from engines.base import Chunk, ChunkKind
from engines.dialects.base import Pieces


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
