"""Storage of rows: an Arrow stream while a trial runs, which survives a kill; Parquet afterwards."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import LIMITS, FileUnreadable, StorageFailed, shortened

Row = TypeVar("Row")
_UNSTORABLE = (pa.ArrowException, TypeError, ValueError, OverflowError)
GROUP_ROWS = 16_384
MOST_AT_ONCE = 10_000  # list elements, about 2 ms
GROUP_BYTES = 64 * 2**20


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Raise StorageFailed, with one sentence, for an error of the file system."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        reason = f"{error.strerror or error};"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "no space left on the disk; make room, or"
        elif error.errno in LIMITS:
            reason = f"{error.strerror}; {LIMITS[error.errno]}, or"
        raise StorageFailed(
            f"{shortened(str(path))}: cannot write: {reason} choose another folder with --out"
        ) from error


@contextlib.contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Raise FileUnreadable, with one sentence, for a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, MemoryError):
            raise
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileUnreadable(
            f"{shortened(str(path))} cannot be read: {' '.join(why.split())[:120].rstrip('.')}"
        ) from error


def check_columns(found: pa.Schema, wanted: pa.Schema, needed: Iterable[str]) -> None:
    """Raise ValueError for a table that lacks needed columns, or has columns of another type."""
    missing = [name for name in needed if name not in found.names]
    if missing:
        raise ValueError(f"it has no column {missing[0]}")
    for name in set(found.names) & set(wanted.names):
        stored, type_ = found.field(name).type, wanted.field(name).type
        if stored != type_:
            raise ValueError(f"its column {name} has the type {stored} and not {type_}")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file: readers and crashes see the old content or the new, never a mixture."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        temporary.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as file:  # follows no link
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class StreamWriter(Generic[Row]):
    """Writer of rows to an Arrow stream. A row is on disk after `flush_s`, if more rows or `flush_if_due` follow.

    Args:
        rows: Most rows that are written at once.
        size: Size of a row; the sum that is written at once is bounded, for it takes time.
        instead: Returns the substitute for a row that the schema cannot hold.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        columns: Callable[[Sequence[Row]], Mapping[str, list[Any]]],
        *,
        rows: int = 512,
        flush_s: float = 0.5,
        size: Callable[[Row], int] = lambda _: 0,
        instead: Callable[[Row, Exception], Row] | None = None,
    ) -> None:
        self._path, self._schema, self._columns = path, schema, columns
        self._rows, self._flush_s, self._size_of, self._instead = rows, flush_s, size, instead
        self._pending: list[Row] = []
        self._size, self._oldest_s = 0, 0.0
        with storage_errors(path):
            self._file = pa.OSFile(str(path), "wb")
            self._writer = pa.ipc.new_stream(self._file, schema)
        self._write([])  # the first conversion in a process imports pandas: not while requests are in flight

    def add(self, row: Row) -> None:
        """Take one row."""
        if not self._pending:
            self._oldest_s = time.monotonic()
        self._pending.append(row)
        self._size += self._size_of(row)
        if len(self._pending) >= self._rows or self._size >= MOST_AT_ONCE:
            self.flush()
        else:
            self.flush_if_due()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Take a batch of the same schema."""
        self.flush()
        with storage_errors(self._path):
            self._writer.write_batch(batch)

    def flush_if_due(self) -> None:
        """Write the pending rows if the oldest has waited for `flush_s`."""
        if self._pending and time.monotonic() - self._oldest_s >= self._flush_s:
            self.flush()

    def flush(self) -> None:
        """Write everything taken so far."""
        if self._pending:
            rows, self._pending, self._size = self._pending, [], 0
            self._write(rows)

    def _write(self, rows: Sequence[Row]) -> None:
        batch = batch_of(rows, self._schema, self._columns, self._instead)
        with storage_errors(self._path):
            self._writer.write_batch(batch)

    def close(self) -> None:
        """Write the rest and end the stream."""
        self.flush()
        with storage_errors(self._path):
            self._writer.close()
            self._file.close()

    def __enter__(self) -> StreamWriter[Row]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def batch_of(
    rows: Sequence[Row],
    schema: pa.Schema,
    columns: Callable[[Sequence[Row]], Mapping[str, list[Any]]],
    instead: Callable[[Row, Exception], Row] | None,
) -> pa.RecordBatch:
    """Return rows as a batch. `instead` returns the substitute for a row that the schema cannot hold."""
    try:
        return pa.RecordBatch.from_pydict(dict(columns(rows)), schema=schema)
    except _UNSTORABLE as error:
        if instead is None:
            raise
        if len(rows) == 1:
            return batch_of([instead(rows[0], error)], schema, columns, None)
    table = pa.Table.from_batches([batch_of([row], schema, columns, instead) for row in rows])
    return table.combine_chunks().to_batches()[0]


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the complete batches of a stream; a batch that a crash cut off ends it."""
    try:
        reader = pa.ipc.open_stream(pa.OSFile(str(path), "rb"))
    except pa.ArrowInvalid:
        return  # killed before the schema was written
    with contextlib.suppress(StopIteration, pa.ArrowInvalid, OSError):  # end, or an incomplete batch
        while True:
            yield reader.read_next_batch()


def sync_folder(folder: Path) -> None:
    """Make a renaming survive a loss of power, where the file system knows how."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def to_parquet(
    streams: Sequence[Path],
    parquet: Path,
    schema: pa.Schema,
    completed: Callable[[pa.Table], pa.Table] = lambda group: group,
) -> int:
    """Convert streams, complete or cut off, to one Parquet file; delete them afterwards. Return the number of rows.

    Args:
        completed: Adds to each group of rows what was unknown when they were written.
    """
    temporary = parquet.with_name(f".{parquet.name}.{os.getpid()}.tmp")
    rows = 0
    with storage_errors(parquet):
        temporary.unlink(missing_ok=True)  # a link, perhaps
        try:
            with parquet_writer(temporary, schema) as writer:
                for group in grouped(chain.from_iterable(map(read_batches, streams))):
                    writer.write_table(completed(group), row_group_size=len(group))
                    rows += len(group)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(parquet)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(parquet.parent)  # before the streams go: a loss of power must leave the one or the others
        for stream in streams:
            stream.unlink()
    return rows


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a Parquet file with encodings for records: differences for 64-bit integers, dictionaries for the rest.

    Chunk times are smaller and are read twice as fast.
    """
    leaves = {f.name: (f"{f.name}.list.element", f.type.value_type) for f in schema if pa.types.is_list(f.type)}
    flat = {f.name: leaves.get(f.name, (f.name, f.type)) for f in schema}
    rising = [leaf for leaf, kind in flat.values() if pa.types.is_int64(kind)]
    other = [leaf for leaf, _ in flat.values() if leaf not in rising]
    encoding = dict.fromkeys(rising, "DELTA_BINARY_PACKED")
    return pq.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=other, column_encoding=encoding, write_page_checksum=True
    )


def grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield tables of about GROUP_ROWS rows or GROUP_BYTES: small groups read slowly, large ones take memory."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(waiting)


def read_parquet(
    path: Path, columns: Sequence[str], elements: int, parts: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet file in order, in batches of about `elements` list elements at most.

    Args:
        columns: Names; absent ones are left out.
        parts: Approximate number of row groups to read, spread evenly; None for all.
    """
    # A buffer would keep every row group. A damaged page is an error, never another number.
    file = pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
    metadata = file.metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    # Each column has one leaf. Only lists have more values than rows, and the metadata is slow.
    lists = [place for place, field in enumerate(file.schema_arrow) if pa.types.is_list(field.type)]
    most = max((max((g.column(c).num_values for c in lists), default=g.num_rows) for g in groups), default=0)
    rows = max(1, max((group.num_rows for group in groups), default=1))
    batch_rows = min(rows, max(1, elements * rows // max(most, 1)))
    chosen = range(0, len(groups), max(1, len(groups) // parts) if parts else 1)
    found = file.schema_arrow.names
    stored = [name for name in columns if name in found]
    yield from file.iter_batches(batch_size=batch_rows, row_groups=list(chosen), columns=stored)
