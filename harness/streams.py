"""Rows that survive a kill: an Arrow stream while a trial runs, Parquet once it has ended."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import StorageFailed

Row = TypeVar("Row")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into one sentence."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        reason = f"{error.strerror or error};"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "no space left on the disk; make room, or"
        raise StorageFailed(f"{path}: cannot write: {reason} choose another folder with --out") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file as a whole: a reader, or a crash, sees the old content or the new, nothing between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class StreamWriter(Generic[Row]):
    """Appends rows to an Arrow stream; a row is on disk at the latest `flush_s` after it came in, if rows keep coming.

    `flush_if_due` writes what has waited long enough; call it from time to time where rows are rare.
    """

    def __init__(
        self,
        path: Path,
        schema: pa.Schema,
        columns: Callable[[Sequence[Row]], Mapping[str, list[Any]]],
        *,
        rows: int = 512,
        flush_s: float = 0.5,
    ) -> None:
        self._path, self._schema, self._columns = path, schema, columns
        self._rows, self._flush_s = rows, flush_s
        self._pending: list[Row] = []
        self._oldest_s = 0.0
        with storage_errors(path):
            self._file = pa.OSFile(str(path), "wb")
            self._writer = pa.ipc.new_stream(self._file, schema)
        self._write([])  # the first conversion in a process imports pandas: not while requests are in flight

    def add(self, row: Row) -> None:
        """Take one row."""
        if not self._pending:
            self._oldest_s = time.monotonic()
        self._pending.append(row)
        if len(self._pending) >= self._rows:
            self.flush()
        else:
            self.flush_if_due()

    def flush_if_due(self) -> None:
        """Write what has waited long enough."""
        if self._pending and time.monotonic() - self._oldest_s >= self._flush_s:
            self.flush()

    def flush(self) -> None:
        """Write everything taken so far."""
        if not self._pending:
            return
        rows, self._pending = self._pending, []
        self._write(rows)

    def _write(self, rows: Sequence[Row]) -> None:
        batch = pa.RecordBatch.from_pydict(dict(self._columns(rows)), schema=self._schema)
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The whole batches of a stream; one that was cut off by a crash ends the stream."""
    try:
        reader = pa.ipc.open_stream(pa.OSFile(str(path), "rb"))
    except pa.ArrowInvalid:
        return  # killed before the schema was written
    while True:
        try:
            yield reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowInvalid, OSError):
            return  # the last batch is incomplete


def to_parquet(stream: Path, parquet: Path, schema: pa.Schema) -> int:
    """Turn a stream, whole or cut off, into a Parquet file, batch by batch; returns the number of rows.

    The stream is removed once the Parquet file is complete.
    """
    temporary = parquet.with_name(f".{parquet.name}.{os.getpid()}.tmp")
    rows = 0
    with storage_errors(parquet):
        try:
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for batch in read_batches(stream):
                    writer.write_batch(batch)
                    rows += batch.num_rows
            temporary.replace(parquet)
        finally:
            temporary.unlink(missing_ok=True)
        stream.unlink()
    return rows
