"""Fabricates a stored run of any number of requests, as fast as the disk takes it.

`python -m benchmarks.fabricate FOLDER --requests 1000000 --chunks 128`
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness.records import record_schema
from harness.store.manifest import Manifest
from harness.store.run import RunWriter
from harness.store.streams import parquet_writer

ROWS = 8192
RATE = 1000
NS_PER_S = 1_000_000_000
CELL_FOLDER = "cells/000-stub"


def fabricate(
    folder: Path, requests: int, chunks: int = 128, classes: Sequence[str] = ("default",), seed: int = 1
) -> Path:
    """A run with one trial: an open loop of RATE requests/s, gaps of about 20 ms, replies of up to `chunks` tokens.

    Requests are stored in the order in which they ended, as real ones are.
    """
    trial_folder = f"{CELL_FOLDER}/000-sustained"
    writer = RunWriter(folder, _manifest(requests, trial_folder))
    path = writer.folder(trial_folder) / "records.parquet"
    rng = np.random.default_rng(seed)
    with parquet_writer(path, record_schema()) as parquet:
        for first in range(0, requests, ROWS):
            parquet.write_batch(_batch(rng, first, min(ROWS, requests - first), chunks, classes))
    return folder


def _batch(rng: np.random.Generator, first: int, rows: int, chunks: int, classes: Sequence[str]) -> pa.RecordBatch:
    due_ns = (first + np.arange(rows)) * NS_PER_S // RATE
    sizes = rng.integers(max(2, chunks - 8), chunks + 1, rows) if chunks > 2 else np.full(rows, chunks)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    gaps = rng.normal(20e6, 4e5, int(offsets[-1])).astype(np.int64)
    sent_ns = due_ns + rng.integers(20_000, 90_000, rows)
    first_ns = sent_ns + rng.lognormal(np.log(50e6), 0.2, rows).astype(np.int64)
    gaps[offsets[:-1]] = 0
    elapsed = np.cumsum(gaps)
    chunk_ns = elapsed + np.repeat(first_ns - elapsed[offsets[:-1]], sizes)
    last_ns = chunk_ns[offsets[1:] - 1]
    order = np.argsort(last_ns, kind="stable")
    ids = (first + np.arange(rows)).astype(np.int64)
    failed = ids % 2000 == 999
    columns: dict[str, Any] = {
        "request": ids,
        "class": pa.array([classes[i % len(classes)] for i in range(rows)]),
        "turn": np.zeros(rows, np.int32),
        "phase": _text("measure", rows),
        "loop": _text("open", rows),
        "due_ns": due_ns,
        **dict.fromkeys(("dispatched_ns", "connected_ns", "sent_ns"), sent_ns),
        **dict.fromkeys(("headers_ns", "first_byte_ns", "first_token_ns", "first_answer_ns"), first_ns),
        **dict.fromkeys(("last_token_ns", "done_ns"), last_ns),
        "status": pa.array(np.where(failed, "stream_error", "ok")),
        "http_status": np.full(rows, 200, np.int32),
        "error": pa.array([f"the stream broke off after {i} bytes" if bad else None for i, bad in enumerate(failed)]),
        "finish_reason": _text("length", rows),
        "requested_prompt_tokens": np.full(rows, 100),
        "requested_output_tokens": sizes,
        "prompt_tokens": np.full(rows, 100),
        "output_tokens": sizes,
        "token_source": _text("usage", rows),
        "connection_reused": pa.array(np.ones(rows, np.bool_)),
        "clock": _text("kernel", rows),
        "worker": np.zeros(rows, np.int32),
        **_lists(offsets, chunk_ns, sizes),
    }
    schema = record_schema()
    arrays = [
        columns[f.name] if isinstance(columns.get(f.name), pa.Array) else _array(columns.get(f.name), f.type, rows)
        for f in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema).take(pa.array(order))


def _lists(offsets: Any, chunk_ns: Any, sizes: Any) -> dict[str, Any]:
    n = len(chunk_ns)
    index = np.arange(n) - np.repeat(offsets[:-1], sizes)
    kinds = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array(["content"])).cast(pa.string())
    values = {
        "chunk_ns": pa.array(chunk_ns),
        "chunk_tokens": pa.array(np.ones(n, np.int32)),
        "chunk_kind": kinds,
        "chunk_read": pa.array(index.astype(np.int32)),
        "chunk_lag_ns": pa.array(np.full(n, 20_000)),
        "chunk_merged": pa.array(np.zeros(n, np.bool_)),
    }
    cuts = pa.array(offsets.astype(np.int32))
    return {name: pa.ListArray.from_arrays(cuts, column) for name, column in values.items()}


def _text(value: str, rows: int) -> pa.Array:
    return pa.array([value] * rows)


def _array(values: Any, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.nulls(rows, kind) if values is None else pa.array(values, type=kind)


def _manifest(requests: int, trial_folder: str) -> Manifest:
    trial = {
        "id": "000-sustained",
        "index": 0,
        "load": "sustained",
        "kind": "sustained",
        "loop": "open",
        "identity": "0" * 64,
        "status": "complete",
        "reason": None,
        "path": trial_folder,
        "plan_hash": "a" * 64,
        "seed": 1,
        "t0_ns": 1_000 * NS_PER_S,
        "t0_utc": "2026-01-02T03:04:05Z",
        "timeout_s": 120.0,
        "window": {"start_ns": 0, "end_ns": requests * NS_PER_S // RATE},
        "planned": {"total": requests, "warmup": 0, "measure": requests},
        "slo": {"ttft_ms": 100.0, "tpot_ms": 25.0, "e2e_ms": None, "stall_ms": 200.0},
        "limits": ["ttft_ms p99 <= 200 ms", "error_rate <= 0.01"],
        "client": {"heartbeat_p99_ms": 0.4, "cpu_share": 0.1, "merged_read_share": 0.0, "connect_errors": 0},
    }
    cell: dict[str, Any] = {
        "id": "000-stub",
        "index": 0,
        "model": "tiny",
        "engine": "stub",
        "level": "f16",
        "variant": None,
        "repetition": 1,
        "status": "complete",
        "reason": None,
        "engine_info": {},
        "start": {},
        "trials": [trial],
    }
    stored = {
        "harness_version": "0",
        "name": "fabricated",
        "created_utc": "2026-01-02T03:04:05Z",
        "status": "complete",
        "labels": {},
        "scenario": {},
        "command": "",
        "order": [],
        "notes": [],
        "provenance": {"must_match": {}, "under_test": {}, "context": {}},
        "cells": [cell],
    }
    return Manifest.model_validate(stored)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--chunks", type=int, default=128)
    given = parser.parse_args()
    fabricate(given.folder, given.requests, given.chunks)
