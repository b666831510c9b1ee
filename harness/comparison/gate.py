"""Gate: the two sides are started in turns, each start a stored run, until their difference is known.

A gate is a folder: `gate.json` has both scenarios, the seed and the numbers of pairs, `pair-01/base` and `pair-01/head`
are runs. So a gate that was killed goes on with its seeds, and `harness compare GATE` judges it again.

With `alternate` both sides of a pair are up at the same time, and their loads are cut into blocks that take turns. A
pair of starts remains the unit: only another start shows what a start changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.comparison.blocks import blocks_of, read_blocks
from harness.comparison.comparison import Comparison, check_alike, check_comparable, compare, match
from harness.comparison.differences import differences
from harness.comparison.gate_quality import with_scores
from harness.comparison.judgement import Word
from harness.comparison.rounds import BASE, HEAD, Start, interleaved, rounds
from harness.comparison.sides import Side, joined, read_side, seconds_of
from harness.errors import RunUnreadable, TrialFailed
from harness.scenario.compare import Pairs
from harness.scenario.margins import Margin, parse_margin, statistics_of
from harness.store.plans import read_plan, save_plan
from harness.store.run import MANIFEST, Run

STATE = "gate.json"
FORMAT = 2  # 1 knew no `alternate`


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
        budget_s: Time after which no further pair begins, that of stored pairs included.
        across: Kinds of differences that are meant.
        alternate: Whether both sides of a pair are up at the same time, and send blocks in turns.
    """

    base: Arm
    head: Arm
    seed: int
    pairs: Pairs
    budget_s: float | None = None
    fail_on: tuple[str, ...] = ()
    across: tuple[str, ...] = ()
    alternate: bool = False

    @property
    def margins(self) -> list[Margin]:
        return [parse_margin(text) for text in self.fail_on]

    def save(self, folder: Path) -> None:
        """Store the plan. Raises StorageFailed if it cannot be written."""
        save_plan(folder / STATE, FORMAT, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Gate:
        """Read a stored plan. Raises RunUnreadable, one sentence, if it is none."""
        return read_plan(folder / STATE, FORMAT, "a gate", cls._of)

    @classmethod
    def _of(cls, stored: dict[str, Any]) -> Gate:
        arms = [Arm(**stored[side]) for side in (BASE, HEAD)]
        named: dict[str, Any] = {name: tuple(stored[name]) for name in ("fail_on", "across")}
        named["alternate"] = stored.get("alternate", False)
        return cls(arms[0], arms[1], stored["seed"], Pairs(**stored["pairs"]), stored["budget_s"], **named)


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


@dataclass(frozen=True, slots=True)
class Place:
    """Start of an arm, and the folder of its run."""

    arm: Arm
    start: Start
    folder: Path


Measure = Callable[[Sequence[Place]], None]
Read = Callable[[int, str], Side]
"""Reads the run of a pair and side."""


def conduct(
    gate: Gate,
    folder: Path,
    measure: Measure,
    tell: Callable[[Look], None],
    unsettled: Collection[Word] = (Word.CANNOT_TELL,),
) -> Look:
    """Measure pairs until the difference is known, none are left, or the budget is spent; return the last look.

    Runs that are stored already are kept; of a gate that alternates, those of whole pairs. Their time counts.

    Args:
        measure: Makes the run of one start, or of both starts of a pair at the same time. Raises TrialFailed if the
            engine does not start.
        tell: Called at each look.
        unsettled: Words of a gating number for which further pairs are measured.

    Raises TrialFailed if a start measured nothing.
    """
    began, made, read = time.monotonic(), 0, _reader(gate, folder)
    kept_s = 0.0
    look: Look | None = None
    for pair in rounds(gate.pairs.most, gate.seed):
        before = pair[0].pair - 1
        if before in gate.pairs.looks and (look is None or look.pairs < before):
            spent = _is_spent(gate, time.monotonic() - began + kept_s, made)
            look = _look(gate, read, before, spent=spent, unsettled=unsettled)
            tell(look)
            if look.ended:
                return look
        kept = _kept_s(gate, folder, pair)
        made, kept_s = made + len(kept), kept_s + sum(kept)
        made += measure_pair(gate, folder, pair, measure)
        if not before:
            _check_first(gate, read)
    look = _look(gate, read, gate.pairs.most, spent=False)
    tell(look)
    return look


def measure_pair(gate: Gate, folder: Path, pair: Sequence[Start], measure: Measure) -> int:
    """Measure what a pair lacks; return the number of starts. Raises TrialFailed if one measured nothing."""
    arms = {BASE: gate.base, HEAD: gate.head}
    places = [Place(arms[start.side], start, run_folder(folder, start.pair, start.side)) for start in pair]
    lacking = [place for place in places if not is_whole(place.folder)]
    groups = [places] if gate.alternate and lacking else [[place] for place in lacking]
    for group in groups:
        measure(group)
        for place in group:
            if not is_whole(place.folder):
                where = f"pair {place.start.pair}, {place.start.side}"
                raise TrialFailed(f"{where}: nothing was measured; see {place.folder}")
    return sum(map(len, groups))


def _kept_s(gate: Gate, folder: Path, pair: Sequence[Start]) -> list[float]:
    """Return the seconds of each stored start of a pair that is kept; of two at the same time, half of the longer."""
    runs = [run_folder(folder, start.pair, start.side) for start in pair]
    each = [seconds_of(Run.open(run).manifest.cells) for run in runs if is_whole(run)]
    if not gate.alternate:
        return each
    return [max(each) / len(each)] * len(each) if len(each) == len(runs) else []


def _check_first(gate: Gate, read: Read) -> None:
    """Raise UsageError if the first pair shows that the sides are not comparable: only a run tells some facts."""
    base, head = read(1, BASE), read(1, HEAD)
    matched = match(base, head, gate.across)
    check_comparable(base, head, matched, differences(base, head, matched), gate.across)


def judged(gate: Gate, folder: Path) -> Look:
    """Judge the pairs that a gate has stored. Raises RunUnreadable if there are too few."""
    whole = 0
    while whole < gate.pairs.most and all(is_whole(run_folder(folder, whole + 1, side)) for side in (BASE, HEAD)):
        whole += 1
    if whole < gate.pairs.least:
        rest = f"the command that began it, with --out {folder}, measures the rest"
        raise RunUnreadable(f"{folder} has {whole} of at least {gate.pairs.least} pairs: {rest}")
    return _look(gate, _reader(gate, folder), max(one for one in gate.pairs.looks if one <= whole), spent=False)


def _look(
    gate: Gate, read: Read, pairs: int, *, spent: bool, unsettled: Collection[Word] = (Word.CANNOT_TELL,)
) -> Look:
    found = compare(*_sides(gate, read, pairs), gate.margins, gate.across, pairs=pairs, alpha=gate.pairs.alpha)
    found = replace(found, blocks=blocks_of(read(1, BASE)) if gate.alternate else 0)
    still_open = {row.word for row in found.gating if not row.margin.of_quality}  # more pairs do not settle quality
    if not still_open.intersection(unsettled) or found.word is Word.REGRESSED:
        return Look(found, pairs, "decided")
    if pairs == gate.pairs.most:
        return Look(found, pairs, "all pairs are measured")
    return Look(found, pairs, "the budget is spent" if spent else "")


def _reader(gate: Gate, folder: Path) -> Read:
    """Return a function that reads the run of a start, each once: a later look needs the earlier ones again."""
    names, statistics = {BASE: gate.base.name, HEAD: gate.head.name}, statistics_of(gate.margins)
    reader = read_blocks if gate.alternate else read_side

    @cache
    def read(pair: int, side: str) -> Side:
        return reader(names[side], run_folder(folder, pair, side), statistics)

    return read


def _sides(gate: Gate, read: Read, pairs: int) -> tuple[Side, Side]:
    """Read the runs of some pairs.

    Raises RunUnreadable if they were not made in turns, UsageError if those of a side differ in what must be the same.
    """
    parts = {side: [read(pair, side) for pair in range(1, pairs + 1)] for side in (BASE, HEAD)}
    each = {name: [time for side in sides for time in _begun(side, gate)] for name, sides in parts.items()}
    begun = sorted((time, name) for name, times in each.items() for time in times)
    if not interleaved([name for _, name in begun]):
        folder, row = parts[BASE][0].path.parent.parent, "the starts of one side came in a row"
        raise RunUnreadable(f"{folder}: {row}, so a drift of the machine would look like a change; run the gate again")
    for name, sides in parts.items():
        check_alike(name, sides, gate.across)
    base, head = joined(gate.base.name, parts[BASE]), joined(gate.head.name, parts[HEAD])
    return with_scores(parts[BASE][0].path.parent.parent, base, head)


def _begun(side: Side, gate: Gate) -> list[str]:
    """Return when a run began to measure; of a gate that alternates, when each of its blocks began."""
    times = sorted(trial.t0_utc for _, trial in side.manifest.trials() if trial.t0_utc)
    return times[: None if gate.alternate else 1] or [str(side.manifest.created_utc)]


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
