"""Records and samples: what is stored of a run, and under which names.

The columns are a contract: reports, notebooks and other tools read them. All `_ns` columns are integer offsets from the
trial's T0 on the monotonic clock; null means that it did not happen or is not known.

Format history (`FORMAT_VERSION` is written into every manifest; a change of a column raises it):
0  was never frozen; a column that such a run lacks is read as null
1  frozen: docs/run-format.md describes it, tests/data/runs/v1 holds runs of it
2  planned_cancel_ns, accepting_ns, resends, finish_ns
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

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


_NS = "ns from T0"
_NEVER = "it did not happen"
_SILENT = "the server did not say"
_NO_CHUNKS = "not streamed, no token came, or chunks were not kept"


@dataclass(frozen=True, slots=True)
class Column:
    """What a stored column or key means.

    Attributes:
        unit: "" where a text or a number of things needs none.
        null: What it means that there is no value; "" where there always is one.
        bits: Of a whole number in a table.
    """

    meaning: str
    unit: str = ""
    null: str = ""
    bits: int = 64


@dataclass(slots=True)
class Record:
    """What happened to one request: one row of `records.parquet`.

    class_name is stored as `class`. The chunk lists run in parallel, one element per token-bearing chunk.
    """

    request: Annotated[int, Column("Number of the request in the plan, from 0; the key of the table.")]
    class_name: Annotated[str, Column("Class of traffic; `default` where the scenario has none.")] = "default"
    session: Annotated[int | None, Column("Conversation it belongs to.", null="not part of a conversation")] = None
    turn: Annotated[int, Column("Turn in its conversation, from 0.", bits=32)] = 0
    user: Annotated[int | None, Column("User who sent it.", null="open loop: there are no users", bits=32)] = None
    phase: Annotated[str, Column("`warmup`, `measure` or `cooldown`, by its due time.")] = Phase.MEASURE
    loop: Annotated[str, Column("`open`: due by the plan; `closed`: due when an earlier request had ended.")] = (
        Loop.OPEN
    )
    after: Annotated[int | None, Column("The request it waited for.", null="it waited for none")] = None
    think_ns: Annotated[
        int | None, Column("Pause by plan between the end of that request and its own due time.", "ns", "open loop")
    ] = None
    repeats: Annotated[
        int | None, Column("The earlier request whose words it repeats by plan.", null="words of its own")
    ] = None
    planned_cancel_ns: Annotated[
        int | None, Column("How long after it was sent the client gives it up by plan.", "ns", "it does not")
    ] = None
    due_ns: Annotated[
        int | None, Column("When it had to be sent. Latencies count from here.", _NS, "its turn never came")
    ] = None
    dispatched_ns: Annotated[int | None, Column("When the client took it up.", _NS, _NEVER)] = None
    connected_ns: Annotated[
        int | None, Column("When a connection opened for it was ready.", _NS, "an open connection was used, or none")
    ] = None
    sent_ns: Annotated[int | None, Column("When its last byte was handed to the system.", _NS, _NEVER)] = None
    accepting_ns: Annotated[
        int | None,
        Column(
            "How long the other side took to accept the connection and to take the request.",
            "ns",
            "not sent over a network",
        ),
    ] = None
    resends: Annotated[
        int, Column("How often it was sent again: its connection had been closed before the request was read.", bits=32)
    ] = 0
    headers_ns: Annotated[int | None, Column("Arrival of the first byte of the response's head.", _NS, _NEVER)] = None
    first_byte_ns: Annotated[int | None, Column("Arrival of the first byte of the body.", _NS, _NEVER)] = None
    first_token_ns: Annotated[
        int | None, Column("Arrival of the first token-bearing chunk.", _NS, "not streamed, or no token came")
    ] = None
    first_answer_ns: Annotated[
        int | None, Column("Arrival of the first chunk of the answer (content or tool call).", _NS, "none came")
    ] = None
    last_token_ns: Annotated[
        int | None, Column("Arrival of the last token-bearing chunk.", _NS, "not streamed, or no token came")
    ] = None
    finish_ns: Annotated[
        int | None, Column("Arrival of the event that said why generation ended.", _NS, "not streamed, or none said so")
    ] = None
    done_ns: Annotated[
        int | None, Column("End of the request: of the response, of the failure, or of our patience.", _NS, "not sent")
    ] = None
    status: Annotated[
        str,
        Column(
            "`ok`, `http_error`, `rejected` (429, 503), `stream_error`, `truncated`, `empty`, `timeout`, `cancelled` "
            "(by plan), `connection_error`, `unfinished` (cut off at the trial's end), `not_sent`."
        ),
    ] = Status.NOT_SENT
    http_status: Annotated[
        int | None, Column("Status code of the response.", null="no response, or no HTTP", bits=32)
    ] = None
    error: Annotated[str | None, Column("What went wrong, as the server or the system said it.", null="nothing")] = None
    finish_reason: Annotated[
        str | None, Column("Why generation ended, in the server's word, such as `stop` or `length`.", null=_SILENT)
    ] = None
    requested_prompt_tokens: Annotated[
        int | None, Column("Length of the new prompt by plan.", "tokens", "a prompt from a file, uncounted")
    ] = None
    requested_output_tokens: Annotated[
        int | None, Column("The most tokens asked for, or exactly so many.", "tokens")
    ] = None
    prompt_tokens: Annotated[int | None, Column("Tokens of the whole prompt.", "tokens", _SILENT)] = None
    output_tokens: Annotated[
        int | None, Column("Tokens of the reply, counted by `token_source`.", "tokens", "nobody could count them")
    ] = None
    reasoning_tokens: Annotated[int | None, Column("Those of them that were reasoning.", "tokens", _SILENT)] = None
    cached_tokens: Annotated[
        int | None, Column("Tokens of the prompt that the server took from a cache.", "tokens", _SILENT)
    ] = None
    token_source: Annotated[
        str | None,
        Column(
            "Who counted: `usage` (the server's total), `engine` (per chunk), `tokenizer` (ours, of the text), "
            "`chunks`.",
            null="nobody",
        ),
    ] = None
    retokenized_tokens: Annotated[
        int | None,
        Column(
            "Tokens of the reply's text by the model's tokenizer, counted after the load for a few replies.",
            "tokens",
            "not among those counted again",
            bits=32,
        ),
    ] = None
    cached: Annotated[bool | None, Column("Whether the whole reply came from a result cache.", null=_SILENT)] = None
    chunk_ns: Annotated[Sequence[int] | None, Column("Arrival of each token-bearing chunk.", _NS, _NO_CHUNKS)] = None
    chunk_tokens: Annotated[
        Sequence[int | None] | None,
        Column("Tokens of each of them; an element is null where not known.", "tokens", _NO_CHUNKS, bits=32),
    ] = None
    chunk_kind: Annotated[
        Sequence[str] | None, Column("`content`, `reasoning` or `tool`, for each.", null=_NO_CHUNKS)
    ] = None
    chunk_read: Annotated[
        Sequence[int] | None, Column("Number of the read that brought each.", null=_NO_CHUNKS, bits=32)
    ] = None
    chunk_lag_ns: Annotated[
        Sequence[int] | None,
        Column(
            "How long each waited in the kernel before it was read.", "ns", "stamped by the event loop, or as above"
        ),
    ] = None
    chunk_merged: Annotated[
        Sequence[bool] | None,
        Column("Whether its stamp may be that of a later packet in the same read.", null=_NO_CHUNKS),
    ] = None
    connection_reused: Annotated[
        bool | None, Column("Whether the connection had carried a request before.", null="none was used")
    ] = None
    clock: Annotated[
        str | None,
        Column("Who stamped the arrivals: `kernel`, or the event `loop` after the read.", null="none arrived"),
    ] = None
    worker: Annotated[int, Column("Number of the load process that sent it, from 0.", bits=32)] = 0
    backend: Annotated[
        str | None, Column("Which of several servers answered, in its own word or by address.", null=_SILENT)
    ] = None
    reported_total_ms: Annotated[
        float | None, Column("The server's own time for the request; not measured here.", "ms", _SILENT)
    ] = None
    reported_memory_peak_bytes: Annotated[
        float | None, Column("The server's own peak of memory; not measured here.", "bytes", _SILENT)
    ] = None
    text: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of a gauge: one row of `samples.parquet`."""

    at_ns: Annotated[
        int, Column("Middle of the reading on the monotonic clock; T0 of a trial (`t0_ns`) is on the same.", "ns")
    ]
    source: Annotated[str, Column("What was read: see the table below.")]
    name: Annotated[str, Column("Which of its values, with its unit at the end: see the table below.")]
    value: Annotated[float, Column("The reading.")]
    scope: Annotated[
        str, Column("`server`: the machine under test; `client`: only the machine that sends the load.")
    ] = "server"
    width_ns: Annotated[
        int,
        Column(
            "How long the reading took: the moment lies within `at_ns` ± half of it.",
            "ns",
            "0 in runs of format 0, which did not store it",
        ),
    ] = 0


def columns_of(table: type[Record] | type[Sample]) -> dict[str, Column]:
    """Return what each column means, by its stored name; texts of replies are stored apart."""
    return {column_name(name): about for name, (about, _) in _described(table).items()}


def column_name(attribute: str) -> str:
    """Return the stored name of an attribute of Record."""
    return "class" if attribute == "class_name" else attribute


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
    return {column_name(name): [getattr(record, name) for record in records] for name in _attributes()}


@cache
def _attributes() -> tuple[str, ...]:
    return tuple(_described(Record))


def _described(table: type) -> dict[str, tuple[Column, Any]]:
    """Return the description and the type of each attribute that has a description."""
    hints = get_type_hints(table, include_extras=True).items()
    return {name: (hint.__metadata__[0], get_args(hint)[0]) for name, hint in hints if get_origin(hint) is Annotated}


def _schema(table: type) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [(column_name(name), _arrow_type(kind, about)) for name, (about, kind) in _described(table).items()]
    )


def _arrow_type(kind: Any, about: Column) -> pa.DataType:
    import pyarrow as pa

    (kind,) = [one for one in get_args(kind) if one is not NoneType] if get_origin(kind) is UnionType else [kind]
    if get_origin(kind) is Sequence:
        return pa.list_(_arrow_type(get_args(kind)[0], about))
    return {
        int: pa.int64() if about.bits == 64 else pa.int32(),
        float: pa.float64(),
        bool: pa.bool_(),
        str: pa.string(),
    }[kind]
