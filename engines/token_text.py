"""Text from tokens, piece by piece; what is no whole character yet, or may begin a stop string, is held back."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from engines.stop_strings import StopStrings


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that can be shown, and how many tokens brought it."""

    text: str
    tokens: int


class TokenText:
    """The text of one reply.

    After `push` has met a stop string, `stopped` is true and nothing more is to be pushed. What stands before the stop
    string is shown, the stop string is not.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._text = StopStrings(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met."""
        return self._text.stopped

    def push(self, piece: bytes) -> Piece | None:
        """The text that can be shown after one more token; None while it is held back."""
        self._tokens += 1
        text = self._text.take(self._decoder.decode(piece))
        return self._shown(text) if text or self.stopped else None

    def finish(self) -> Piece | None:
        """What was held back, with U+FFFD for what never became a character; None if nothing was."""
        text = "" if self.stopped else self._text.rest() + self._decoder.decode(b"", final=True)
        return self._shown(text) if text or self._tokens else None

    def _shown(self, text: str) -> Piece:
        tokens, self._tokens = self._tokens, 0
        return Piece(text, tokens)
