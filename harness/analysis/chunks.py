"""Chunks: the arrivals within replies, all requests' behind each other, and what is kept of each request's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PerRequest:
    """What is known of each request's chunks, shape (n,).

    sizes: chunks, 0 where none were kept.   known: chunks whose tokens were counted.   counted: tokens of all chunks,
    NaN unless every one was counted.   first: tokens of the first chunk.   longest_ns: the longest gap between two,
    NaN for fewer than two.
    """

    sizes: Ints
    known: Ints
    counted: Floats
    first: Floats
    longest_ns: Floats

    @classmethod
    def empty(cls, n: int) -> PerRequest:
        """Of n requests without chunks."""
        none = [np.full(n, np.nan) for _ in range(3)]
        return cls(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), *none)

    def where(self, rows: Flags) -> PerRequest:
        """Only the requests flagged."""
        return PerRequest(*(getattr(self, column.name)[rows] for column in fields(self)))

    def put(self, places: Ints, part: PerRequest) -> None:
        """Fill in some requests."""
        for column in fields(self):
            getattr(self, column.name)[places] = getattr(part, column.name)


@dataclass(frozen=True)
class ChunkLists:
    """sizes: chunks of each request, shape (n,).   ns: their arrivals, request by request, in nanoseconds, integers
    or floats.   tokens: what each bears; integers, or floats with NaN where it is unknown.
    """

    sizes: Ints
    ns: NDArray[np.float64] | Ints
    tokens: NDArray[np.float64] | NDArray[np.int32]

    def where(self, rows: Flags) -> ChunkLists:
        """Only the requests flagged."""
        if rows.all():
            return self
        of_chunk = np.repeat(rows, self.sizes)
        return ChunkLists(self.sizes[rows], self.ns[of_chunk], self.tokens[of_chunk])

    @cached_property
    def starts(self) -> Ints:
        """Index of each request's first chunk."""
        starts: Ints = (np.cumsum(self.sizes) - self.sizes).astype(np.int64)
        return starts

    @cached_property
    def follows(self) -> Flags:
        """For each chunk but the very first: whether it follows another one of the same request."""
        inside = np.ones(max(0, len(self.ns) - 1), dtype=np.bool_)
        starts = self.starts[self.sizes > 0]
        inside[starts[starts > 0] - 1] = False
        return inside

    @cached_property
    def gap_counts(self) -> Ints:
        """Gaps of each request."""
        return np.maximum(self.sizes - 1, 0)

    @cached_property
    def gaps_ns(self) -> NDArray[np.float64] | Ints:
        """Times between neighbouring chunks of a request, request by request."""
        return np.diff(self.ns)[self.follows]

    @cached_property
    def gap_tokens(self) -> NDArray[np.float64] | NDArray[np.int32]:
        """Tokens of the chunk that ended each gap."""
        return self.tokens[1:][self.follows]

    @cached_property
    def all_alike(self) -> bool:
        """Every chunk bears one token."""
        return bool(len(self.tokens)) and bool((self.tokens == 1).all())

    def each(self) -> PerRequest:
        """What is kept of each request."""
        found = PerRequest.empty(len(self.sizes))
        found.sizes[:] = self.sizes
        some = self.sizes > 0
        if not some.any():
            return found
        starts = self.starts[some]
        found.first[some] = self.tokens[starts]
        if self.all_alike:
            found.known[:] = self.sizes
            found.counted[some] = self.sizes[some]
        else:
            found.known[some] = np.add.reduceat(np.isfinite(self.tokens), starts, dtype=np.int64)
            found.counted[some] = np.add.reduceat(self.tokens, starts, dtype=np.float64)
        several = self.gap_counts > 0
        if several.any():
            ends = np.cumsum(self.gap_counts)
            found.longest_ns[several] = np.maximum.reduceat(self.gaps_ns, (ends - self.gap_counts)[several])
        return found


def aligned(
    tokens: NDArray[np.float64] | NDArray[np.int32], token_sizes: Ints, sizes: Ints
) -> NDArray[np.float64] | NDArray[np.int32]:
    """The token counts of chunks: NaN for requests that have not one count for each."""
    if np.array_equal(token_sizes, sizes):
        return tokens
    whole = token_sizes == sizes
    every = np.full(int(sizes.sum()), np.nan)
    every[np.repeat(whole, sizes)] = tokens[np.repeat(whole, token_sizes)]
    return every
