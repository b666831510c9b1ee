"""Records and samples: the stored columns of a run, with their meaning.

The columns are a contract: reports, notebooks and other tools read them. All `_ns` columns are integer offsets from the
trial's T0 on the monotonic clock. Null: it did not happen, or it is unknown.

Format history (`FORMAT_VERSION` is written into every manifest; a change of a column raises it):
0  was never frozen; a column that such a run lacks is read as null
1  frozen: docs/run-format.md describes it, tests/data/runs/v1 holds runs of it
2  planned_cancel_ns, held_ns, accepting_ns, resends, retries, attempt_sent_ns, attempt_done_ns, attempt_end, finish_ns,
   reported_prompt_ms, reported_generation_ms
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT_VERSION = 2
TURN_NOT_SENT = "the conversation was"
"""Beginning of the `error` of a turn that was not sent because an earlier turn had failed."""
READ_LATE_NS = 300_000
"""Wait in the kernel beyond which a read counts as late: later packets had time to join the first."""
TOO_LATE = "this client came to send it only after its time-out"
"""Beginning of the `error` of a planned request that was not sent because the load generator was late."""
EXHAUSTED = ("Too many open files", "Cannot assign requested address", "No buffer space available")
"""Parts of an `error` of this machine: it had no connection left. The server is not the cause."""
OUT_OF_MEMORY = re.compile(
    r"out.of.memory|\boom\b|bad_alloc|memoryerror|(cannot|can't|could not|failed to|unable to) allocate|"
    r"(insufficient|not enough) (gpu |system |device )?memory",
    re.IGNORECASE,
)
"""Words of an `error` of a server whose memory ran out."""


def exhausted(error: str | None) -> bool:
    """Return whether this machine had no connection left."""
    return error is not None and any(text in error for text in EXHAUSTED)


class Phase(StrEnum):
    """Part of a trial to which a request belongs, by its due time."""

    WARMUP = "warmup"
    MEASURE = "measure"
    COOLDOWN = "cooldown"


class Loop(StrEnum):
    """Open: sent when due by the plan. Closed: sent when the user's previous request has ended.

    Partly open, of a trial: conversations begin by the plan (open rows), later turns follow replies (closed rows).
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
FAILED = tuple(one for one in Status if one not in (Status.OK, Status.CANCELLED, Status.NOT_SENT))


class TokenSource(StrEnum):
    """Source of the number of output tokens, best first."""

    USAGE = "usage"
    ENGINE = "engine"
    TOKENIZER = "tokenizer"
    CHUNKS = "chunks"


class Clock(StrEnum):
    """Clock of the arrivals: the kernel when the packet came in, or the event loop after the read."""

    KERNEL = "kernel"
    LOOP = "loop"


_NS = "ns from T0"
_NEVER = "it did not happen"
_SILENT = "not reported by the server"
_NO_TOKEN = "not streamed, or no token came"
_ONE_ATTEMPT = "there was one attempt"
_NO_CHUNKS = "not streamed, no token came, or chunks were not kept"


@dataclass(frozen=True, slots=True)
class Column:
    """Meaning of a stored column or key.

    Attributes:
        unit: "" for a text or a count.
        null: Meaning of a missing value; "" if there always is one.
        bits: Width of an integer column.
    """

    meaning: str
    unit: str = ""
    null: str = ""
    bits: int = 64


def about(meaning: str, unit: str = "", null: str = "", bits: int = 64) -> dict[str, Column]:
    """Return the metadata of a stored attribute. The arguments are those of `Column`."""
    return {"column": Column(meaning, unit, null, bits)}


def column(meaning: str, unit: str = "", null: str = "", bits: int = 64, *, default: Any = None) -> Any:
    """Return the field of a stored attribute that has a default. The other arguments are those of `Column`."""
    return field(default=default, metadata=about(meaning, unit, null, bits))


@dataclass(slots=True)
class Record:
    """Outcome of one request: one row of `records.parquet`.

    class_name is stored as `class`. The chunk lists run in parallel, one element per chunk with tokens.
    """

    request: int = field(metadata=about("Number of the request in the plan, from 0; the key of the table."))
    class_name: str = column("Class of traffic; `default` if the scenario has none.", default="default")
    session: int | None = column("Conversation it belongs to.", null="not part of a conversation")
    turn: int = column("Turn in its conversation, from 0.", bits=32, default=0)
    user: int | None = column("User who sent it.", null="open loop", bits=32)
    phase: str = column("`warmup`, `measure` or `cooldown`, by its due time.", default=Phase.MEASURE)
    loop: str = column("`open`: due by the plan; `closed`: due when an earlier request ended.", default=Loop.OPEN)
    after: int | None = column("The request it waited for.", null="it waited for none")
    think_ns: int | None = column("Planned pause between the end of that request and due.", "ns", "open loop")
    repeats: int | None = column("The earlier request whose words it repeats by plan.", null="words of its own")
    planned_cancel_ns: int | None = column("Planned time from sent until the client cancels it.", "ns", "not planned")
    due_ns: int | None = column("When it had to be sent.", _NS, "its turn never came")
    held_ns: int | None = column(
        "Time from due until one of the places of `max_concurrency` was free; 0 if one was.",
        "ns",
        "no such cap, or not sent",
    )
    dispatched_ns: int | None = column("When the load generator took it up.", _NS, _NEVER)
    connected_ns: int | None = column("When its new connection was ready.", _NS, "an open connection was used, or none")
    sent_ns: int | None = column("When its last byte was handed to the system.", _NS, _NEVER)
    accepting_ns: int | None = column(
        "Time in which the other side accepted connection and request.", "ns", "no network"
    )
    resends: int = column(
        "How often it was sent again because its connection had closed before the request was read.", bits=32, default=0
    )
    retries: int = column(
        "How often it was sent again after a failure, as `retries` asks. Sent is of the first attempt, the reply of "
        "the last.",
        bits=32,
        default=0,
    )
    attempt_sent_ns: Sequence[int | None] | None = column(
        "When each attempt was handed to the system; null for one that was not.", _NS, _ONE_ATTEMPT
    )
    attempt_done_ns: Sequence[int | None] | None = column("End of each attempt.", _NS, _ONE_ATTEMPT)
    attempt_end: Sequence[str] | None = column(
        "How each ended: `HTTP 503`, `connect` (its connection failed), and the last one as `status`.",
        null=_ONE_ATTEMPT,
    )
    headers_ns: int | None = column("Arrival of the first byte of the response's head.", _NS, _NEVER)
    first_byte_ns: int | None = column("Arrival of the first byte of the body.", _NS, _NEVER)
    first_token_ns: int | None = column("Arrival of the first chunk with tokens.", _NS, _NO_TOKEN)
    first_answer_ns: int | None = column("Arrival of the first answer chunk (content or tool call).", _NS, "none came")
    last_token_ns: int | None = column("Arrival of the last chunk with tokens.", _NS, _NO_TOKEN)
    finish_ns: int | None = column("Arrival of the event with the finish reason.", _NS, "not streamed, or none")
    done_ns: int | None = column("End of the response, of the failure or of the time-out.", _NS, "not sent")
    status: str = column(
        "`ok`, `http_error`, `rejected` (429, 503), `stream_error`, `truncated`, `empty`, `timeout`, `cancelled` "
        "(by plan), `connection_error`, `unfinished` (cut off at the trial's end), `not_sent`.",
        default=Status.NOT_SENT,
    )
    http_status: int | None = column("Status code of the response.", null="no response, or no HTTP", bits=32)
    error: str | None = column("Cause of the failure, in the words of the server or the system.", null="no failure")
    finish_reason: str | None = column("Finish reason in the server's word: `stop`, `length`, ...", null=_SILENT)
    requested_prompt_tokens: int | None = column("Planned length of the new prompt.", "tokens", "a prompt from a file")
    requested_output_tokens: int | None = column("Requested maximum, or exact number, of output tokens.", "tokens")
    prompt_tokens: int | None = column("Tokens of the whole prompt.", "tokens", _SILENT)
    output_tokens: int | None = column("Tokens of the reply, counted by `token_source`.", "tokens", "not counted")
    reasoning_tokens: int | None = column("Reasoning tokens among them.", "tokens", _SILENT)
    cached_tokens: int | None = column("Tokens of the prompt that the server took from a cache.", "tokens", _SILENT)
    token_source: str | None = column(
        "Source: `usage` (the server's total), `engine` (per chunk), `tokenizer` (ours, of the text), `chunks`.",
        null="no count",
    )
    retokenized_tokens: int | None = column(
        "Tokens of the text by the model's tokenizer, counted after the load for a few replies.",
        "tokens",
        "not counted",
        bits=32,
    )
    cached: bool | None = column("Whether the whole reply came from a result cache.", null=_SILENT)
    chunk_ns: Sequence[int] | None = column("Arrival of each chunk with tokens.", _NS, _NO_CHUNKS)
    chunk_tokens: Sequence[int | None] | None = column(
        "Tokens of each; null if unknown.", "tokens", _NO_CHUNKS, bits=32
    )
    chunk_kind: Sequence[str] | None = column("Kind of each: `content`, `reasoning` or `tool`.", null=_NO_CHUNKS)
    chunk_read: Sequence[int] | None = column("Number of the read that brought each.", null=_NO_CHUNKS, bits=32)
    chunk_lag_ns: Sequence[int] | None = column(
        "Time each waited in the kernel to be read.", "ns", "clock is `loop`, or as above"
    )
    chunk_merged: Sequence[bool] | None = column(
        "Whether a later packet of its read may have set its stamp.", null=_NO_CHUNKS
    )
    connection_reused: bool | None = column("Whether its connection was used before.", null="no connection")
    clock: str | None = column("Clock of the arrivals: `kernel`, or event `loop` after the read.", null="none arrived")
    worker: int = column("Number of the load process that sent it, from 0.", bits=32, default=0)
    backend: str | None = column("Which of several servers answered, in its own word or by address.", null=_SILENT)
    reported_total_ms: float | None = column("Duration as the server reports it, not measured here.", "ms", _SILENT)
    reported_prompt_ms: float | None = column(
        "Time for the prompt as the server reports it, not measured here.", "ms", _SILENT
    )
    reported_generation_ms: float | None = column(
        "Time for the output tokens as the server reports it, not measured here.", "ms", _SILENT
    )
    reported_memory_peak_bytes: float | None = column("Peak memory as the server reports it.", "bytes", _SILENT)
    text: str | None = field(default=None, repr=False)


def read_late(record: Record) -> bool:
    """Return whether the first token of a reply was read late, together with later ones."""
    reads, lags = record.chunk_read, record.chunk_lag_ns
    return bool(lags and reads and len(reads) > 1 and lags[0] > READ_LATE_NS and reads[0] == reads[1])


@dataclass(frozen=True, slots=True)
class Sample:
    """Reading of a gauge: one row of `samples.parquet`."""

    at_ns: int = field(metadata=about("Middle of the reading, on the monotonic clock as `t0_ns` of a trial.", "ns"))
    source: str = field(metadata=about("What was read: see the table below."))
    name: str = field(metadata=about("Which of its values, with its unit at the end: see the table below."))
    value: float = field(metadata=about("The reading."))
    scope: str = column("`server`: machine under test; `client`: only the load generator's machine.", default="server")
    width_ns: int = column(
        "Duration of the reading, which lies within `at_ns` ± half of it.", "ns", "0 in runs of format 0", default=0
    )


def columns_of(table: type[Record] | type[Sample]) -> dict[str, Column]:
    """Return the meaning of each column by its stored name; texts of replies are stored apart."""
    return {_stored_name(name): one for name, one in _described(table).items()}


@cache
def record_schema() -> pa.Schema:
    """Return the Arrow schema of `records.parquet`."""
    return _schema(Record)


@cache
def sample_schema() -> pa.Schema:
    """Return the Arrow schema of `samples.parquet`."""
    return _schema(Sample)


def to_columns(records: Sequence[Record]) -> dict[str, list[Any]]:
    """Return records as columns under their stored names."""
    return {_stored_name(name): [getattr(record, name) for record in records] for name in _described(Record)}


def _stored_name(attribute: str) -> str:
    return "class" if attribute == "class_name" else attribute


def _described(table: type[Any]) -> dict[str, Column]:
    """Return the description of each stored attribute."""
    return {one.name: one.metadata["column"] for one in fields(table) if one.metadata}


def _schema(table: type[Any]) -> pa.Schema:
    import pyarrow as pa

    kinds = get_type_hints(table)
    return pa.schema([(_stored_name(name), _arrow_type(kinds[name], one)) for name, one in _described(table).items()])


def _arrow_type(kind: Any, about: Column) -> pa.DataType:
    import pyarrow as pa

    (kind,) = [one for one in get_args(kind) if one is not NoneType] if get_origin(kind) is UnionType else [kind]
    if get_origin(kind) is Sequence:
        return pa.list_(_arrow_type(get_args(kind)[0], about))
    whole = pa.int64() if about.bits == 64 else pa.int32()
    return {int: whole, float: pa.float64(), bool: pa.bool_(), str: pa.string()}[kind]
