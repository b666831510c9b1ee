"""Records and samples: what is stored of a run, and under which names.

The columns are a contract: reports, notebooks and other tools read them. All `_ns` columns are integer offsets from the
trial's T0 on the monotonic clock; null means that it did not happen or is not known.

Format history (`FORMAT_VERSION` is written into every manifest; a change of a column raises it):
0  was never frozen; a column that such a run lacks is read as null
1  frozen: `harness.cli.format_page` describes it, tests/data/runs/v1 holds runs of it
2  planned_cancel_ns, accepting_ns, resends, finish_ns
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 2
BROKEN_OFF = "the conversation was broken off"
"""How the `error` of a turn begins that was not sent because one before it in its conversation had failed."""

TOO_LATE = "this client came to send it only after its time-out"
"""How the `error` of a planned request begins that was given up unsent, because this client was so far behind."""
EXHAUSTED = ("Too many open files", "Cannot assign requested address", "No buffer space available")
"""What stands in the `error` of a request for which this machine had no connection left: not the server's doing."""


def exhausted(error: str | None) -> bool:
    """Whether this machine itself had no connection left."""
    return error is not None and any(text in error for text in EXHAUSTED)


class Phase(StrEnum):
    """Part of a trial to which a request belongs, by its due time."""

    WARMUP = "warmup"
    MEASURE = "measure"
    COOLDOWN = "cooldown"


class Loop(StrEnum):
    """Open: sent when the plan says. Closed: sent when the user's previous request has ended. Partly open, of a whole
    trial: conversations begin when the plan says (open rows), their later turns follow the replies (closed rows).
    """

    OPEN = "open"
    CLOSED = "closed"
    PARTLY_OPEN = "partly_open"


class Status(StrEnum):
    """How a request ended."""

    OK = "ok"
    HTTP_ERROR = "http_error"
    REJECTED = "rejected"
    STREAM_ERROR = "stream_error"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    CONNECTION_ERROR = "connection_error"
    UNFINISHED = "unfinished"
    NOT_SENT = "not_sent"


CENSORED = (Status.TIMEOUT, Status.UNFINISHED)
FAILED = (
    Status.HTTP_ERROR,
    Status.REJECTED,
    Status.STREAM_ERROR,
    Status.TRUNCATED,
    Status.EMPTY,
    Status.CONNECTION_ERROR,
    *CENSORED,
)


class TokenSource(StrEnum):
    """Who counted the output tokens, best first."""

    USAGE = "usage"
    ENGINE = "engine"
    TOKENIZER = "tokenizer"
    CHUNKS = "chunks"


class Clock(StrEnum):
    """Who stamped the arrivals: the kernel when the packet came in, or the event loop after the read."""

    KERNEL = "kernel"
    LOOP = "loop"


@dataclass(slots=True)
class Record:
    """What happened to one request: one row of `records.parquet`.

    class_name is stored as `class`. The chunk lists run in parallel, one element per token-bearing chunk: arrival,
    tokens borne (null: not known), kind, index of the read that brought it, the client's lag behind the kernel's stamp.
    chunk_merged: the read held more than one packet, so that the stamp is the last packet's.
    repeats: the earlier request that this one repeats by plan, word for word.   planned_cancel_ns: given up by plan so
    long after it was sent.   accepting_ns: how long the other side took to accept the connection and the request.
    resends: how often it was sent again, on a new connection.
    reported_*: the server's own figures about the request, beside what was measured of it.
    retokenized_tokens: of a few replies, the tokens of its text by the model's own tokenizer, counted after the load.
    """

    request: int
    class_name: str = "default"
    session: int | None = None
    turn: int = 0
    user: int | None = None
    phase: str = Phase.MEASURE
    loop: str = Loop.OPEN
    after: int | None = None
    think_ns: int | None = None
    repeats: int | None = None
    planned_cancel_ns: int | None = None
    due_ns: int | None = None
    dispatched_ns: int | None = None
    connected_ns: int | None = None
    sent_ns: int | None = None
    accepting_ns: int | None = None
    resends: int = 0
    headers_ns: int | None = None
    first_byte_ns: int | None = None
    first_token_ns: int | None = None
    first_answer_ns: int | None = None
    last_token_ns: int | None = None
    finish_ns: int | None = None
    done_ns: int | None = None
    status: str = Status.NOT_SENT
    http_status: int | None = None
    error: str | None = None
    finish_reason: str | None = None
    requested_prompt_tokens: int | None = None
    requested_output_tokens: int | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    token_source: str | None = None
    retokenized_tokens: int | None = None
    cached: bool | None = None
    chunk_ns: Sequence[int] | None = None
    chunk_tokens: Sequence[int | None] | None = None
    chunk_kind: Sequence[str] | None = None
    chunk_read: Sequence[int] | None = None
    chunk_lag_ns: Sequence[int] | None = None
    chunk_merged: Sequence[bool] | None = None
    connection_reused: bool | None = None
    clock: str | None = None
    worker: int = 0
    backend: str | None = None
    reported_total_ms: float | None = None
    reported_memory_peak_bytes: float | None = None
    text: str | None = field(default=None, repr=False)


COLUMNS = tuple(f.name for f in fields(Record) if f.name != "text")
_RENAMED = {"class_name": "class"}
_TEXT = ("class_name", "phase", "loop", "status", "token_source", "clock", "backend", "finish_reason")
_INT32 = ("turn", "user", "resends", "http_status", "worker", "retokenized_tokens")
_FLOAT = ("reported_total_ms", "reported_memory_peak_bytes")
_OTHER = {"error": "string", "cached": "bool_", "connection_reused": "bool_"}


def column_name(attribute: str) -> str:
    """The stored name of a field of Record."""
    return _RENAMED.get(attribute, attribute)


@cache
def record_schema() -> pa.Schema:
    """The Arrow schema of `records.parquet`; texts are stored apart."""
    import pyarrow as pa

    lists = {
        "chunk_ns": pa.list_(pa.int64()),
        "chunk_tokens": pa.list_(pa.int32()),
        "chunk_kind": pa.list_(pa.string()),
        "chunk_read": pa.list_(pa.int32()),
        "chunk_lag_ns": pa.list_(pa.int64()),
        "chunk_merged": pa.list_(pa.bool_()),
    }

    def arrow_type(name: str) -> pa.DataType:
        if name in lists:
            return lists[name]
        if name in _TEXT:
            return pa.string()
        if name in _INT32:
            return pa.int32()
        if name in _FLOAT:
            return pa.float64()
        return getattr(pa, _OTHER.get(name, "int64"))()

    return pa.schema([(column_name(name), arrow_type(name)) for name in COLUMNS])


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of a gauge.

    at_ns: monotonic time of the middle of the reading (absolute, same clock as the trial's T0).
    width_ns: from before it to after it: the moment read lies within at_ns +- width_ns / 2.
    source: "engine" (its processes together), "client" (the process that sends the load; absent when the engine runs
    inside it), "host", "gpu0", "server". name: what was read, with its unit at the end ("rss_bytes").
    scope: "server" when it describes the machine under test, "client" when only the machine that sends the load.
    """

    at_ns: int
    source: str
    name: str
    value: float
    scope: str = "server"
    width_ns: int = 0


@cache
def sample_schema() -> pa.Schema:
    """The Arrow schema of `samples.parquet`: one row per reading."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("at_ns", pa.int64()),
            ("source", text),
            ("name", text),
            ("value", pa.float64()),
            ("scope", text),
            ("width_ns", pa.int64()),
        ]
    )


def to_columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Records as columns under their stored names."""
    return {column_name(name): [getattr(record, name) for record in records] for name in COLUMNS}
