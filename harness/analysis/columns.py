"""Columns: the records of one trial as numpy arrays, in due order.

Times are float64 nanoseconds with NaN for "did not happen" (exact up to 104 days). The chunks of a request are reduced
to a few numbers at once; their lists stay in memory only if there are few (`chunks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis.chunks import ChunkLists, PerRequest
from harness.analysis.distributions import CountedGaps
from harness.analysis.stats import Flags, Floats, Ints
from harness.records import CENSORED, OUT_OF_MEMORY, Loop, Phase, Status, TokenSource
from harness.store.categories import one_of

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
NS_PER_MS = 1e6
NS_PER_S = 1e9
_TIMES = (
    *("think", "due", "held", "sent", "accepting", "first_byte", "first_token", "first_answer", "last_token"),
    *("finish", "done"),
)
_NO_EVENTS = ("due", "held", "accepting", "think")
_CUT = ("length", "limit", "max_output_tokens", "max_tokens")
_COUNTS = ("requested_output_tokens", "prompt_tokens", "output_tokens", "reasoning_tokens", "cached_tokens")
REPORTED = ("reported_total_ms", "reported_prompt_ms", "reported_generation_ms", "reported_memory_peak_bytes")


@dataclass(frozen=True)
class Counted:
    """Results of one pass over too many chunks to keep."""

    gaps: Mapping[str, CountedGaps]  # distributions of the measured requests, by metric name
    arrived: tuple[tuple[Floats, Floats], ...] = ()  # (edges, output tokens between them) of all requests


@dataclass(frozen=True)
class Columns:
    """The columns that metrics are made of, shape (n,) each; statuses, phases and names are texts."""

    request: Ints  # number in the plan
    times: dict[str, Floats]  # `_ns` columns by their stem; `held`, `accepting` and `think` are lengths of time
    counts: dict[str, Floats]  # token counts, NaN unknown
    status: pd.Categorical
    phase: pd.Categorical
    class_name: pd.Categorical
    closed: Flags  # due when an earlier request ended, not by the plan
    cached: Flags  # the reply came from a result cache
    repeated: Flags  # the schedule had sent the same prompt before
    planned_cancel: Flags  # the schedule cancels the request, whether or not it came to that
    ended_by_itself: Flags  # the reply was not cut at its length, and the server counted its tokens
    cut_by_length: Flags  # the reply ended by `length`
    each: PerRequest
    lists: ChunkLists | None  # None if there are too many, or in a part of such a trial
    reported: dict[str, Floats]  # values that the server reports with each reply, by column, NaN where absent
    backend: pd.Categorical  # server that replied
    out_of_memory: Flags  # the error says so
    retries: Ints  # how often it was sent again as the load asks
    counted: Counted | None = None  # results of the pass over chunks that were too many

    def __len__(self) -> int:
        return len(self.status)

    @classmethod
    def of(cls, records: pd.DataFrame, order: Ints, each: PerRequest, lists: ChunkLists | None) -> Columns:
        """Take the columns of a frame without its lists.

        `order` is that of its rows by due time; `each` and `lists` are in that order already.
        """
        reasons, counted_by = records["finish_reason"], records["token_source"]
        by_itself = _present(reasons) & ~one_of(reasons, _CUT) & one_of(counted_by, [TokenSource.USAGE])
        cancelled = _present(records["planned_cancel_ns"]) | one_of(records["status"], [Status.CANCELLED])
        return cls(
            request=records["request"].to_numpy(dtype=np.int64)[order],
            times={stem: numbers(records, f"{stem}_ns")[order] for stem in _TIMES},
            counts={name: numbers(records, name)[order] for name in _COUNTS},
            status=_texts(records["status"])[order],
            phase=_texts(records["phase"])[order],
            class_name=_texts(records["class"])[order],
            closed=one_of(records["loop"], [Loop.CLOSED])[order],
            cached=is_true(records["cached"])[order],
            repeated=_present(records["repeats"])[order],
            planned_cancel=cancelled[order],
            ended_by_itself=by_itself[order],
            cut_by_length=one_of(reasons, _CUT)[order],
            each=each,
            lists=lists,
            reported={name: numbers(records, name)[order] for name in REPORTED},
            backend=_texts(records["backend"])[order],
            out_of_memory=_out_of_memory(records["error"])[order],
            retries=np.nan_to_num(numbers(records, "retries")).astype(np.int64)[order],
        )

    def where(self, rows: Flags, counted: Counted | None = None) -> Columns:
        """Return the columns of some requests. `counted`: of their chunks, if these are not kept."""
        texts = ("status", "phase", "class_name", "backend")
        flags = ("closed", "cached", "repeated", "planned_cancel", "ended_by_itself", "cut_by_length")
        return replace(
            self,
            request=self.request[rows],
            out_of_memory=self.out_of_memory[rows],
            retries=self.retries[rows],
            times={stem: column[rows] for stem, column in self.times.items()},
            counts={name: column[rows] for name, column in self.counts.items()},
            each=self.each.where(rows),
            lists=self.lists.where(rows) if self.lists is not None else None,
            counted=counted,
            reported={name: column[rows] for name, column in self.reported.items()},
            **{name: getattr(self, name)[rows] for name in (*texts, *flags)},
        )

    def has_status(self, statuses: Sequence[str]) -> Flags:
        return one_of(self.status, statuses)

    def in_phase(self, phase: str) -> Flags:
        return one_of(self.phase, [phase])

    @cached_property
    def measured(self) -> Columns:
        """The measured requests: due in the window and sent."""
        return self if self.measured_rows.all() else self.where(self.measured_rows, self.counted)

    @cached_property
    def measured_rows(self) -> Flags:
        rows: Flags = self.in_phase(Phase.MEASURE) & self.sent
        return rows

    @cached_property
    def sent(self) -> Flags:
        return ~self.has_status([Status.NOT_SENT])

    @cached_property
    def start(self) -> Floats:
        """When the latency of each request begins: due by the plan, or sent where it followed a reply.

        A reply is followed when the load generator gets round to it: that time is `client_turnaround_ms`, and no part
        of a latency. The wait for a place under a cap is a part of it. A request that was never sent begins at due; one
        that timed out before still counts.
        """
        due, sent = self.times["due"], self.times["sent"]
        return np.where(self.closed & np.isfinite(sent), sent - np.nan_to_num(self.times["held"]), due)

    @cached_property
    def shown_tokens(self) -> Floats:
        """Output tokens without hidden reasoning, whose time lies before the first token.

        Shown reasoning comes before the answer, so that the first answer is later than the first token; or it is in the
        text, so that there are more chunks than tokens without it.
        """
        tokens, reasoning = self.counts["output_tokens"], self.counts["reasoning_tokens"]
        kept = (self.times["first_answer"] <= self.times["first_token"]) & (reasoning > 0) & (reasoning < tokens)
        kept &= self.each.sizes <= tokens - reasoning
        return np.where(kept, tokens - reasoning, tokens)

    @cached_property
    def ok(self) -> Flags:
        return self.has_status([Status.OK])

    @cached_property
    def censored(self) -> Flags:
        """Which requests have only a lower bound of their duration."""
        return self.has_status(CENSORED)

    @cached_property
    def ended(self) -> Floats:
        """When each request ended; for those that never did, the last event of the trial."""
        events = [column for stem, column in self.times.items() if stem not in _NO_EVENTS and np.isfinite(column).any()]
        last = max((float(np.nanmax(column)) for column in events), default=np.nan)
        return np.where(np.isfinite(self.times["done"]), self.times["done"], last)


def due_order(records: pd.DataFrame) -> Ints:
    """Return the order of a frame's rows by due time; those that never fell due come last."""
    order: Ints = np.argsort(numbers(records, "due_ns"), kind="stable")
    return order


def numbers(frame: pd.DataFrame, name: str) -> Floats:
    """Return a column, NaN where it has no value."""
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)


def is_true(column: pd.Series[Any]) -> Flags:
    """Return where a column of flags is true, neither false nor without value."""
    return column.astype(object).eq(True).to_numpy(dtype=np.bool_)


def _texts(series: pd.Series[Any]) -> pd.Categorical:
    import pandas as pd

    return series.array if isinstance(series.array, pd.Categorical) else pd.Categorical(series)


def _out_of_memory(errors: pd.Series[Any]) -> Flags:
    texts = _texts(errors)
    known = [OUT_OF_MEMORY.search(str(text)) is not None for text in texts.categories]
    found: Flags = np.array([*known, False], dtype=np.bool_)[texts.codes]  # no text has the code -1
    return found


def _present(column: pd.Series[Any]) -> Flags:
    return column.notna().to_numpy(dtype=np.bool_)
