"""Gate: the two sides are started in turns, each start a stored run, until their difference is known.

A gate is a folder: `gate.json` has both scenarios, the seed and the numbers of pairs, `pair-01/base` and `pair-01/head`
are runs. So a gate that was killed goes on with its seeds, and `harness compare GATE` judges it again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.comparison.comparison import Comparison, compare
from harness.comparison.judgement import Word
from harness.comparison.rounds import BASE, HEAD, Start, interleaved, starts
from harness.comparison.sides import Side, joined, read_side
from harness.errors import RunUnreadable, TrialFailed
from harness.scenario.compare import Pairs
from harness.scenario.margins import Margin, parse_margin, statistics_of
from harness.store.run import MANIFEST, Run
from harness.store.streams import storage_errors, write_atomically

STATE = "gate.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Arm:
    """One side of a gate.

    Attributes:
        name: As people call it.
        scenario: Resolved scenario, as a manifest has it.
        only: Configurations of it, as `--only`.
    """

    name: str
    scenario: dict[str, Any]
    only: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Gate:
    """Plan of a gate.

    Attributes:
        fail_on: Numbers that gate, as written; none for the defaults.
        budget_s: Time after which no further pair begins.
        across: Kinds of differences that are meant.
    """

    base: Arm
    head: Arm
    seed: int
    pairs: Pairs
    budget_s: float | None = None
    fail_on: tuple[str, ...] = ()
    across: tuple[str, ...] = ()

    @property
    def margins(self) -> list[Margin]:
        return [parse_margin(text) for text in self.fail_on]

    def save(self, folder: Path) -> None:
        """Store the plan. Raises StorageFailed if it cannot be written."""
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / STATE, json.dumps({"format": FORMAT, **asdict(self)}, indent=2).encode())

    @classmethod
    def read(cls, folder: Path) -> Gate:
        """Read a stored plan. Raises RunUnreadable, one sentence, if it is none."""
        try:
            stored = json.loads((folder / STATE).read_bytes())
            if stored["format"] > FORMAT:
                raise RunUnreadable(f"{folder / STATE} is of a newer version of harness; use that")
            arms = [Arm(**stored[side]) for side in (BASE, HEAD)]
            named = {name: tuple(stored[name]) for name in ("fail_on", "across")}
            return cls(arms[0], arms[1], stored["seed"], Pairs(**stored["pairs"]), stored["budget_s"], **named)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunUnreadable(f"{folder / STATE} is no plan of a gate: {type(error).__name__}: {error}") from error


def run_folder(folder: Path, pair: int, side: str) -> Path:
    """Return the folder of a start's run."""
    return folder / f"pair-{pair:02}" / side


@dataclass(frozen=True, slots=True)
class Look:
    """State of a gate after some pairs.

    Attributes:
        ended: Why no further pair begins; "" if one does.
    """

    comparison: Comparison
    pairs: int
    ended: str


Measure = Callable[[Arm, Start, Path], None]
Read = Callable[[int, str], Side]
"""Reads the run of a pair and side."""


def conduct(gate: Gate, folder: Path, measure: Measure, tell: Callable[[Look], None]) -> Look:
    """Measure pairs until the difference is known, none are left, or the budget is spent; return the last look.

    Runs that are stored already are kept.

    Args:
        measure: Makes the run of a start in a folder. Raises TrialFailed if the engine does not start.
        tell: Called at each look.

    Raises TrialFailed if a start measured nothing.
    """
    began, made, read = time.monotonic(), 0, _reader(gate, folder)
    look: Look | None = None
    for start in starts(gate.pairs.most, gate.seed):
        if start.pair - 1 in gate.pairs.looks and (look is None or look.pairs < start.pair - 1):
            look = _look(gate, read, start.pair - 1, spent=_is_spent(gate, time.monotonic() - began, made))
            tell(look)
            if look.ended:
                return look
        place = run_folder(folder, start.pair, start.side)
        if not is_whole(place):
            measure(gate.base if start.side == BASE else gate.head, start, place)
            made += 1
            if not is_whole(place):
                raise TrialFailed(f"pair {start.pair}, {start.side}: nothing was measured; see {place}")
    look = _look(gate, read, gate.pairs.most, spent=False)
    tell(look)
    return look


def judged(gate: Gate, folder: Path) -> Look:
    """Judge the pairs that a gate has stored. Raises RunUnreadable if there are too few."""
    whole = 0
    while whole < gate.pairs.most and all(is_whole(run_folder(folder, whole + 1, side)) for side in (BASE, HEAD)):
        whole += 1
    if whole < gate.pairs.least:
        rest = f"the command that began it, with --out {folder}, measures the rest"
        raise RunUnreadable(f"{folder} has {whole} of at least {gate.pairs.least} pairs: {rest}")
    return _look(gate, _reader(gate, folder), max(one for one in gate.pairs.looks if one <= whole), spent=False)


def _look(gate: Gate, read: Read, pairs: int, *, spent: bool) -> Look:
    found = compare(*_sides(gate, read, pairs), gate.margins, gate.across, pairs=pairs, alpha=gate.pairs.alpha)
    if Word.CANNOT_TELL not in {row.word for row in found.gating} or found.word is Word.REGRESSED:
        return Look(found, pairs, "decided")
    if pairs == gate.pairs.most:
        return Look(found, pairs, "all pairs are measured")
    return Look(found, pairs, "the budget is spent" if spent else "")


def _reader(gate: Gate, folder: Path) -> Read:
    """Return a function that reads the run of a start, each once: a later look needs the earlier ones again."""
    names, statistics = {BASE: gate.base.name, HEAD: gate.head.name}, statistics_of(gate.margins)

    @cache
    def read(pair: int, side: str) -> Side:
        return read_side(names[side], run_folder(folder, pair, side), statistics)

    return read


def _sides(gate: Gate, read: Read, pairs: int) -> tuple[Side, Side]:
    """Read the runs of some pairs. Raises RunUnreadable if they were not made in turns."""
    parts = {side: [read(pair, side) for pair in range(1, pairs + 1)] for side in (BASE, HEAD)}
    begun = sorted((_begun(side), name) for name, sides in parts.items() for side in sides)
    if not interleaved([name for _, name in begun]):
        folder, row = parts[BASE][0].path.parent.parent, "the starts of one side came in a row"
        raise RunUnreadable(f"{folder}: {row}, so a drift of the machine would look like a change; run the gate again")
    return joined(gate.base.name, parts[BASE]), joined(gate.head.name, parts[HEAD])


def _begun(side: Side) -> str:
    """Return when the first trial of a run began."""
    times = [trial.t0_utc for _, trial in side.manifest.trials() if trial.t0_utc]
    return min(times, default=str(side.manifest.created_utc))


def is_whole(run: Path) -> bool:
    """Return whether a folder holds a complete run."""
    if not (run / MANIFEST).exists():
        return False
    try:
        return Run.open(run).manifest.status == "complete"
    except RunUnreadable:
        return False


def _is_spent(gate: Gate, elapsed_s: float, made: int) -> bool:
    """Return whether the next two pairs would end after the budget, at the speed of those before."""
    if gate.budget_s is None:
        return False
    each_s = elapsed_s / made if made else 0.0
    return elapsed_s + 4 * each_s > gate.budget_s
