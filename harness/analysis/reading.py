"""Reading: the records of a trial, read once for everything that is derived from them.

Columns of single values are held in memory, about 200 bytes a request. So are the lists of chunks if there are few;
otherwise they are read in batches, in the order of the file, and only their counts are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from harness.analysis.attempts import ATTEMPT_COLUMNS, NO_ATTEMPTS, Attempts, attempts_of
from harness.analysis.chunks import CHUNK_COLUMNS, ChunkLists, PerRequest
from harness.analysis.columns import ALL, Columns, due_order
from harness.analysis.distributions import Distribution, Observations
from harness.analysis.latencies import distributions, observe
from harness.analysis.lateness import READ_COLUMNS, FirstReads, first_reads
from harness.analysis.one_pass import PassingChunks
from harness.analysis.queue import NO_GUARD, QueueGuard, changes_by_plan, guard_of
from harness.analysis.stats import LEVELS, Flags, Ints
from harness.analysis.window import Window, window_of
from harness.records import Loop, Phase, record_schema
from harness.scenario.limits import BACKEND_CLASS, CACHE_CLASSES
from harness.store.categories import frame_of, one_of
from harness.store.manifest import CellEntry, TrialEntry

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MOST_BACKENDS = 8
LEAST_CACHED = 0.5
DEFAULT_CLASS = "default"
MOST_KEPT = 2**20
SAMPLE_PARTS = 8


class StoredTrial(Protocol):
    """A stored trial, such as `store.TrialData`."""

    @property
    def cell(self) -> CellEntry: ...

    @property
    def trial(self) -> TrialEntry: ...

    def batches(self, columns: Sequence[str], parts: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield some columns of all requests in batches of bounded size; only about `parts` of them, spread evenly."""
        ...

    def samples(self) -> pd.DataFrame:
        """Return one row per reading of a gauge."""
        ...


@dataclass(frozen=True)
class Reading:
    """The records of one trial."""

    trial: TrialEntry
    frame: pd.DataFrame  # columns of single values as stored, in the order of the file; texts are categories
    columns: Columns  # the columns that metrics are made of, in due order
    groups: dict[str, Columns]  # the same for all requests together and for each group (see `groups_of`)
    reads: FirstReads  # of all requests, in due order
    attempts: Attempts = NO_ATTEMPTS  # that failed and were followed by others

    @cached_property
    def window(self) -> Window:
        return window_of(self.trial, self.columns)

    @cached_property
    def observed(self) -> dict[str, Observations]:
        """The observations of the measured requests by metric name."""
        return self.observations(self.columns.measured)

    @cached_property
    def distributions(self) -> dict[str, Distribution]:
        """The distributions of the measured requests."""
        return distributions(self.columns.measured, self.observed)

    @cached_property
    def guard(self) -> QueueGuard:
        """Return the sources of correlation of this trial; NO_GUARD if the load changes by schedule."""
        return NO_GUARD if changes_by_plan(self.trial) else guard_of(self.columns, self._users())

    @cached_property
    def explained(self) -> float:
        """The share of the variance of "as fast as the median" that the requests in flight explain."""
        first, whole = (self.distributions[name] for name in ("ttft_ms", "e2e_ms"))
        return (first if first.ordered.n else whole).size(0.5).explained

    def observations(self, rows: Columns) -> dict[str, Observations]:
        """Return the observations of some measured requests by metric name."""
        return self.guard.applied_to(observe(rows), rows.times["due"])

    def _users(self) -> int:
        """Return how many users sent the measured requests of a closed loop; 0 if they came by plan."""
        if self.trial.loop != Loop.CLOSED:
            return 0
        return max(1, int(self.frame.loc[one_of(self.frame["phase"], [Phase.MEASURE]), "user"].nunique()))


def groups_of(columns: Columns) -> dict[str, Flags]:
    """Return the groups with results of their own, and which requests belong to each.

    They are the classes, none if all requests are of the default class, and those of `_cache_split` and
    `_backend_split`.
    """
    names = sorted(str(name) for name in columns.class_name.unique().dropna())
    classes = [] if names in ([], [DEFAULT_CLASS]) else names
    own = {name: np.asarray(columns.class_name == name) for name in classes}
    return _cache_split(columns) | _backend_split(columns) | own


def _backend_split(columns: Columns) -> dict[str, Flags]:
    """Return flags by `backend:` and the name in the replies; none unless several backends answered measured requests.

    Servers that a scenario lists under `url` are not backends in this sense: reports have a table of those. More than
    MOST_BACKENDS names are no names of engines, and none is split off.
    """
    named = columns.backend[columns.measured_rows].unique().dropna()
    names = sorted(str(name) for name in named if "://" not in str(name))
    if not 1 < len(names) <= MOST_BACKENDS:
        return {}
    return {f"{BACKEND_CLASS}{name}": np.asarray(columns.backend == name) for name in names}


def _cache_split(columns: Columns) -> dict[str, Flags]:
    """Return flags by the names in `limits.CACHE_CLASSES`; a pair only if both have measured requests.

    cached, uncached: by the server's report. A cached reply is from a result cache, or to a prompt of which at least
    half of the tokens came from a prefix cache. repeated, original: by the schedule, whatever the server did.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = columns.counts["cached_tokens"] / columns.counts["prompt_tokens"]
    cached, uncached, repeated, original = CACHE_CLASSES
    found: dict[str, Flags] = {}
    for name, other, flags in (
        (cached, uncached, columns.cached | (share >= LEAST_CACHED)),
        (repeated, original, columns.repeated),
    ):
        if (flags & columns.measured_rows).any() and (~flags & columns.measured_rows).any():
            found |= {name: flags, other: ~flags}
    return found


def read(stored: StoredTrial, levels: Sequence[float] = LEVELS, most_kept: int = MOST_KEPT) -> Reading:
    """Read a trial. More than `most_kept` chunks are not held in memory, but counted for quantiles of these levels."""
    frame = _scalars(stored)
    order = due_order(frame)
    kept: list[ChunkLists] = []
    total = 0
    for batch in stored.batches(CHUNK_COLUMNS):
        kept.append(ChunkLists.of(batch))
        total += len(kept[-1].ns)
        if total > most_kept:
            return _counted(stored, frame, order, levels)
    lists = _in_order(kept, order)
    reads, attempts = first_reads(stored.batches(READ_COLUMNS), order), _attempts(stored, frame)
    columns = Columns.of(frame, order, lists.each(), lists)
    groups = {name: columns.where(rows) for name, rows in groups_of(columns).items()}
    return Reading(stored.trial, frame, columns, {ALL: columns, **groups}, reads, attempts)


def _scalars(stored: StoredTrial) -> pd.DataFrame:
    """Return all columns but the lists; texts as categories, since few differ."""
    import pyarrow as pa

    fields = [field for field in record_schema() if not pa.types.is_list(field.type)]
    batches = stored.batches([field.name for field in fields])
    return frame_of(pa.Table.from_batches(batches, schema=pa.schema(fields)))


def _in_order(kept: Sequence[ChunkLists], order: Ints) -> ChunkLists:
    """Return all chunks, request by request in due order."""
    sizes = np.concatenate([*(part.sizes for part in kept), np.empty(0, dtype=np.int64)])
    ns = np.concatenate([*(part.ns for part in kept), np.empty(0)])
    tokens = np.concatenate([*(part.tokens for part in kept), np.empty(0)])
    starts = np.cumsum(sizes) - sizes
    ordered = sizes[order]
    moved = np.repeat(starts[order] - (np.cumsum(ordered) - ordered), ordered) + np.arange(len(ns))
    return ChunkLists(ordered, ns[moved], tokens[moved])


def _counted(stored: StoredTrial, frame: pd.DataFrame, order: Ints, levels: Sequence[float]) -> Reading:
    """Read a trial with more chunks than are kept: count them in one pass, after a sample of them."""
    n = len(frame)
    whole = Columns.of(frame, order, PerRequest.empty(n), None)
    passing = PassingChunks(whole, groups_of(whole), window_of(stored.trial, whole), levels)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)
    requests = frame["request"].to_numpy()
    by_number = np.argsort(requests, kind="stable")
    for batch in _ahead(stored.batches((*CHUNK_COLUMNS, "request"), SAMPLE_PARTS)):
        found = np.searchsorted(requests, batch.column("request").to_numpy(), sorter=by_number)
        passing.look_at(ChunkLists.of(batch), place[by_number[np.minimum(found, n - 1)]])
    begin = 0
    for batch in _ahead(stored.batches(CHUNK_COLUMNS)):
        lists = ChunkLists.of(batch.slice(0, n - begin))  # a run that goes on has more by now
        passing.take(lists, place[begin : begin + len(lists.sizes)])
        begin += len(lists.sizes)
    groups = passing.finish()
    reads = first_reads(_ahead(stored.batches(READ_COLUMNS)), order)
    return Reading(stored.trial, frame, groups[ALL], groups, reads, _attempts(stored, frame))


def _attempts(stored: StoredTrial, frame: pd.DataFrame) -> Attempts:
    """Return the failed attempts, which few loads have."""
    some = frame["retries"].fillna(0).any()
    return attempts_of(_ahead(stored.batches(ATTEMPT_COLUMNS))) if some else NO_ATTEMPTS


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same batches, each read while the one before is processed."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch
