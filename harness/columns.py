"""Columns: the records of one trial as numpy arrays, in the order in which the requests fell due.

Times are float64 nanoseconds with NaN for "did not happen" (exact up to 104 days). The chunk lists of all requests
lie behind each other, with offsets, so that nothing loops over requests in Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.records import Phase, Status

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

CENSORED = (Status.TIMEOUT, Status.UNFINISHED)
FAILED = (
    Status.HTTP_ERROR,
    Status.REJECTED,
    Status.STREAM_ERROR,
    Status.TRUNCATED,
    Status.EMPTY,
    Status.CONNECTION_ERROR,
    *CENSORED,
)
_TIMES = ("due", "sent", "first_byte", "first_token", "first_answer", "last_token", "done")
_COUNTS = ("requested_output_tokens", "prompt_tokens", "output_tokens", "cached_tokens")


@dataclass(frozen=True)
class Columns:
    """The columns that metrics are made of.

    times: `_ns` columns by their stem, shape (n,).   counts: token counts, shape (n,), NaN unknown. status, phase,
    class_name: texts, shape (n,).   cached: the reply came from a result cache. chunk_sizes: chunks of each request,
    0 where none were kept.   chunk_ns, chunk_tokens: all chunks, request by request.
    """

    times: dict[str, Floats]
    counts: dict[str, Floats]
    status: NDArray[np.object_]
    phase: NDArray[np.object_]
    class_name: NDArray[np.object_]
    cached: Flags
    chunk_sizes: Ints
    chunk_ns: Floats
    chunk_tokens: Floats

    def __len__(self) -> int:
        return len(self.status)

    @classmethod
    def of(cls, records: pd.DataFrame) -> Columns:
        """The columns of a frame with the stored names, sorted by due time (requests that never fell due come last)."""
        if len(records):
            records = records.sort_values("due_ns", kind="stable", na_position="last")
        chunk_ns, sizes = _flat(records["chunk_ns"])
        tokens, token_sizes = _flat(records["chunk_tokens"])
        known = np.array_equal(sizes, token_sizes)
        return cls(
            times={stem: _floats(records[f"{stem}_ns"]) for stem in _TIMES},
            counts={name: _floats(records[name]) for name in _COUNTS},
            status=_texts(records["status"]),
            phase=_texts(records["phase"]),
            class_name=_texts(records["class"]),
            cached=records["cached"].astype(object).eq(True).to_numpy(dtype=np.bool_),
            chunk_sizes=sizes,
            chunk_ns=chunk_ns,
            chunk_tokens=tokens if known else np.full(len(chunk_ns), np.nan),
        )

    def where(self, rows: Flags) -> Columns:
        """Only the requests flagged."""
        of_chunk = np.repeat(rows, self.chunk_sizes)
        return Columns(
            times={stem: column[rows] for stem, column in self.times.items()},
            counts={name: column[rows] for name, column in self.counts.items()},
            status=self.status[rows],
            phase=self.phase[rows],
            class_name=self.class_name[rows],
            cached=self.cached[rows],
            chunk_sizes=self.chunk_sizes[rows],
            chunk_ns=self.chunk_ns[of_chunk],
            chunk_tokens=self.chunk_tokens[of_chunk],
        )

    def has_status(self, statuses: Sequence[str]) -> Flags:
        """Which requests ended in one of these ways."""
        found = np.zeros(len(self), dtype=np.bool_)
        for status in statuses:
            found |= self.status == status
        return found

    @cached_property
    def ok(self) -> Flags:
        """Which requests succeeded."""
        return self.has_status([Status.OK])

    @cached_property
    def censored(self) -> Flags:
        """Of which requests only a least duration is known."""
        return self.has_status(CENSORED)

    @cached_property
    def ended(self) -> Floats:
        """When each request ended; for those that never did, the last thing that happened in the trial."""
        events = np.concatenate([column for stem, column in self.times.items() if stem != "due"])
        events = events[np.isfinite(events)]
        last = float(events.max()) if len(events) else np.nan
        return np.where(np.isfinite(self.times["done"]), self.times["done"], last)

    @cached_property
    def starts(self) -> Ints:
        """Index of each request's first chunk."""
        starts: Ints = np.concatenate(([0], np.cumsum(self.chunk_sizes)))[:-1].astype(np.int64)
        return starts

    @cached_property
    def gap_is_inside(self) -> Flags:
        """For each chunk: whether it follows another one of the same request."""
        inside = np.ones(len(self.chunk_ns), dtype=np.bool_)
        inside[self.starts[self.chunk_sizes > 0]] = False
        return inside

    @cached_property
    def gaps(self) -> Floats:
        """Time since the chunk before, in nanoseconds, NaN for the first chunk of a request."""
        gaps = np.diff(self.chunk_ns, prepend=np.nan)
        gaps[~self.gap_is_inside] = np.nan
        return gaps

    def per_request(self, values: Floats, reduce: np.ufunc, empty: float) -> Floats:
        """A reduction of a chunk column over each request's chunks; `empty` where there are none."""
        result = np.full(len(self), empty)
        filled = self.chunk_sizes > 0
        if filled.any():
            result[filled] = reduce.reduceat(values, self.starts[filled])
        return result


def measured(columns: Columns) -> Columns:
    """The measured requests: due in the window and offered."""
    return columns.where((columns.phase == Phase.MEASURE) & (columns.status != Status.NOT_SENT))


def _floats(series: pd.Series[Any]) -> Floats:
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _texts(series: pd.Series[Any]) -> NDArray[np.object_]:
    return series.astype(object).to_numpy(dtype=np.object_)


def _flat(series: pd.Series[Any]) -> tuple[Floats, Ints]:
    """All list elements of a column behind each other, and how many each row has."""
    rows = series.tolist()
    present = [row for row in rows if row is not None and not isinstance(row, float)]
    sizes: Ints = np.fromiter((len(row) for row in present), dtype=np.int64, count=len(present))
    if len(present) < len(rows):
        kept = np.array([row is not None and not isinstance(row, float) for row in rows], dtype=np.bool_)
        every = np.zeros(len(rows), dtype=np.int64)
        every[kept] = sizes
        sizes = every
    return (np.concatenate(present).astype(np.float64) if present else np.empty(0)), sizes
