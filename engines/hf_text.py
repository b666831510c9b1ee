"""Generated token ids to text, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engines.stop_strings import StopStrings


class TextPieces:
    """Takes ids one at a time and gives the text that is certain.

    Held back: a character whose bytes are not all there, and what may be the beginning of a stop text.
    `stopped`: a stop text was reached; it and what follows it is not part of the reply.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._step = DecodeStream(skip_special_tokens=False).step
        self._text = StopStrings(stops)
        self._incomplete: list[int] = []

    @property
    def stopped(self) -> bool:
        """Whether a stop text was reached."""
        return self._text.stopped

    def add(self, token: int) -> str:
        """The text that can be given now that this token has come."""
        text: str | None = self._step(self._tokenizer, token)
        if text is None:
            self._incomplete.append(token)
            return ""
        self._incomplete.clear()
        return self._text.take(text)

    def rest(self) -> str:
        """What is still held back when the reply ends."""
        if self.stopped:
            return ""
        tail: str = self._tokenizer.decode(self._incomplete, skip_special_tokens=False) if self._incomplete else ""
        return self._text.rest() + tail


__all__ = ["TextPieces"]
