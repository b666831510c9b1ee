"""Text from tokens, part by part. Incomplete characters and the possible start of a stop string are held back."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from engines.base import Chunk, ChunkKind, Request


def stop_strings(request: Request) -> tuple[str, ...]:
    """Return the stop strings of a request."""
    stop = request.sampling.get("stop") or ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


class StopStrings:
    """Filter that passes text up to the first stop string, and holds back the possible start of one.

    Attributes:
        stopped: A stop string was found. Neither it nor what follows belongs to the reply.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped = False

    def take(self, text: str) -> str:
        """Return the text that is certain after this one."""
        if not self._stops:
            return text
        text = self._held + text
        if found := [at for at in map(text.find, self._stops) if at >= 0]:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        """Return the text held back at the end of the reply."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return how many of the text's last characters may begin the stop string."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)


class TokenText:
    """Text of one reply.

    Attributes:
        stopped: `push` has found a stop string, and must not be called again. The text before it is shown.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self._text = StopStrings(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tokens = 0

    @property
    def stopped(self) -> bool:
        return self._text.stopped

    def push(self, piece: bytes) -> Chunk | None:
        """Return the text to show after one more token; None while it is held back."""
        self._tokens += 1
        text = self._text.take(self._decoder.decode(piece))
        return self._shown(text) if text or self.stopped else None

    def finish(self) -> Chunk | None:
        """Return the text held back, with U+FFFD for an incomplete character; None if there is none."""
        text = "" if self.stopped else self._text.rest() + self._decoder.decode(b"", final=True)
        return self._shown(text) if text or self._tokens else None

    def _shown(self, text: str) -> Chunk:
        tokens, self._tokens = self._tokens, 0
        return Chunk(ChunkKind.CONTENT, text, tokens)
