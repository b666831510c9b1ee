"""How a request over the wire ended: from what came in to a status, one sentence, and the pieces of the reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engines.base import TOKEN_BEARING, ChunkKind
from engines.dialects.base import Dialect, Pieces, ReadChunk
from harness.drivers.wire import ResponseReader
from harness.records import Status
from harness.timeline import Outcome

_ERROR = ChunkKind.ERROR
_BUSY = (429, 503)


@dataclass(frozen=True, slots=True)
class Cut:
    """A request was ended before its reply was complete: by whom (`status`), and one sentence."""

    status: Status
    reason: str


def judge(reply: ResponseReader, dialect: Dialect, cut: Cut | None, *, streams: bool) -> Outcome:
    """How a request ended. streams: the request asked for a stream. A cut request keeps what had arrived."""
    status = reply.status or None
    try:
        response = reply.wire_response()
    except ValueError as unreadable:
        return Outcome(cut.status if cut else Status.STREAM_ERROR, str(unreadable), status)
    kind = response.headers.get("content-type", "")
    streamed = streams and not ("json" in kind and "event-stream" not in kind and "ndjson" not in kind)
    chunks = dialect.decode(response) if reply.headers_read is not None else Pieces([], [])
    said = chunks.chunks[chunks.kinds.index(_ERROR)].text if _ERROR in chunks.kinds else None
    if cut is not None and cut.status is not Status.CONNECTION_ERROR:
        return Outcome(cut.status, cut.reason, status, chunks, streamed)
    if reply.failure is not None:
        return Outcome(Status.HTTP_ERROR, reply.failure, status, chunks, streamed)
    if cut is not None and not reply.started:
        return Outcome(Status.CONNECTION_ERROR, cut.reason, status)
    if response.status >= 300 or "html" in kind:
        return _refused(response.status, response.headers.get("location"), said)
    verdict, error = stream_verdict(chunks, said, cut.reason if cut else None, streamed=streamed)
    return Outcome(verdict, error, status, chunks, streamed)


def stream_verdict(
    chunks: Sequence[ReadChunk], said: str | None, cut_off: str | None, *, streamed: bool
) -> tuple[Status, str | None]:
    """The status of a reply that began well, and the sentence.

    said: the sentence of an ERROR chunk.   cut_off: why it ended early.
    """
    if said is not None and cut_off is None:
        return Status.STREAM_ERROR, said
    finished = any(chunk.kind is ChunkKind.FINISH for _, chunk in reversed(chunks))
    if cut_off is not None and not (finished and streamed):
        return Status.TRUNCATED, f"the reply was cut off: {cut_off}"
    if streamed and chunks and not finished:
        return Status.TRUNCATED, "the reply ended without saying that it was finished"
    if not any(chunk.kind in TOKEN_BEARING for _, chunk in chunks):
        return Status.EMPTY, "the reply holds no token"
    return Status.OK, None


def _refused(status: int, location: str | None, said: str | None) -> Outcome:
    if 300 <= status < 400:
        to = f" to {location[:200]}" if location else ""
        return Outcome(
            Status.HTTP_ERROR, f"the server redirects{to} (HTTP {status}); write that address as url", status
        )
    return Outcome(Status.REJECTED if status in _BUSY else Status.HTTP_ERROR, said, status)
