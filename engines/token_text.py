"""Text from tokens, piece by piece; what is no whole character yet, or may begin a stop string, is held back."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass


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
        self._stop = tuple(one for one in stop if one)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._tokens = 0
        self.stopped = False

    def push(self, piece: bytes) -> Piece | None:
        """The text that can be shown after one more token; None while it is held back."""
        self._tokens += 1
        return self._advance(self._decoder.decode(piece))

    def finish(self) -> Piece | None:
        """What was held back, with U+FFFD for what never became a character; None if nothing was."""
        text = "" if self.stopped else self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        return self._shown(text) if text or self._tokens else None

    def _advance(self, text: str) -> Piece | None:
        if not self._stop:
            return self._shown(text) if text else None
        self._held += text
        found = [at for at in (self._held.find(one) for one in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return self._shown(self._held[: min(found)])
        keep = max(_overlap(self._held, one) for one in self._stop)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return self._shown(shown) if shown else None

    def _shown(self, text: str) -> Piece:
        tokens, self._tokens = self._tokens, 0
        return Piece(text, tokens)


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the first ones of `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
