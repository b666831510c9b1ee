"""Generated token ids to text, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TextPieces:
    """Takes ids one at a time and gives the text that is certain.

    Held back: a character whose bytes are not all there, and what may be the beginning of a stop text.
    `stopped`: a stop text was reached; it and what follows it is not part of the reply.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._step = DecodeStream(skip_special_tokens=False).step
        self._stops = stops
        self._incomplete: list[int] = []
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """The text that can be given now that this token has come."""
        text: str | None = self._step(self._tokenizer, token)
        if text is None:
            self._incomplete.append(token)
            return ""
        self._incomplete.clear()
        return self._until_stop(text) if self._stops else text

    def rest(self) -> str:
        """What is still held back when the reply ends."""
        if self.stopped:
            return ""
        tail: str = self._tokenizer.decode(self._incomplete, skip_special_tokens=False) if self._incomplete else ""
        return self._held + tail

    def _until_stop(self, text: str) -> str:
        text = self._held + text
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How many last characters of the text are the first of the stop text."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)


__all__ = ["TextPieces"]
