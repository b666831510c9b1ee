"""One reply through everything that reads it: the wire, its dialect, the judgement, the record, and the stored row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from engines.dialects import get
from harness.drivers.http.response import ResponseReader
from harness.drivers.outcome import Cut, judge
from harness.drivers.stub import event
from harness.drivers.timeline import Outcome, Trace, build_record
from harness.records import Loop, Record, record_schema, to_columns
from harness.schedule.requests import Row

ROW = Row(0, "default", None, 0, None, "measure", None, 0, 0, 1, 4)
WORDS = [f" w{i}" for i in range(10)]
DONE = event(b"[DONE]")


def delta(finish: Any = None, usage: Any = None, **fields: Any) -> bytes:
    """One event of a chat."""
    more = {} if usage is None else {"usage": usage}
    return event({"id": "1", "choices": [{"index": 0, "delta": fields, "finish_reason": finish}], **more})


def usage(**counts: Any) -> bytes:
    """The event with the counts."""
    return event({"choices": [], "usage": counts})


ROLE = delta(role="assistant", content="")
TOKENS = [delta(content=word) for word in WORDS]
FINISH = delta("stop")
USAGE = usage(prompt_tokens=9, completion_tokens=10)
GOOD = [ROLE, *TOKENS, FINISH, USAGE, DONE]


def outcome_of(
    reads: Sequence[bytes],
    dialect: str = "openai-chat",
    kind: str = "text/event-stream",
    *,
    cut: Cut | None = None,
    streams: bool = True,
) -> tuple[Outcome, Trace]:
    """How a reply ended whose body came in these reads, read i at i microseconds, the head in read 0."""
    reader = ResponseReader()
    length = sum(map(len, reads)) + (1 if cut else 0)
    reader.feed(f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n".encode())
    for data in reads:
        reader.feed(data)
    reader.release()
    at = range(len(reader.bodies))
    trace = Trace(ROW, 0, "measure", sent_ns=0, done_ns=1000 * len(at))
    trace.arrivals, trace.lags = [1000 * i for i in at], [1 for _ in at]
    trace.headers_read, trace.first_body_read = reader.headers_read, reader.first_body_read
    return judge(reader, get(dialect), cut, streams=streams), trace


def record_of(
    reads: Sequence[bytes], dialect: str = "openai-chat", kind: str = "text/event-stream", **rest: Any
) -> Record:
    """The record of such a reply; it can be stored, and its text be written down."""
    outcome, trace = outcome_of(reads, dialect, kind, **rest)
    record = build_record(trace, outcome, 0, Loop.OPEN, chunks=True, text=True)
    stored(record)
    return record


def stored(record: Record) -> dict[str, Any]:
    """The row that is stored of a record."""
    batch = pa.RecordBatch.from_pydict(to_columns([record]), schema=record_schema())
    json.dumps(record.text).encode()
    (record.text or "").encode()
    row: dict[str, Any] = batch.to_pylist()[0]
    return row


def case_name(value: object) -> str:
    """A short name for a parameter."""
    return Path(str(value)).name[:40]
