"""Fabricated trials for tests of what comes after the store: records with chosen times, no clock, no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from harness.records import Record, Sample, record_schema, sample_schema, to_columns
from harness.store.manifest import CellEntry, Part, TrialEntry

MS = 1_000_000
S = 1_000_000_000


P = TypeVar("P", bound=Part)


@dataclass
class FabricatedTrial:
    """What `store.TrialData` offers, out of memory."""

    cell: CellEntry
    trial: TrialEntry
    made: Sequence[Record] = ()
    readings: Sequence[Sample] = ()
    cache: dict[str, pd.DataFrame] = field(default_factory=dict)

    def records(self) -> pd.DataFrame:
        """As they would come from the stored file."""
        if "records" not in self.cache:
            self.cache["records"] = frame(self.made)
        return self.cache["records"]

    def batches(self, columns: Sequence[str], parts: int | None = None) -> Iterator[pa.RecordBatch]:
        """Small ones, as they would come from the stored file."""
        table = pa.table(to_columns(self.made), schema=record_schema()).select(list(columns))
        yield from table.to_batches(max_chunksize=100)[:: 1 if parts is None else max(1, len(table) // 100 // parts)]

    def samples(self) -> pd.DataFrame:
        """As they would come from the stored file."""
        names = sample_schema().names
        columns = {name: [getattr(reading, name) for reading in self.readings] for name in names}
        stored: pd.DataFrame = pa.table(columns, schema=sample_schema()).to_pandas()
        return stored


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Records as a stored frame."""
    stored: pd.DataFrame = pa.table(to_columns(records), schema=record_schema()).to_pandas()
    return stored


def streamed(
    request: int,
    due_ms: float,
    *,
    ttft_ms: float = 100.0,
    tokens: int = 10,
    gap_ms: float = 10.0,
    per_chunk: int = 1,
    lag_ms: float = 0.0,
    **changes: Any,
) -> Record:
    """A request that streamed its reply: first chunk ttft_ms after it was due, then one every gap_ms."""
    chunks = -(-tokens // per_chunk)
    first = (due_ms + ttft_ms) * MS
    times = [int(first + i * gap_ms * MS) for i in range(chunks)]
    borne = [min(per_chunk, tokens - i * per_chunk) for i in range(chunks)]
    sent = int((due_ms + lag_ms) * MS)
    record = Record(
        request=request,
        due_ns=int(due_ms * MS),
        dispatched_ns=sent,
        sent_ns=sent,
        first_byte_ns=times[0],
        first_token_ns=times[0],
        first_answer_ns=times[0],
        last_token_ns=times[-1],
        done_ns=times[-1],
        status="ok",
        http_status=200,
        finish_reason="length",
        requested_prompt_tokens=20,
        requested_output_tokens=tokens,
        prompt_tokens=20,
        output_tokens=tokens,
        token_source="usage",
        chunk_ns=times,
        chunk_tokens=borne,
        chunk_kind=["content"] * chunks,
        chunk_read=list(range(chunks)),
        chunk_lag_ns=[0] * chunks,
        chunk_merged=[False] * chunks,
        clock="kernel",
    )
    return changed(record, **changes)


def failed(request: int, due_ms: float, status: str, after_ms: float, **changes: Any) -> Record:
    """A request that got no token and ended after_ms after it was due."""
    record = Record(
        request=request,
        due_ns=int(due_ms * MS),
        sent_ns=int(due_ms * MS),
        done_ns=int((due_ms + after_ms) * MS),
        status=status,
        requested_output_tokens=10,
        clock="kernel",
    )
    return changed(record, **changes)


def changed(record: Record, **changes: Any) -> Record:
    """The record with some fields set."""
    for name, value in changes.items():
        setattr(record, name, value)
    return record


def cell_entry(**changes: Any) -> CellEntry:
    """A cell of a manifest."""
    entry = {
        "id": "000-tiny-simulated-f16",
        "index": 0,
        "model": "tiny",
        "engine": "simulated",
        "level": "f16",
        "variant": None,
        "repetition": 1,
        "status": "complete",
        "reason": None,
        "engine_info": {},
        "start": {"load_s": 1.25, "load_warm_s": None, "first_request_ms": 180.0, "rss_after_load_bytes": None},
    }
    return CellEntry.model_validate(entry | changes)


def trial_entry(*, end_s: float | None = 60.0, start_s: float = 0.0, **changes: Any) -> TrialEntry:
    """A trial of a manifest."""
    entry = {
        "id": "000-sustained",
        "index": 0,
        "load": "sustained",
        "kind": "sustained",
        "loop": "open",
        "identity": "0" * 64,
        "status": "complete",
        "reason": None,
        "path": "cells/000/000-sustained",
        "plan_hash": "a" * 64,
        "seed": 7,
        "t0_ns": 1_000 * S,
        "t0_utc": "2026-01-02T03:04:05Z",
        "window": {"start_ns": int(start_s * S), "end_ns": None if end_s is None else int(end_s * S)},
        "planned": {"total": None, "warmup": None, "measure": None},
        "timeout_s": 30.0,
        "slo": {"ttft_ms": None, "tpot_ms": None, "e2e_ms": None, "stall_ms": None},
        "limits": [],
        "client": {"heartbeat_p99_ms": 0.4, "cpu_share": 0.1, "merged_read_share": 0.0, "connect_errors": 0},
    }
    return TrialEntry.model_validate(entry | changes)


NO_PAGES: Any = SimpleNamespace(hear=lambda _: None, forget=lambda: None, begin_tallies=lambda _: None)
"""In place of the pages beside a cell that has none."""


def again(part: P, **changes: Any) -> P:
    """A part of a manifest once more, with some keys changed."""
    return type(part).model_validate(part.stored() | changes)


def trial_of(records: Sequence[Record], readings: Sequence[Sample] = (), **changes: Any) -> FabricatedTrial:
    """A trial with these records; changes go to its manifest entry."""
    return FabricatedTrial(cell_entry(), trial_entry(**changes), records, readings)


def noisy(seed: int, n: int = 600, *, every_ms: float = 100.0, slower: float = 1.0) -> list[Record]:
    """Requests at a constant rate with log-normal latencies."""
    rng = np.random.default_rng(seed)
    ttft = 80.0 * slower * rng.lognormal(0, 0.25, n)
    gaps = 12.0 * slower * rng.lognormal(0, 0.05, n)
    return [
        streamed(i, i * every_ms, ttft_ms=float(ttft[i]), gap_ms=float(gaps[i]), tokens=40, lag_ms=0.05)
        for i in range(n)
    ]


def value(summary: pd.DataFrame, metric: str, statistic: str = "value", **where: str) -> pd.Series[Any]:
    """One row of a summary."""
    chosen = {"class": "all", "repetition": "pooled", "metric": metric, "statistic": statistic} | where
    rows = summary
    for column, wanted in chosen.items():
        rows = rows[rows[column] == wanted]
    assert len(rows) == 1, f"{len(rows)} rows for {chosen}"
    return rows.iloc[0]
