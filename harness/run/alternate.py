"""Two runs at the same time: both engines are up, and each works while the other waits (`harness.run.turns`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import TrialFailed, UsageError
from harness.run.entries import first_manifest
from harness.run.lock import run_to_ourselves
from harness.run.references import Scoring
from harness.run.run import (
    RunInProgress,
    begun,
    close_references,
    ending,
    find_references,
    run_cell,
    stop_on_signals,
)
from harness.run.turns import Turns
from harness.scenario.model import Scenario
from harness.schedule.cells import Cell, Skip
from harness.store.manifest import CellEntry
from harness.store.run import RunWriter
from harness.units import format_bytes


@dataclass(frozen=True, slots=True)
class Planned:
    """Run to be made beside another: its name for people, scenario, cells and folder."""

    name: str
    scenario: Scenario
    cells: Sequence[Cell | Skip]
    folder: Path


def execute_both(
    first: Planned, second: Planned, *, command: str, tell: Callable[[str], None] = lambda _: None
) -> list[RunWriter]:
    """Run the cells of two scenarios, the first of each beside the first of the other, and store both runs.

    Args:
        tell: Receives a sentence on the memory of both.

    Raises UsageError if both do not fit, TrialFailed if a side fails, RunDirectoryExists and StorageFailed like
    `execute`.
    """
    planned = (first, second)
    cells = [[cell for cell in side.cells if isinstance(cell, Cell)] for side in planned]
    check_paired(planned)
    room = _Room(tell)
    with contextlib.ExitStack() as stack:
        runs = [_opened(side, stack, room, number, command) for number, side in enumerate(planned)]
        try:
            asyncio.run(_run_all(runs, [*zip(*cells, strict=True)], room))
        finally:
            for run in runs:
                close_references(run)
    if room.refusal:
        raise UsageError(room.refusal)
    if room.failure:
        raise TrialFailed(room.failure)
    return [run.writer for run in runs]


def check_paired(sides: Sequence[Planned]) -> None:
    """Raise UsageError unless both sides have as many configurations, with as many loads."""
    counts = [[len(cell.trials) for cell in side.cells if isinstance(cell, Cell)] for side in sides]
    if counts[0] != counts[1]:
        names, numbers = [side.name for side in sides], [len(one) for one in counts]
        what = f"{numbers[0]} and {numbers[1]} configurations" if numbers[0] != numbers[1] else "different loads"
        raise UsageError(f"--alternate: {names[0]} and {names[1]} have {what}; choose alike ones with --only")


def _opened(side: Planned, stack: contextlib.ExitStack, room: _Room, number: int, command: str) -> RunInProgress:
    writer = RunWriter(side.folder, first_manifest(side.scenario, side.cells, command))
    stack.enter_context(run_to_ourselves(side.folder))
    cells = [cell for cell in side.cells if isinstance(cell, Cell)]
    once = Scoring(wanted=False)  # both sides are scored once, before their pairs
    run = RunInProgress(side.scenario, writer, _Listener(room, number), cells=cells, scoring=once)
    find_references(run)
    room.sides.append(_Occupant(side.name, run))
    return run


async def _run_all(runs: Sequence[RunInProgress], cells: Sequence[tuple[Cell, ...]], room: _Room) -> None:
    with stop_on_signals(*runs), contextlib.ExitStack() as stack:
        for run in runs:
            stack.enter_context(ending(run))
        for number, pair in enumerate(cells, 1):
            if any(run.stop.level for run in runs):
                break
            turns = room.begin()
            steps = []
            for run, cell, turn in zip(runs, pair, turns.sides, strict=True):
                run.turn = turn
                steps.append(_run_one(run, cell, begun(run, cell, number, len(cells)), room))
            await _both(steps, runs)


async def _run_one(run: RunInProgress, cell: Cell, entry: CellEntry, room: _Room) -> None:
    """Run a cell in its turns. If it does not come to its end, the other ends, too."""
    assert run.turn is not None
    mine = asyncio.Event()
    run.turn.ask(mine.set)
    try:
        await mine.wait()
        await run_cell(run, cell, entry)
    finally:
        room.left(run, entry)
        run.turn.leave()


async def _both(steps: Sequence[Any], runs: Sequence[RunInProgress]) -> None:
    """Await both. Raises the first exception, when the other has ended, too."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    _, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    if waiting:
        for run in runs:
            _end(run)
        await asyncio.wait(waiting)
    for task in tasks:
        task.result()


def _end(run: RunInProgress) -> None:
    while run.stop.level < 2:
        run.stop.raise_level()


@dataclass(slots=True)
class _Occupant:
    name: str
    run: RunInProgress
    needs: dict[str, Any] | None = None


@dataclass(slots=True)
class _Room:
    """What both sides share: memory, and the end of both if one ends early.

    Attributes:
        refusal: Why both do not fit; "" if they do, or nobody knows.
        failure: How the first that failed did; "" if none has.
    """

    tell: Callable[[str], None]
    turns: Turns = field(default_factory=Turns)
    sides: list[_Occupant] = field(default_factory=list)
    refusal: str = ""
    failure: str = ""

    def begin(self) -> Turns:
        """Return the turns of the next two configurations, whose memory is not known yet."""
        for side in self.sides:
            side.needs = None
        self.turns = Turns()
        return self.turns

    def waits(self, number: int, needs: dict[str, Any]) -> None:
        """Take the memory that a side needs before its start. When both are known, go on only if they fit together."""
        self.sides[number].needs = needs
        one, other = (side.needs for side in self.sides)
        if one is None or other is None or one["where"] != other["where"]:
            return
        free, where = min(one["free"], other["free"]), "here" if one["where"] == "cpu" else "on the GPUs"
        sizes = " and ".join(f"{side.name} {format_bytes(side.needs['bytes'])}" for side in self.sides if side.needs)
        fits = one["bytes"] + other["bytes"] <= free
        told = f"at least {sizes}; {format_bytes(free)} is free {where}"
        if fits:
            self.tell(f"both stay up: they need {told}")
            return
        self.refusal = f"--alternate keeps both sides up, and they do not fit: they need {told}; leave --alternate out"
        self.turns.close()
        for side in self.sides:
            _end(side.run)

    def started(self, number: int, pids: Sequence[int]) -> None:
        """Tell the other side's readings about processes that wait while it works."""
        self.sides[1 - number].run.beside += pids

    def left(self, run: RunInProgress, entry: CellEntry) -> None:
        """End the other side, and keep the reason, if a configuration ended before all was measured."""
        if entry.status == "complete" or self.refusal:
            return
        name = next(side.name for side in self.sides if side.run is run)
        reasons = [entry.reason, *(trial.reason for trial in entry.trials)]
        if not run.stop.level and not self.failure:
            self.failure = f"{name}: {next(filter(None, reasons), 'nothing was measured')}"
        for side in self.sides:
            _end(side.run)


class _Listener:
    """Watcher of a side."""

    def __init__(self, room: _Room, number: int) -> None:
        self._room, self._number = room, number

    def cell_begins(self, cell: CellEntry, number: int, total: int) -> None:
        """Show nothing."""

    def event(self, cell: CellEntry, event: dict[str, Any]) -> None:
        """Pass on what concerns the other side."""
        if event["event"] == "waiting" and event["needs"]:
            self._room.waits(self._number, event["needs"])
        elif event["event"] == "started":
            self._room.started(self._number, event["engine"]["pids"])

    def stopping(self, level: int) -> None:
        """Show nothing."""
