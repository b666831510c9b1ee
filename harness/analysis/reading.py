"""Reading: the records of a trial, read once for everything that is derived from them.

Columns of single values are held in memory, about 200 bytes a request. The lists of chunks are too where they are few;
otherwise they pass by in batches, in the order of the file, and only what was counted of them stays.

Which backend answered: the measured requests of each, for results of their own.

Who was helped by a cache: the measured requests with and without, for results of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.analysis.chunks import ChunkLists, PerRequest, aligned
from harness.analysis.columns import ALL, CHUNK_COLUMNS, Columns, Flags, Ints, due_order
from harness.analysis.distributions import Distribution, distributions, guarded
from harness.analysis.latencies import Observations, observe
from harness.analysis.one_pass import PassingChunks
from harness.analysis.queue import NO_GUARD, TAIL, QueueGuard, changes_by_plan, guard_of
from harness.analysis.stats import LEVELS
from harness.analysis.window import Window, window_of
from harness.records import record_schema
from harness.scenario.limits import BACKEND_CLASS, CACHE_CLASSES
from harness.store.categories import frame_of
from harness.store.manifest import CellEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def queue_facts(reading: Reading) -> dict[str, Any]:
    """What the queue makes of a trial's latencies: see `QueueGuard.as_fact`; and why where it was not asked."""
    planned = changes_by_plan(reading.trial)
    return reading.guard.as_fact() | ({"reason": "the load changes by plan"} if planned else {})


MOST = 8


def backend_split(columns: Columns) -> dict[str, Flags]:
    """Flags of requests by `backend:` and the name that replies gave; none unless several answered measured requests.

    Servers that a scenario lists under `url` are no backends in this sense: reports have a table of those. Of more
    than MOST names, which are then no names of engines, none is split off.
    """
    if columns.backend is None:
        return {}
    named = columns.backend[columns.measured_rows].unique().dropna()
    names = sorted(str(name) for name in named if "://" not in str(name))
    if not 1 < len(names) <= MOST:
        return {}
    return {f"{BACKEND_CLASS}{name}": np.asarray(columns.backend == name) for name in names}


MOSTLY = 0.5


def cache_split(columns: Columns) -> dict[str, Flags]:
    """Flags of requests by the names in `limits.CACHE_CLASSES`; a pair only where both have measured requests.

    cached, uncached: by what the server said. Cached is a reply from a result cache, or one to a prompt of which at
    least half of the tokens came from a prefix cache. repeated, original: by the plan, whatever the server did.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = columns.counts["cached_tokens"] / columns.counts["prompt_tokens"]
    cached, uncached, repeated, original = CACHE_CLASSES
    found: dict[str, Flags] = {}
    for name, other, flags in (
        (cached, uncached, columns.cached | (share >= MOSTLY)),
        (repeated, original, columns.repeated),
    ):
        if (flags & columns.measured_rows).any() and (~flags & columns.measured_rows).any():
            found |= {name: flags, other: ~flags}
    return found


DEFAULT_CLASS = "default"
MOST_KEPT = 2**20
SAMPLE_PARTS = 8


class StoredTrial(Protocol):
    """What is needed of a stored trial; `store.TrialData` is one."""

    @property
    def cell(self) -> CellEntry:
        """Its cell's entry in the manifest."""
        ...

    @property
    def trial(self) -> TrialEntry:
        """Its own entry."""
        ...

    def batches(self, columns: Sequence[str], parts: int | None = None) -> Iterator[pa.RecordBatch]:
        """One row per request, some columns only, in batches of bounded size. parts: only about so many, spread
        evenly.
        """
        ...

    def samples(self) -> pd.DataFrame:
        """One row per reading of a gauge."""
        ...


@dataclass(frozen=True)
class Reading:
    """The records of one trial.

    frame: the columns of single values under their stored names, in the order of the file; texts are categories.
    columns: those that metrics are made of, in due order.   groups: the same for all requests together and, where
    there are several classes, for each.   trial: its entry in the manifest.
    """

    trial: TrialEntry
    frame: pd.DataFrame
    columns: Columns
    groups: dict[str, Columns]

    @classmethod
    def of(cls, records: pd.DataFrame, trial: TrialEntry) -> Reading:
        """Of a frame with all columns."""
        return cls.with_lists(records, Columns.of(records), trial)

    @classmethod
    def with_lists(cls, frame: pd.DataFrame, columns: Columns, trial: TrialEntry) -> Reading:
        """Of columns whose chunks are in memory."""
        groups = {name: columns.where(rows) for name, rows in groups_of(columns).items()}
        return cls(trial, frame, columns, {ALL: columns, **groups})

    @cached_property
    def window(self) -> Window:
        """The measuring window."""
        return window_of(self.trial, self.columns)

    @cached_property
    def observed(self) -> dict[str, Observations]:
        """The distributions of the measured requests."""
        return observe(self.columns.measured)

    @cached_property
    def distributions(self) -> dict[str, Distribution]:
        """The same with what their statistics need, held down by the queue."""
        return guarded(self._unguarded, self.guard)

    @cached_property
    def guard(self) -> QueueGuard:
        """What the queue makes of the latencies; nothing where the load changes by plan."""
        if changes_by_plan(self.trial):
            return NO_GUARD
        ttft, e2e = (self._unguarded[name] for name in ("ttft_ms", "e2e_ms"))
        return guard_of(self.columns, (ttft if ttft.ordered.n else e2e).effective_size(TAIL))

    @cached_property
    def _unguarded(self) -> dict[str, Distribution]:
        return distributions(self.columns.measured, self.observed)


def groups_of(columns: Columns) -> dict[str, Flags]:
    """The groups worth rows of their own, and who belongs to them: the classes, none where all requests are of the
    default class, those with and without help of a cache, and those that each backend answered.
    """
    names = sorted(str(name) for name in columns.class_name.unique().dropna())
    classes = [] if names in ([], [DEFAULT_CLASS]) else names
    own = {name: np.asarray(columns.class_name == name) for name in classes}
    return cache_split(columns) | backend_split(columns) | own


def read(trial: StoredTrial, levels: Sequence[float] = LEVELS, most_kept: int = MOST_KEPT) -> Reading:
    """Read a trial. levels: of the quantiles that will be asked for.   most_kept: so many chunks are held in memory."""
    frame = _scalars(trial)
    order = due_order(frame)
    kept: list[ChunkLists] = []
    total = 0
    for batch in trial.batches(CHUNK_COLUMNS):
        kept.append(chunk_lists(batch))
        total += len(kept[-1].ns)
        if total > most_kept:
            return _counted(trial, frame, order, levels)
    lists = _in_order(kept, order)
    columns = Columns.of_scalars(frame, order, lists.each(), lists)
    return Reading.with_lists(frame, columns, trial.trial)


def _scalars(trial: StoredTrial) -> pd.DataFrame:
    """All columns but the lists; texts as categories, since few differ."""
    import pyarrow as pa

    fields = [field for field in record_schema() if not pa.types.is_list(field.type)]
    batches = trial.batches([field.name for field in fields])
    return frame_of(pa.Table.from_batches(batches, schema=pa.schema(fields)))


def chunk_lists(batch: pa.RecordBatch) -> ChunkLists:
    """The chunks of a batch, in its order."""
    arrivals, tokens = (batch.column(name) for name in CHUNK_COLUMNS)
    sizes, token_sizes = (_sizes(column) for column in (arrivals, tokens))
    borne = tokens.flatten()
    counts = borne.to_numpy() if not borne.null_count else borne.cast("float64").to_numpy(zero_copy_only=False)
    return ChunkLists(sizes, arrivals.flatten().to_numpy(), aligned(counts, token_sizes, sizes))


def _sizes(lists: pa.ListArray) -> Ints:
    sizes: Ints = lists.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    return sizes


def _in_order(kept: Sequence[ChunkLists], order: Ints) -> ChunkLists:
    """All chunks, request by request in due order."""
    sizes = np.concatenate([*(part.sizes for part in kept), np.empty(0, dtype=np.int64)])
    ns = np.concatenate([*(part.ns for part in kept), np.empty(0)])
    tokens = np.concatenate([*(part.tokens for part in kept), np.empty(0)])
    starts = np.cumsum(sizes) - sizes
    ordered = sizes[order]
    moved = np.repeat(starts[order] - (np.cumsum(ordered) - ordered), ordered) + np.arange(len(ns))
    return ChunkLists(ordered, ns[moved], tokens[moved])


def _counted(trial: StoredTrial, frame: pd.DataFrame, order: Ints, levels: Sequence[float]) -> Reading:
    """A trial with more chunks than are kept: counted in one pass, after a glance at a sample."""
    n = len(frame)
    whole = Columns.of_scalars(frame, order, PerRequest.empty(n), None)
    window = window_of(trial.trial, whole)
    passing = PassingChunks(whole, groups_of(whole), window, levels)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    requests = frame["request"].to_numpy()
    by_number = np.argsort(requests, kind="stable")
    for batch in _ahead(trial.batches((*CHUNK_COLUMNS, "request"), SAMPLE_PARTS)):
        found = np.searchsorted(requests, batch.column("request").to_numpy(), sorter=by_number)
        passing.look_at(chunk_lists(batch), place[by_number[np.minimum(found, n - 1)]])
    begin = 0
    for batch in _ahead(trial.batches(CHUNK_COLUMNS)):
        lists = chunk_lists(batch.slice(0, n - begin))  # a run that goes on has more by now
        passing.take(lists, place[begin : begin + len(lists.sizes)])
        begin += len(lists.sizes)
    groups = passing.finish()
    return Reading(trial.trial, frame, groups[ALL], groups)


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same batches, each read while the one before is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch
