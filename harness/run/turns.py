"""Turns of two configurations that are up at the same time: one works while the other waits.

Both do the same steps: prepare, start, a block of requests each, stop. In each step both take a turn, and in
neighbouring blocks in opposite orders (ABBA), so that what drifts steadily adds as much to either.
"""

from __future__ import annotations

from collections.abc import Callable

PREPARE, START, FIRST_BLOCK = range(3)
"""Steps; further blocks follow, and then the stop."""


def in_order(step: int) -> bool:
    """Return whether the side that comes first in a pair comes first in this step."""
    return step <= START or (step - FIRST_BLOCK) % 2 == 0


class Turns:
    """Order of two sides."""

    def __init__(self) -> None:
        self.sides = (Turn(self), Turn(self))
        self._is_closed = False

    def close(self) -> None:
        """Let neither side work any more."""
        self._is_closed = True

    def grant(self) -> None:
        """Let the next side work, unless one does, or has not come yet."""
        if self._is_closed or any(side.is_at_work or not (side.go or side.has_left) for side in self.sides):
            return
        waiting = [side for side in self.sides if side.go is not None]
        if not waiting:
            return
        step = min(side.step for side in waiting)
        ordered = self.sides if in_order(step) else self.sides[::-1]
        next(side for side in ordered if side.go is not None and side.step == step).begin()


class Turn:
    """Place of a side.

    Attributes:
        step: Number of the step that it waits for, or does.
        go: Lets it work; None unless it waits.
    """

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.step = -1
        self.go: Callable[[], None] | None = None
        self.is_at_work = self.has_left = False

    def ask(self, go: Callable[[], None]) -> None:
        """End the step, and wait for the next."""
        self.step, self.go, self.is_at_work = self.step + 1, go, False
        self._turns.grant()

    def leave(self) -> None:
        """End the last step."""
        self.go, self.is_at_work, self.has_left = None, False, True
        self._turns.grant()

    def begin(self) -> None:
        """Let the side work."""
        assert self.go is not None
        go, self.go, self.is_at_work = self.go, None, True
        go()
