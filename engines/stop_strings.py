"""Replies that end at a stop string, which may come in pieces."""

from __future__ import annotations

from collections.abc import Sequence

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


__all__ = ["StopStrings", "stop_strings"]
