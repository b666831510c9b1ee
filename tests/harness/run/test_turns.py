"""Turns of two sides: one works at a time, in ABBA order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from harness.run.turns import FIRST_BLOCK, Turn, Turns


class Worker:
    """A side that notes when it works."""

    def __init__(self, name: str, turn: Turn, log: list[str]) -> None:
        self.name, self.turn, self.log = name, turn, log

    def ask(self) -> None:
        """End what it does, and wait for the next turn."""
        self.turn.ask(lambda: self.log.append(self.name))


def sides() -> tuple[Worker, Worker, list[str]]:
    """Two sides that have not come yet."""
    turns, log = Turns(), list[str]()
    first, second = turns.sides
    return Worker("A", first, log), Worker("B", second, log), log


def test_blocks_take_turns_as_abba() -> None:
    """After both have prepared and started, the first one first; never both at a time."""
    one, other, log = sides()
    one.ask()
    assert log == [], "the other has not come"
    other.ask()
    for _ in range(2 * FIRST_BLOCK + 8 - 1):
        {"A": one, "B": other}[log[-1]].ask()
    assert "".join(log) == "AB" * FIRST_BLOCK + "ABBAABBA"


@given(some.integers(0, 12))
def test_one_that_leaves_does_not_hold_up_the_other(steps: int) -> None:
    """It may end at its start, or between two blocks."""
    one, other, log = sides()
    other.ask()
    one.ask()
    for _ in range(steps):
        {"A": one, "B": other}[log[-1]].ask()
    gone, left = (one, other) if log[-1] == "A" else (other, one)
    gone.turn.leave()
    before = len(log)
    assert log[-1] == left.name
    left.ask()
    assert log[before:] == [left.name]


def test_closed_turns_let_nobody_work() -> None:
    """Both end where they wait."""
    one, other, log = sides()
    one.turn.ask(lambda: log.append("A"))
    Turns.close(one.turn._turns)
    other.ask()
    assert log == []
