"""Chunks: the arrivals within replies, concatenated request by request, and what is kept of each request's."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.analysis.stats import Flags, Floats, Ints

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_COLUMNS = ("chunk_ns", "chunk_tokens")
Counts = Floats | NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PerRequest:
    """Facts about each request's chunks, shape (n,)."""

    sizes: Ints  # chunks, 0 where none were kept
    known: Ints  # chunks whose tokens were counted
    counted: Floats  # tokens of all chunks, NaN unless every one was counted
    first: Floats  # tokens of the first chunk
    longest_ns: Floats  # gap between two chunks, NaN for fewer than two

    @classmethod
    def empty(cls, n: int) -> PerRequest:
        none = [np.full(n, np.nan) for _ in range(3)]
        return cls(np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), *none)

    def where(self, rows: Flags) -> PerRequest:
        return PerRequest(*(getattr(self, column.name)[rows] for column in fields(self)))

    def put(self, places: Ints, part: PerRequest) -> None:
        for column in fields(self):
            getattr(self, column.name)[places] = getattr(part, column.name)


@dataclass(frozen=True)
class ChunkLists:
    """All chunks, request by request."""

    sizes: Ints  # chunks of each request, shape (n,)
    ns: Floats | Ints  # arrivals in nanoseconds
    tokens: Counts  # of each chunk; integers, or floats with NaN where unknown

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> ChunkLists:
        """Take the chunks of a batch with CHUNK_COLUMNS, in its order."""
        arrivals, tokens = (batch.column(name) for name in CHUNK_COLUMNS)
        sizes, token_sizes = (
            column.value_lengths().fill_null(0).to_numpy().astype(np.int64) for column in (arrivals, tokens)
        )
        borne = tokens.flatten()
        counts = borne.to_numpy() if not borne.null_count else borne.cast("float64").to_numpy(zero_copy_only=False)
        return cls(sizes, arrivals.flatten().to_numpy(), _aligned(counts, token_sizes, sizes))

    def where(self, rows: Flags) -> ChunkLists:
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
        """Whether each chunk but the very first follows another one of the same request."""
        inside = np.ones(max(0, len(self.ns) - 1), dtype=np.bool_)
        starts = self.starts[self.sizes > 0]
        inside[starts[starts > 0] - 1] = False
        return inside

    @cached_property
    def gap_counts(self) -> Ints:
        """Gaps of each request."""
        return np.maximum(self.sizes - 1, 0)

    @cached_property
    def gaps_ns(self) -> Floats | Ints:
        """Times between neighbouring chunks of a request, request by request."""
        return np.diff(self.ns)[self.follows]

    @cached_property
    def gap_tokens(self) -> Counts:
        """Tokens of the chunk that ended each gap."""
        return self.tokens[1:][self.follows]

    @cached_property
    def all_alike(self) -> bool:
        """Whether there are chunks and every one has one token."""
        return bool(len(self.tokens)) and bool((self.tokens == 1).all())

    def each(self) -> PerRequest:
        """Return the facts about each request's chunks."""
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


def _aligned(tokens: Counts, token_sizes: Ints, sizes: Ints) -> Counts:
    """Return the token counts of chunks: NaN for requests without one count for each chunk."""
    if np.array_equal(token_sizes, sizes):
        return tokens
    whole = token_sizes == sizes
    every = np.full(int(sizes.sum()), np.nan)
    every[np.repeat(whole, sizes)] = tokens[np.repeat(whole, token_sizes)]
    return every
