"""Queues in whole arrays: the waits of theory's servers, as stored trials that the analysis reads like any other."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from harness.records import record_schema, sample_schema
from harness.store.manifest import CellEntry
from tests.fabricated import cell_entry, trial_entry

Int64 = NDArray[np.int64]
S = 1_000_000_000
BATCH_ROWS = 100_000


@dataclass(frozen=True)
class Served:
    """When requests arrived at a queue, came to a server, and were done; whole nanoseconds, shape (n,)."""

    arrived_ns: Int64
    begun_ns: Int64
    done_ns: Int64


def poisson_arrivals_ns(rate: float, n: int, seed: int) -> Int64:
    """The moments of a Poisson process."""
    gaps_s = np.random.default_rng(seed).exponential(1 / rate, n)
    return np.round(np.cumsum(gaps_s) * S).astype(np.int64)


def exponential_services_ns(mean_s: float, n: int, seed: int) -> Int64:
    """Independent exponential times."""
    times_s = np.random.default_rng(seed).exponential(mean_s, n)
    return np.round(times_s * S).astype(np.int64)


def one_server(arrived_ns: Int64, services_ns: Int64) -> Served:
    """First come, first served (Lindley 1952): what ends a busy period does not depend on how it began, so that the
    latest end is a running maximum of arrivals less the work before them.
    """
    work = np.cumsum(services_ns)
    done = work + np.maximum.accumulate(arrived_ns - (work - services_ns))
    return Served(arrived_ns, done - services_ns, done)


def several_servers(arrived_ns: Int64, services_ns: Int64, servers: int) -> Served:
    """First come, first served by whichever server is free first (Kiefer and Wolfowitz 1955)."""
    free = [0] * servers
    begun = np.empty_like(arrived_ns)
    for place, (arrived, service) in enumerate(zip(arrived_ns.tolist(), services_ns.tolist(), strict=True)):
        start = max(arrived, free[0])
        begun[place] = start
        heapq.heapreplace(free, start + service)
    return Served(arrived_ns, begun, begun + services_ns)


@dataclass
class QueueTrial:
    """What `store.TrialData` offers of the requests to a queue: the first token comes when the server begins, the
    second and last when it is done.
    """

    served: Served
    cell: CellEntry = field(default_factory=cell_entry)
    changes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trial = trial_entry(end_s=float(self.served.arrived_ns[-1]) / S, **self.changes)

    def batches(self, columns: Sequence[str], parts: int | None = None) -> Iterator[pa.RecordBatch]:
        """As they would come from the stored file."""
        n = len(self.served.done_ns)
        for begin in range(0, n, BATCH_ROWS * max(1, n // BATCH_ROWS // parts) if parts else BATCH_ROWS):
            yield self._batch(slice(begin, begin + BATCH_ROWS)).select(list(columns))

    def _batch(self, rows: slice) -> pa.RecordBatch:
        arrived, begun, done = (x[rows] for x in (self.served.arrived_ns, self.served.begun_ns, self.served.done_ns))
        n, schema = len(done), record_schema()
        ends = pa.array(np.arange(0, 2 * n + 1, 2, dtype=np.int32))
        known: dict[str, Any] = {
            "request": np.arange(rows.start, rows.start + n),
            **dict.fromkeys(("due_ns", "dispatched_ns", "sent_ns"), arrived),
            **dict.fromkeys(("first_byte_ns", "first_token_ns", "first_answer_ns"), begun),
            **dict.fromkeys(("last_token_ns", "done_ns"), done),
            **dict.fromkeys(("requested_output_tokens", "output_tokens"), np.full(n, 2)),
            **dict.fromkeys(("requested_prompt_tokens", "prompt_tokens"), np.full(n, 16)),
            "chunk_ns": pa.ListArray.from_arrays(ends, np.stack([begun, done], axis=1).ravel()),
            "chunk_tokens": pa.ListArray.from_arrays(ends, pa.array(np.ones(2 * n), pa.int32())),
        }
        texts = {"class": "default", "phase": "measure", "loop": "open", "status": "ok", "clock": "kernel"}
        texts |= {"token_source": "usage", "finish_reason": "length"}
        known |= {name: pa.repeat(text, n) for name, text in texts.items()}
        arrays = [
            pa.nulls(n, one.type)
            if one.name not in known
            else known[one.name]
            if isinstance(known[one.name], pa.Array)
            else pa.array(known[one.name], one.type)
            for one in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def samples(self) -> pd.DataFrame:
        """No gauge was read."""
        none: pd.DataFrame = pa.Table.from_pylist([], schema=sample_schema()).to_pandas()
        return none
