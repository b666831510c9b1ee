"""Counts per chunk, from a server that states its count so far in every event."""

from __future__ import annotations

from engines.base import TOKEN_BEARING, ChunkKind
from engines.dialects.answer_values import piece
from engines.dialects.base import Pieces

_USAGE = ChunkKind.USAGE
_ENDS = (ChunkKind.FINISH, ChunkKind.ERROR)


def count_chunks(pieces: Pieces) -> Pieces:
    """The pieces with the tokens that each bears, where the counts between them say so.

    An event without text that raises the count bore a token, unless it ends the reply. Counts that fall, and such as
    leave most pieces without any token, are no counts so far.
    """
    if pieces.kinds.count(_USAGE) < 2:
        return pieces
    counted = _counted(pieces)
    if counted is None:
        return pieces
    chunks = list(pieces.chunks)
    for at, tokens in counted.items():
        kind = chunks[at].kind
        chunks[at] = piece(kind if kind in TOKEN_BEARING else ChunkKind.CONTENT, chunks[at].text, tokens)
    return Pieces(pieces.reads, chunks, joined=pieces.joined)


def _counted(pieces: Pieces) -> dict[int, int] | None:
    """The tokens of each place of which they are known; None where the counts are no counts so far."""
    joined, counted = set(pieces.joined), dict[int, int]()
    before = bearing = without = 0
    event, waiting = _Event(), False
    for at, kind in enumerate(pieces.kinds):
        if at not in joined:
            waiting = waiting or bool(event.own)
            event = _Event()
        if kind in TOKEN_BEARING:
            event.own.append(at)
            bearing += 1
        elif kind is _USAGE and (usage := pieces.chunks[at].usage) is not None and usage.output_tokens is not None:
            more, before = usage.output_tokens - before, usage.output_tokens
            if more < 0:
                return None
            if not waiting:
                without += bool(event.own) and not more
                event.share(more, counted)
            waiting, event.own = False, []
        elif kind is ChunkKind.EMPTY:
            event.empty = at
        elif kind in _ENDS:
            event.ends = True
    return counted if counted and 2 * without <= bearing else None


class _Event:
    """The places of one event's pieces: with tokens, without a text; and whether it ends the reply."""

    __slots__ = ("empty", "ends", "own")

    def __init__(self) -> None:
        self.own: list[int] = []
        self.empty: int | None = None
        self.ends = False

    def share(self, more: int, counted: dict[int, int]) -> None:
        """Give the event's tokens to its pieces: to the last, for they came together."""
        if self.own:
            counted.update(dict.fromkeys(self.own[:-1], 0))
            counted[self.own[-1]] = more
        elif more and self.empty is not None and not self.ends:
            counted[self.empty] = more
