"""Bisection: pairs of starts of the good version and of others, until the version that made the change is known.

A bisection is a folder: `bisect.json` has the plan, `ends` has the pairs of the good and the bad version,
`step-N-VERSION` those of another version. All that is known is computed from the stored runs. So a bisection that was
killed goes on where it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.comparison.comparison import Row, compare
from harness.comparison.gate import Arm, Gate, Look, Place, is_whole, run_folder
from harness.comparison.gate import conduct as conduct_gate
from harness.comparison.judgement import Word
from harness.comparison.rounds import BASE, HEAD, Start, starts
from harness.comparison.sides import read_side
from harness.errors import ExitCode, TrialFailed, UsageError
from harness.history.bisection.search import Found, Level, judge, levels
from harness.history.bisection.versions import Version
from harness.scenario.compare import Pairs
from harness.scenario.margins import Margin, Scale, parse_margin, statistics_of
from harness.seeding import generator
from harness.store.plans import read_plan, save_plan
from harness.store.streams import storage_errors, write_atomically

STATE, ENDS, LEFT_OUT = "bisect.json", "ends", "left-out.txt"
FORMAT = 1
_SEEDS = 33  # of the seed's random numbers
_CODES = {"found": ExitCode.HOLDS, "poor data": ExitCode.INVALID}


@dataclass(frozen=True, slots=True)
class Plan:
    """Plan of a bisection.

    Attributes:
        versions: The good one, and those after it up to the bad one.
        fail_on: Number that changed, with its margin, as written.
        pairs: Pairs of the good and the bad version.
        most: Greatest number of pairs in all.
        scenario: Resolved scenario of the good version.
        sets: Keys of the scenario that differ between versions, with `{commit}`.
        build: Command that builds a version, with `{commit}`; None without.
        only: Configurations of the scenario, as `--only`.
    """

    versions: tuple[Version, ...]
    fail_on: str
    seed: int
    pairs: Pairs
    most: int
    scenario: dict[str, Any]
    sets: tuple[str, ...] = ()
    build: str | None = None
    only: dict[str, str] = field(default_factory=dict)

    @property
    def margin(self) -> Margin:
        return parse_margin(self.fail_on)

    @property
    def steps(self) -> int:
        """Number of versions after the good one."""
        return len(self.versions) - 1

    @property
    def gate(self) -> Gate:
        """Gate of the good and the bad version."""
        good, bad = (Arm(one.name, self.scenario, self.only) for one in (self.versions[0], self.versions[-1]))
        return Gate(good, bad, self.seed, self.pairs, None, (self.fail_on,))

    def save(self, folder: Path) -> None:
        """Store the plan. Raises StorageFailed if it cannot be written."""
        save_plan(folder / STATE, FORMAT, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """Read a stored plan. Raises RunUnreadable, one sentence, if it is none."""
        return read_plan(folder / STATE, FORMAT, "a bisection", cls._of)

    @classmethod
    def _of(cls, stored: dict[str, Any]) -> Plan:
        versions = tuple(Version(**one) for one in stored.pop("versions"))
        pairs, sets = Pairs(**stored.pop("pairs")), tuple(stored.pop("sets"))
        return cls(versions=versions, pairs=pairs, sets=sets, **stored)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a bisection so far.

    Attributes:
        ends: Good against bad; None before it is measured.
        row: Number that is followed, of `ends`; None if the versions do not differ.
        left_out: Steps that cannot be measured, with the reason.
        poor: Steps with pairs of poor data, with the reason.
        pairs: Pairs measured in all.
        ended: Why no further pair begins; "" if one does.
    """

    ends: Look | None
    row: Row | None
    found: Found
    levels: list[Level]
    left_out: dict[int, str]
    poor: dict[int, str]
    pairs: int
    ended: str


Measure = Callable[[Version, Start, Path], None]
"""Makes the run of a start in a folder. Raises TrialFailed if the version cannot be built or started."""


def conduct(
    plan: Plan, folder: Path, measure: Measure, tell: Callable[[Outcome], None], budget_s: float | None = None
) -> Outcome:
    """Measure pairs until a version is named, none can be told further, or the budget is spent; return the outcome.

    Raises TrialFailed if the good or the bad version cannot be measured.

    Args:
        budget_s: Time after which no further pair begins; the good and the bad version are measured in any case.
    """
    began, there = time.monotonic(), _whole_pairs(folder / ENDS)
    ends = _measure_ends(plan, folder, measure)
    row = _changed(ends)
    read, measured = _reader(plan, folder, row), ends.pairs - there
    while True:
        outcome = _outcome(plan, folder, ends, row, read)
        elapsed_s = time.monotonic() - began
        each_s = elapsed_s / max(measured, 1)
        if not outcome.ended and budget_s is not None and elapsed_s + each_s > budget_s:
            outcome = replace(outcome, ended="the budget is spent")
        tell(outcome)
        if outcome.ended or outcome.found.ask is None:
            return outcome
        _measure_step(plan, folder, outcome.found.ask, measure)
        measured += 1


def _measure_ends(plan: Plan, folder: Path, measure: Measure) -> Look:
    """Measure the good and the bad version against each other until it is clear."""
    good, bad = plan.versions[0], plan.versions[-1]

    def measure_starts(places: Sequence[Place]) -> None:
        for one in places:
            measure(good if one.start.side == BASE else bad, one.start, one.folder)

    return conduct_gate(plan.gate, folder / ENDS, measure_starts, lambda _: None)


def _changed(ends: Look) -> Row | None:
    """Return the number that surely changed, the most changed of several loads; None if none did."""
    changed = [row for row in ends.comparison.gating if row.word in (Word.REGRESSED, Word.IMPROVED)]
    return max(changed, key=lambda row: abs(row.change.at), default=None)


def step_folder(plan: Plan, folder: Path, step: int) -> Path:
    """Return the folder of a version's pairs."""
    if step == plan.steps:
        return folder / ENDS
    return folder / f"step-{step:03}-{plan.versions[step].short.replace('/', '-')}"


def _measure_step(plan: Plan, folder: Path, step: int, measure: Measure) -> None:
    """Measure one more pair of a version; one that cannot be measured is left out from then on."""
    place = step_folder(plan, folder, step)
    number = _whole_pairs(place) + 1
    seed = int(generator(plan.seed, _SEEDS, step).integers(2**32))
    for start in starts(number, seed):
        run = run_folder(place, start.pair, start.side)
        if start.pair < number or is_whole(run):
            continue
        version = plan.versions[0] if start.side == BASE else plan.versions[step]
        try:
            measure(version, start, run)
            why = "" if is_whole(run) else f"nothing was measured; see {run}"
        except TrialFailed as error:
            why = str(error)
        if why and start.side == BASE:
            raise TrialFailed(f"the good version could not be measured again: {why}")
        if why:
            with storage_errors(place):
                place.mkdir(parents=True, exist_ok=True)
                write_atomically(place / LEFT_OUT, why.encode())
            return


def _whole_pairs(place: Path) -> int:
    number = 0
    while all(is_whole(run_folder(place, number + 1, side)) for side in (BASE, HEAD)):
        number += 1
    return number


Read = Callable[[int, int], tuple[float, str]]
"""Reads the change in a step's pair, NaN if it is unknown, and why its data is poor."""


def _reader(plan: Plan, folder: Path, followed: Row | None) -> Read:
    """Return a function that reads each stored pair once."""
    statistics = statistics_of([plan.margin])

    @cache
    def read(step: int, pair: int) -> tuple[float, str]:
        place = step_folder(plan, folder, step)
        base, head = (read_side(side, run_folder(place, pair, side), statistics) for side in (BASE, HEAD))
        try:
            rows = compare(base, head, [plan.margin], pairs=1).gating
        except UsageError as error:  # no load has this number: all of its requests failed
            return math.nan, str(error)
        for row in rows:
            if followed is not None and row.keys == followed.keys:
                return row.change.at, row.doubt
        return math.nan, f"it lacks {plan.margin.text}"

    return read


def _outcome(plan: Plan, folder: Path, ends: Look, row: Row | None, read: Read) -> Outcome:
    """Return what all stored pairs say."""
    if row is None:
        nothing, doubt = Found((), tuple(range(1, plan.steps + 1)), None), _doubt(ends)
        poor = {plan.steps: doubt} if doubt else {}
        return Outcome(
            ends, None, nothing, [], {}, poor, ends.pairs, "the good and the bad version do not surely differ"
        )
    answers: dict[int, list[float]] = {}
    left_out: dict[int, str] = {}
    made = 0
    poor = {plan.steps: row.doubt} if row.doubt else {}
    for step in range(1, plan.steps):
        place = step_folder(plan, folder, step)
        if (place / LEFT_OUT).exists():
            left_out[step] = (place / LEFT_OUT).read_text(encoding="utf-8")
        pairs = [read(step, pair) for pair in range(1, _whole_pairs(place) + 1)]
        made += len(pairs)
        if doubt := next((doubt for _, doubt in pairs if doubt), ""):
            poor[step] = doubt
        if known := [value for value, _ in pairs if math.isfinite(value)]:
            answers[step] = known
        elif pairs:
            left_out[step] = poor.get(step, "its number is zero or unknown")
    answers[plan.steps] = _logarithms(row)
    found, made = judge(plan.steps, answers, left_out), made + len(answers[plan.steps])
    each, why = levels(plan.steps, answers), _why_ended(plan, found, made)
    return Outcome(ends, row, found, each, left_out, poor, made, why)


def _doubt(ends: Look) -> str:
    """Return why the numbers of the good and the bad version are poor; "" if they are not."""
    return next((row.doubt for row in ends.comparison.gating if row.doubt), "")


def _why_ended(plan: Plan, found: Found, pairs: int) -> str:
    if found.named:
        return "named"
    if found.ask is None:
        return "the versions that are left cannot be told apart"
    return "all pairs are measured" if pairs >= plan.most else ""


def _logarithms(row: Row) -> list[float]:
    """Return the change in each pair: the logarithm of the ratio, or the difference."""
    if row.change.scale is Scale.RATIO:
        return [math.log(head / base) for base, head in row.values]
    return [head - base for base, head in row.values]


def as_data(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """Return a bisection as plain data for reports; see `reports/bisection.py`."""
    scale = Scale.RATIO if outcome.row is None else outcome.row.change.scale
    chances = outcome.found.chances
    by = {step: sum(chances[:step]) for step in range(1, plan.steps + 1)} if chances else {}
    tried = [
        {
            **_version(plan, one.step),
            "pairs": one.answers,
            "change": _out(scale, one.mean),
            "low": _out(scale, one.low),
            "high": _out(scale, one.high),
            "changed_by": by.get(one.step),
            "stray": one.stray,
            "poor": outcome.poor.get(one.step, ""),
        }
        for one in outcome.levels
    ]
    named, row = plan.margin, outcome.row
    word = "found" if outcome.found.named else "narrowed"
    if row is None:
        word = "poor data" if outcome.poor else "no difference"
    return {
        "good": _version(plan, 0),
        "bad": _version(plan, plan.steps),
        "steps": plan.steps,
        "metric": named.metric,
        "statistic": named.statistic,
        "class": named.class_name,
        "load": "" if row is None else row.keys[-1],
        "scale": scale.value,
        "pairs": outcome.pairs,
        "ended": outcome.ended,
        "word": word,
        "guilty": [
            {**_version(plan, step), "chance": chances[step - 1] if chances else None} for step in outcome.found.guilty
        ],
        "tried": tried,
        "poor": outcome.poor.get(plan.steps, ""),
        "left_out": [{**_version(plan, step), "why": why} for step, why in sorted(outcome.left_out.items())],
        "exit_code": int(_CODES.get(word, ExitCode.CANNOT_TELL)),
    }


def _version(plan: Plan, step: int) -> dict[str, Any]:
    version = plan.versions[step]
    return {"step": step, "version": version.name, "short": version.short, "subject": version.subject}


def _out(scale: Scale, value: float) -> float | None:
    """Return a mean of answers as a ratio or a difference; None if it is unknown."""
    if not math.isfinite(value):
        return None
    return math.exp(value) if scale is Scale.RATIO else value
