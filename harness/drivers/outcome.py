"""Outcome of a request over the wire: status, error and pieces, from the bytes that arrived."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from engines.base import TOKEN_BEARING, ChunkKind
from engines.dialects.base import Dialect, Pieces
from engines.dialects.framing import Framing, framing_of
from engines.secrets import masked
from harness.drivers.http.response import ResponseReader
from harness.drivers.timeline import Outcome
from harness.errors import by_name
from harness.records import Status

_ERROR, _UNREADABLE, _USAGE = ChunkKind.ERROR, ChunkKind.UNREADABLE, ChunkKind.USAGE
_STREAMED = (Framing.EVENTS, Framing.LINES)
_BUSY = (429, 503)


@dataclass(frozen=True, slots=True)
class Cut:
    """End of a request before its reply was complete: its status and one sentence."""

    status: Status
    reason: str


def judge(reply: ResponseReader, dialect: Dialect, cut: Cut | None, *, streams: bool) -> Outcome:
    """Return the outcome of a request (`streams`: it requested a stream). A cut request keeps its pieces.

    No content of a reply raises here, whatever its dialect does with it: only the request fails.
    """
    status = reply.status or None
    try:
        response = reply.wire_response()
    except ValueError as unreadable:
        return Outcome(cut.status if cut else Status.STREAM_ERROR, str(unreadable), status)
    framing = framing_of(response)
    streamed = streams and framing in _STREAMED
    try:
        chunks = dialect.decode(response) if reply.headers_read is not None else Pieces([], [])
    except Exception as failure:  # a plugin's dialect may raise anything
        why = by_name("the reply cannot be decoded", failure)
        return Outcome(cut.status if cut else Status.STREAM_ERROR, why, status)
    kinds = set(chunks.kinds)
    server_error = chunks.chunks[chunks.kinds.index(_ERROR)].text if _ERROR in kinds else None
    odd = _odd(chunks, kinds)
    if cut is not None and cut.status is not Status.CONNECTION_ERROR:
        return Outcome(cut.status, cut.reason, status, chunks, streamed, *odd)
    if reply.failure is not None:
        return Outcome(Status.HTTP_ERROR, reply.failure, status, chunks, streamed, *odd)
    if cut is not None and not reply.started:
        return Outcome(Status.CONNECTION_ERROR, cut.reason, status)
    if response.status >= 300 or framing is Framing.PAGE:
        return _refused(response.status, response.headers.get("location"), server_error)
    if reply.too_long is not None:
        return Outcome(Status.TRUNCATED, f"the reply was cut off: {reply.too_long}", status, chunks, streamed, *odd)
    if server_error is None and cut is None and _UNREADABLE in kinds:
        server_error = unreadable_end(chunks)
    verdict, error = stream_verdict(
        kinds, server_error, cut.reason if cut else None, streamed=streamed, generates=dialect.generates
    )
    return Outcome(verdict, error, status, chunks, streamed, *odd)


def unreadable_end(chunks: Pieces) -> str | None:
    """Return the unreadable event with which a reply ended: no token follows it, and there is no finish reason."""
    if any(chunk.finish_reason is not None for chunk in chunks.chunks):
        return None
    after = next((at for at in reversed(range(len(chunks))) if chunks.kinds[at] in TOKEN_BEARING), -1)
    behind = chunks.chunks[after + 1 :]
    return next((chunk.text for chunk in behind if chunk.kind is _UNREADABLE), None)


def _odd(chunks: Pieces, kinds: set[ChunkKind]) -> tuple[int, int]:
    """Count the unreadable events and the impossible token counts."""
    unreadable = chunks.kinds.count(_UNREADABLE) if _UNREADABLE in kinds else 0
    stated = chunks.chunks[chunks.kinds.index(_USAGE) :] if _USAGE in kinds else []
    return unreadable, sum(1 for chunk in stated if chunk.kind is _USAGE and chunk.text)


def stream_verdict(
    kinds: Set[ChunkKind], server_error: str | None, cut_off: str | None, *, streamed: bool, generates: bool = True
) -> tuple[Status, str | None]:
    """Return the status and the error of a reply from the kinds of its pieces.

    A reply of a dialect that does not generate is complete if it holds its result.

    The error that the server reported takes precedence over `cut_off`, the reason of an early end.
    """
    if server_error is not None:
        return Status.STREAM_ERROR, server_error
    finished = ChunkKind.FINISH in kinds
    if cut_off is not None and not (finished and streamed):
        return Status.TRUNCATED, f"the reply was cut off: {cut_off}"
    if streamed and kinds and not finished:
        return Status.TRUNCATED, "the reply ended without a finish reason"
    if not generates:
        return (Status.OK, None) if finished else (Status.EMPTY, "the reply contains no result")
    if TOKEN_BEARING.isdisjoint(kinds):
        return Status.EMPTY, "the reply contains no token"
    return Status.OK, None


def _refused(status: int, location: str | None, server_error: str | None) -> Outcome:
    if 300 <= status < 400:
        to = f" to {masked(location, 200)}" if location else ""
        why = f"the server redirects{to} (HTTP {status}); write that address as url"
        return Outcome(Status.HTTP_ERROR, why, status)
    return Outcome(Status.REJECTED if status in _BUSY else Status.HTTP_ERROR, server_error, status)
