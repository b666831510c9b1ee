"""Columns: the records of one trial as numpy arrays, in the order in which the requests fell due.

Times are float64 nanoseconds with NaN for "did not happen" (exact up to 104 days). The chunks of a request are reduced
to a few numbers at once; their lists stay behind each other in memory only where there are few (`chunks`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.analysis.chunks import ChunkLists, PerRequest, aligned
from harness.analysis.gap_counts import CountedGaps
from harness.records import CENSORED, Phase, Status, TokenSource
from harness.store.categories import one_of

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

ALL = "all"
_TIMES = ("due", "sent", "accepting", "first_byte", "first_token", "first_answer", "last_token", "finish", "done")
_NO_EVENTS = ("due", "accepting")
_CUT = ("length", "max_tokens")
_COUNTS = ("requested_output_tokens", "prompt_tokens", "output_tokens", "reasoning_tokens", "cached_tokens")
_REPORTED = ("reported_total_ms", "reported_memory_peak_bytes")
CHUNK_COLUMNS = ("chunk_ns", "chunk_tokens")


@dataclass(frozen=True)
class Counted:
    """What was counted in one pass over too many chunks to keep.

    gaps: distributions of the measured requests, by metric name.   arrived: (edges, output tokens between them) of all
    requests, for the edges that were known before.
    """

    gaps: dict[str, CountedGaps] = field(default_factory=dict)
    arrived: tuple[tuple[Floats, Floats], ...] = ()


@dataclass(frozen=True)
class Columns:
    """The columns that metrics are made of.

    times: `_ns` columns by their stem, shape (n,); `accepting` is a length of time.   counts: token counts, shape (n,),
    NaN unknown.   status, phase, class_name: texts, shape (n,).   cached: the reply came from a result cache.
    repeated: the plan had asked the same before.   given_up: by the plan, whether or not it came to that.
    ended_by_itself: the reply was not cut at its length, and the server counted its tokens.   each: what is known of
    each request's chunks.   lists: all chunks; None where there are too many, or of requests picked out of those.
    counted: then, what was counted of them.   reported: what the server itself says of each request, by column, shape
    (n,), NaN where it is silent.   backend: who answered, texts, shape (n,).
    """

    times: dict[str, Floats]
    counts: dict[str, Floats]
    status: pd.Categorical
    phase: pd.Categorical
    class_name: pd.Categorical
    cached: Flags
    repeated: Flags
    given_up: Flags
    ended_by_itself: Flags
    each: PerRequest
    lists: ChunkLists | None
    counted: Counted | None = None
    reported: dict[str, Floats] = field(default_factory=dict)
    backend: pd.Categorical | None = None

    def __len__(self) -> int:
        return len(self.status)

    @classmethod
    def of(cls, records: pd.DataFrame) -> Columns:
        """The columns of a frame with the stored names, sorted by due time (requests that never fell due come last)."""
        order = due_order(records)
        chunk_ns, sizes = _flat(records["chunk_ns"].iloc[order])
        tokens, token_sizes = _flat(records["chunk_tokens"].iloc[order])
        lists = ChunkLists(sizes, chunk_ns, aligned(tokens, token_sizes, sizes))
        return cls.of_scalars(records, order, lists.each(), lists)

    @classmethod
    def of_scalars(cls, records: pd.DataFrame, order: Ints, each: PerRequest, lists: ChunkLists | None) -> Columns:
        """The columns of a frame without its lists. order: its rows by due time; the rest is in that order already."""
        return cls(
            times={stem: _floats(records[f"{stem}_ns"])[order] for stem in _TIMES},
            counts={name: _floats(records[name])[order] for name in _COUNTS},
            status=_texts(records["status"])[order],
            phase=_texts(records["phase"])[order],
            class_name=_texts(records["class"])[order],
            cached=records["cached"].astype(object).eq(True).to_numpy(dtype=np.bool_)[order],
            repeated=_there(records["repeats"])[order],
            given_up=(_there(records["planned_cancel_ns"]) | one_of(records["status"], [Status.CANCELLED]))[order],
            ended_by_itself=_ended_by_itself(records)[order],
            each=each,
            lists=lists,
            reported={name: _floats(records[name])[order] for name in _REPORTED},
            backend=_texts(records["backend"])[order],
        )

    def where(self, rows: Flags, counted: Counted | None = None) -> Columns:
        """Only the requests flagged. counted: of their chunks, where these are not kept."""
        return Columns(
            times={stem: column[rows] for stem, column in self.times.items()},
            counts={name: column[rows] for name, column in self.counts.items()},
            status=self.status[rows],
            phase=self.phase[rows],
            class_name=self.class_name[rows],
            cached=self.cached[rows],
            repeated=self.repeated[rows],
            given_up=self.given_up[rows],
            ended_by_itself=self.ended_by_itself[rows],
            each=self.each.where(rows),
            lists=self.lists.where(rows) if self.lists is not None else None,
            counted=counted,
            reported={name: column[rows] for name, column in self.reported.items()},
            backend=None if self.backend is None else self.backend[rows],
        )

    def has_status(self, statuses: Sequence[str]) -> Flags:
        """Which requests ended in one of these ways."""
        return one_of(self.status, statuses)

    def in_phase(self, phase: str) -> Flags:
        """Which requests were due in a phase."""
        return one_of(self.phase, [phase])

    @cached_property
    def measured(self) -> Columns:
        """The measured requests: due in the window and offered."""
        return self if self.measured_rows.all() else self.where(self.measured_rows, self.counted)

    @cached_property
    def measured_rows(self) -> Flags:
        """Which these are."""
        rows: Flags = self.in_phase(Phase.MEASURE) & ~self.has_status([Status.NOT_SENT])
        return rows

    @cached_property
    def shown_tokens(self) -> Floats:
        """Output tokens without the reasoning that was counted but kept from us: its time lies before the first token.

        Reasoning that was shown comes before the answer, so that the first answer is later than the first token; or it
        is in the text, so that there are more chunks than tokens without it.
        """
        tokens, reasoning = self.counts["output_tokens"], self.counts["reasoning_tokens"]
        kept = (self.times["first_answer"] <= self.times["first_token"]) & (reasoning > 0) & (reasoning < tokens)
        kept &= self.each.sizes <= tokens - reasoning
        return np.where(kept, tokens - reasoning, tokens)

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
        last = max((float(np.nanmax(column)) for column in self._events() if np.isfinite(column).any()), default=np.nan)
        return np.where(np.isfinite(self.times["done"]), self.times["done"], last)

    def _events(self) -> list[Floats]:
        return [column for stem, column in self.times.items() if stem not in _NO_EVENTS]


def measured(columns: Columns) -> Columns:
    """The measured requests: due in the window and offered."""
    return columns.measured


def due_order(records: pd.DataFrame) -> Ints:
    """The rows of a frame in the order in which they fell due; those that never did come last."""
    order: Ints = np.argsort(_floats(records["due_ns"]), kind="stable")
    return order


def _floats(series: pd.Series[Any]) -> Floats:
    return series.to_numpy(dtype=np.float64, na_value=np.nan)


def _texts(series: pd.Series[Any]) -> pd.Categorical:
    import pandas as pd

    return series.array if isinstance(series.array, pd.Categorical) else pd.Categorical(series)


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


def _ended_by_itself(records: pd.DataFrame) -> Flags:
    reasons, counted_by = records["finish_reason"], records["token_source"]
    return _there(reasons) & ~one_of(reasons, _CUT) & one_of(counted_by, [TokenSource.USAGE])


def _there(column: pd.Series[Any]) -> Flags:
    """Which requests have a value."""
    return column.notna().to_numpy(dtype=np.bool_)
