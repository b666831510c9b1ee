"""Records on their way from a worker to the master: batches of rows as Arrow's own bytes, in Locust's messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from harness.drivers.progress import Progress
from harness.records import Record, Status, record_schema, to_columns
from harness.store.run import failed_row, record_writer
from harness.store.streams import batch_of

BATCH_ROWS = 256
BATCH_S = 0.5
_COUNTED = (
    *("status", "done_ns", "first_token_ns", "last_token_ns", "due_ns", "sent_ns", "output_tokens", "http_status"),
    "error",
)


class Outgoing:
    """Gathers records and sends them by `send(bytes)`: every 256 rows, or half a second after the first came in."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._rows: list[Record] = []
        self._since_s = 0.0
        packed([])  # the first conversion in a process imports pandas: not while requests are in flight

    def add(self, record: Record) -> None:
        """Take one record."""
        if not self._rows:
            self._since_s = time.monotonic()
        self._rows.append(record)
        if len(self._rows) >= BATCH_ROWS:
            self.flush()
        else:
            self.flush_if_due()

    def flush_if_due(self) -> None:
        """Send what has waited long enough; to be called from time to time."""
        if self._rows and time.monotonic() - self._since_s >= BATCH_S:
            self.flush()

    def flush(self) -> None:
        """Send all there is."""
        if self._rows:
            rows, self._rows = self._rows, []
            self._send(packed(rows))


class Collected:
    """The master's side: writes what comes in to the trial's folder and follows it.

    rows: how many so far.   lost: those of them that are made here and were never sent.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._writer = record_writer(folder)
        self._progress = progress
        self.rows = self.lost = 0

    def take(self, ipc: bytes) -> None:
        """Take a batch from a worker."""
        for batch in unpacked(ipc):
            self._writer.add_batch(batch)
            self.rows += batch.num_rows
            for told in batch.select(_COUNTED).to_pylist():
                self._progress.add(Record(request=0, **told))

    def add(self, records: Iterable[Record]) -> None:
        """Take records that are made here."""
        for record in records:
            self._writer.add(record)
            self._progress.add(record)
            self.rows += 1
            self.lost += record.status == Status.NOT_SENT

    def close(self) -> None:
        """Write the rest."""
        self._writer.close()


def packed(records: list[Record]) -> bytes:
    """Records as an Arrow stream."""
    schema = record_schema()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(batch_of(records, schema, to_columns, failed_row))
    return bytes(sink.getvalue())


def unpacked(ipc: bytes) -> list[pa.RecordBatch]:
    """The batches of an Arrow stream of records. Raises pyarrow.ArrowInvalid if it is none."""
    return list(pa.ipc.open_stream(ipc))
