"""All known answers by the run in which they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.known_answers import elsewhere, machine, over_a_socket, quality, start, virtual
from tests.known_answers.case import Case
from tests.known_answers.measured import Measured

Run = Callable[[Path], Measured]


@dataclass(frozen=True, slots=True)
class Group:
    """title: where they are measured.   run: what measures them.   repeated: whether it gives the same every time."""

    title: str
    run: Run
    cases: tuple[Case, ...]
    repeated: bool = False


GROUPS = (
    Group("virtual time", virtual.run, virtual.CASES, repeated=True),
    Group("a socket", over_a_socket.run, over_a_socket.CASES),
    Group("a start", start.run, start.CASES),
    Group("a server's machine", machine.run, machine.CASES),
    Group("pages", elsewhere.run, elsewhere.CASES),
    Group("given distributions", quality.run, quality.CASES, repeated=True),
)


def every() -> Iterator[tuple[Group, Case]]:
    """Each case with its group."""
    for group in GROUPS:
        for case in group.cases:
            yield group, case
