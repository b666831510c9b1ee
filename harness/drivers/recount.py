"""Recount: the texts of a few replies, kept for their tokens to be counted once more when the load is over."""

from __future__ import annotations

from collections.abc import Callable

from harness.records import Phase, Record, Status, TokenSource
from harness.timeline import Outcome, said

REPLIES = 200
CHARACTERS = 400_000
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Recount:
    """Keeps the replies of up to `replies` measured requests, spread evenly over all, and `characters` of them at most.

    Only where somebody else counted (the server's usage, the engine): the count by text is a second opinion. A text
    with a replacement character is left out: what the tokens were cannot be read from it any more.
    """

    def __init__(
        self, count: Callable[[str], int] | None, replies: int = REPLIES, characters: int = CHARACTERS
    ) -> None:
        self._count = count
        self._most, self._characters = replies, characters
        self._kept: dict[int, str] = {}
        self._step, self._until_next = 1, 1

    def see(self, record: Record, outcome: Outcome) -> None:
        """Look at a reply that has ended; nearly always that is all."""
        if self._count is None:
            return
        self._until_next -= 1
        if self._until_next:
            return
        if record.phase != Phase.MEASURE or record.status != Status.OK:
            self._until_next = 1  # the next one, then
            return
        self._until_next = self._step
        text = said(outcome) if record.token_source in (TokenSource.USAGE, TokenSource.ENGINE) else ""
        self._kept[record.request] = "" if _BROKEN in text else text  # looked at, for nothing
        if len(self._kept) > self._most:
            self._kept = {request: text for place, (request, text) in enumerate(self._kept.items()) if place % 2 == 0}
            self._step = self._until_next = 2 * self._step

    def counted(self) -> list[tuple[int, int]]:
        """(request, tokens by its text) of those kept, as far as `characters` goes. Takes time: not under load."""
        if self._count is None:
            return []
        found, left = [], self._characters
        for request, text in self._kept.items():
            left -= len(text)
            if text and left >= 0:
                found.append((request, self._count(text)))
        return found
