"""Counts per chunk, from a server that states its count so far in every event."""

from __future__ import annotations

from engines.base import TOKEN_BEARING, Chunk, ChunkKind
from engines.dialects.base import Pieces

_USAGE = ChunkKind.USAGE


def count_chunks(pieces: Pieces) -> Pieces:
    """The pieces with the tokens that each bears, where the counts between them say so.

    An event without text that raises the count bore a token, unless it ends the reply. Counts that fall, and such as
    leave most pieces without any token, are no counts so far.
    """
    if pieces.kinds.count(_USAGE) < 2:
        return pieces
    events = _events(pieces)
    counted, before = dict[int, int](), 0
    waiting: list[int] = []
    bearing = 0
    for event in events:
        own = [at for at in event if pieces.kinds[at] in TOKEN_BEARING]
        bearing += len(own)
        count = _count(pieces, event)
        if count is None:
            waiting += own
            continue
        more, before = count - before, count
        if more < 0:
            return pieces
        if not waiting:
            _share(pieces, event, own, more, counted)
        waiting = []
    without = sum(1 for at, tokens in counted.items() if not tokens and pieces.chunks[at].text)
    return _with(pieces, counted) if counted and 2 * without <= bearing else pieces


def _events(pieces: Pieces) -> list[list[int]]:
    """The places of the pieces, event by event."""
    joined = set(pieces.joined)
    events: list[list[int]] = []
    for at in range(len(pieces)):
        if at in joined:
            events[-1].append(at)
        else:
            events.append([at])
    return events


def _count(pieces: Pieces, event: list[int]) -> int | None:
    counts = [usage.output_tokens for at in event if (usage := pieces.chunks[at].usage) is not None]
    return counts[-1] if counts else None


def _share(pieces: Pieces, event: list[int], own: list[int], more: int, counted: dict[int, int]) -> None:
    """Give an event's tokens to its pieces: to the last, for they came together."""
    if own:
        counted.update(dict.fromkeys(own[:-1], 0))
        counted[own[-1]] = more
        return
    kinds = {pieces.kinds[at] for at in event}
    if more and not kinds & {ChunkKind.FINISH, ChunkKind.ERROR} and ChunkKind.EMPTY in kinds:
        counted[next(at for at in event if pieces.kinds[at] is ChunkKind.EMPTY)] = more


def _with(pieces: Pieces, counted: dict[int, int]) -> Pieces:
    chunks = list(pieces.chunks)
    for at, tokens in counted.items():
        kind = chunks[at].kind
        chunks[at] = Chunk(kind if kind in TOKEN_BEARING else ChunkKind.CONTENT, chunks[at].text, tokens)
    return Pieces(pieces.reads, chunks, joined=pieces.joined)
