"""Transport of records from a worker to the master: batches of rows as Arrow bytes in Locust's messages."""

from __future__ import annotations

import time
from collections.abc import Callable

import pyarrow as pa

from harness.drivers.progress import Progress
from harness.records import Record, record_schema, to_columns
from harness.store.run import failed_row
from harness.store.streams import StreamWriter, batch_of

BATCH_ROWS = 256
BATCH_S = 0.5
MOST_BYTES = 1 << 25
_COUNTED = (
    *("status", "done_ns", "first_token_ns", "last_token_ns", "due_ns", "sent_ns", "output_tokens", "http_status"),
    "error",
)


class Outgoing:
    """Batches of records, sent by `send(bytes)` every 256 rows, or half a second after a batch's first record."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._rows: list[Record] = []
        self._since_s = 0.0
        packed([])  # the first conversion imports pandas; do it before requests are in flight

    def add(self, record: Record) -> None:
        if not self._rows:
            self._since_s = time.monotonic()
        self._rows.append(record)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Send a batch that is full or has waited long enough; call regularly."""
        if len(self._rows) >= BATCH_ROWS or (self._rows and time.monotonic() - self._since_s >= BATCH_S):
            self.flush()

    def flush(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._send_all(rows)

    def _send_all(self, rows: list[Record]) -> None:
        """Send rows in messages that the master's border lets in."""
        data, half = packed(rows), len(rows) // 2
        if len(data) <= MOST_BYTES or not half:
            self._send(data)
        else:
            self._send_all(rows[:half])
            self._send_all(rows[half:])


def take(batches: list[pa.RecordBatch], writer: StreamWriter[Record], progress: Progress) -> None:
    """Store a received batch, and count it in the progress."""
    for batch in batches:
        writer.add_batch(batch)
        for row in batch.select(_COUNTED).to_pylist():
            progress.add(Record(request=0, **row))


def packed(records: list[Record]) -> bytes:
    """Return records as an Arrow stream."""
    schema = record_schema()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(batch_of(records, schema, to_columns, failed_row))
    return bytes(sink.getvalue())


def unpacked(ipc: bytes) -> list[pa.RecordBatch] | None:
    """Return the batches of an Arrow stream of records, None for other data."""
    try:
        stream = pa.ipc.open_stream(ipc)
        batches = list(stream)
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError):
        return None
    return batches if stream.schema.equals(record_schema()) else None
