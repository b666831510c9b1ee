"""Text from tokens, piece by piece; what is no whole character yet, or may begin a stop string, is held back.

Replies that end at a stop string, which may come in pieces.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from engines.base import Request


def stop_strings(request: Request) -> tuple[str, ...]:
    """Those that a request names."""
    stop = request.sampling.get("stop") or ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


class StopStrings:
    """Lets text through up to the first stop string; what may begin one is held back.

    `stopped`: one was met; it and what follows it is not part of the reply.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def take(self, text: str) -> str:
        """The text that is certain now that this has come."""
        if not self._stops:
            return text
        text = self._held + text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """What is still held back when the reply ends."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many last characters of the text are the first of the stop string."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)


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
