"""Tuning: candidates race in rounds, then the best of them is confirmed against the defaults by fresh pairs.

A tuning is a folder: `tune.json` has the plan, `round-01/NN-NAME` are the runs of the race, `confirm-NN-NAME` is the
gate of the best candidate. All that is known is computed from the stored runs. So a tuning that was ended goes on
where it was, and the numbers that picked a candidate never are those that show its gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Protocol

from harness.comparison.gate import Arm, Gate, Look, Place, judged, run_folder
from harness.comparison.gate import Measure as MeasurePair
from harness.comparison.gate import conduct as conduct_gate
from harness.comparison.judgement import Word
from harness.comparison.rounds import BASE, HEAD, Start
from harness.errors import RunUnreadable, TrialFailed, UsageError
from harness.scenario.margins import Margin
from harness.schedule.matrix import places
from harness.tuning.axes import Kind, parse_axes
from harness.tuning.candidates import DEFAULTS, Candidate
from harness.tuning.plan import Plan
from harness.tuning.race import Standing, standing
from harness.tuning.reading import Observed, Record, failure_of, gain, gains_of, margin_in_gains, observed

OPEN = (Word.CANNOT_TELL, Word.NO_WORSE)
"""Words that more pairs may settle: whether a candidate is better is the question."""
GUARD = "error_rate +0.1pp"
SPENT, POOR = "the budget is spent", "poor data"
LEAST_STARTS = 2
"""Starts after which a broken limit, or poor data, takes a candidate out of the race."""


class Maker(Protocol):
    """Maker of runs."""

    def start(self, candidate: Candidate, start: Start, folder: Path) -> None:
        """Make the run of a start of a candidate in a folder."""

    def scores(self, defaults: Candidate, best: Candidate, gate: Gate, folder: Path) -> None:
        """Score both for quality into the folder of their pairs, if the scenario asks for it and it is not done."""


@dataclass(frozen=True, slots=True)
class Fate:
    """Why a candidate is out of the race. word: failed, breaks a limit, poor data, or the defaults."""

    word: str
    why: str


SAME = Fate("the defaults", "the engine has the same options in force as for the defaults")


@dataclass(frozen=True, slots=True)
class Race:
    """State of the race.

    Attributes:
        number: Number that is tuned, with its margin.
        records: Starts of each candidate.
        out: Candidates that may not be chosen, with the reason.
    """

    number: Margin
    records: Mapping[int, Record]
    out: Mapping[int, Fate]
    standing: Standing


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a tuning so far.

    Attributes:
        best: Candidate that was confirmed against the defaults; None if none is left.
        look: The pairs of both; None before they are measured.
        limits: What both sides observed in these pairs; empty without limits.
        ended: Why no further start begins; "" if one does.
    """

    race: Race
    best: int | None = None
    look: Look | None = None
    limits: Mapping[str, Record] = field(default_factory=dict)
    ended: str = ""


Read = Callable[[int, int], Observed | None]
"""Reads what a candidate measured in a round; None if it measured nothing yet."""


@dataclass(slots=True)
class Clock:
    """Time of a tuning, and of each start so far. budget_s: None without one."""

    budget_s: float | None
    made: int = 0
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float | None:
        """Time that is left; None without a budget."""
        return None if self.budget_s is None else self.budget_s - (time.monotonic() - self.began)

    def allows(self, starts: int) -> bool:
        """Return whether so many starts end within the budget, at the speed of those before."""
        if self.left_s is None:
            return True
        each_s = (time.monotonic() - self.began) / self.made if self.made else 0.0
        return starts * each_s <= self.left_s


@dataclass(frozen=True, slots=True)
class Work:
    """What all steps of a tuning need."""

    plan: Plan
    candidates: Sequence[Candidate]
    folder: Path
    maker: Maker
    read: Read
    clock: Clock


def conduct(
    plan: Plan, candidates: Sequence[Candidate], folder: Path, maker: Maker, tell: Callable[[Outcome], None]
) -> Outcome:
    """Race the candidates, confirm the best of them, and return the outcome. Runs that are stored are kept.

    Raises TrialFailed if the defaults cannot be measured, UsageError if they have not the number.

    Args:
        tell: Called after each round, and after each look at the pairs.
    """
    work = Work(plan, candidates, folder, maker, _reader(plan, candidates, folder), Clock(plan.budget_s))
    failed = False
    while True:
        found = _raced(work, tell)
        best = next(iter(finalists(found.race)), None)
        if best is None:
            return found
        if failed and not work.clock.allows(2 * plan.pairs.least):  # the race left time for the pairs of one
            return replace(found, best=best, ended=SPENT)
        if (confirmed := _confirm(work, replace(found, best=best), tell)) is not None:
            return confirmed
        failed = True


def outcome(plan: Plan, candidates: Sequence[Candidate], folder: Path) -> Outcome:
    """Return what the stored runs of a tuning say, and measure nothing.

    Raises TrialFailed if the defaults could not be measured, UsageError if they have not the number.
    """
    race = _race(plan, candidates, folder, _reader(plan, candidates, folder))
    _check_defaults(plan, race.records[DEFAULTS])
    found, best = Outcome(race, ended=race.standing.ended), next(iter(finalists(race)), None)
    place = None if best is None else confirm_folder(folder, candidates[best])
    if best is None or place is None or not (race.standing.ended or place.exists()):
        return found
    try:
        look = judged(_gate(plan, candidates, best), place)
    except RunUnreadable:
        return replace(found, best=best)  # too few pairs are measured
    return _with_limits(replace(found, best=best, look=look), candidates[best], place, plan)


def round_folder(folder: Path, number: int, candidate: Candidate) -> Path:
    """Return the folder of a start in the race."""
    return folder / f"round-{number:02}" / candidate.folder


def confirm_folder(folder: Path, candidate: Candidate) -> Path:
    """Return the folder of the pairs of a candidate and the defaults."""
    return folder / f"confirm-{candidate.folder}"


def finalists(race: Race) -> list[int]:
    """Return the candidates that may be better than the defaults, the best of the race first."""
    rounds = max(1, race.standing.rounds)

    def mean(one: int) -> float:
        return fmean(gain(start.value, race.number) for start in race.records[one].starts[:rounds])

    tried = [one for one in race.standing.left if one != DEFAULTS and len(race.records[one].starts) >= rounds]
    return sorted(tried, key=mean, reverse=True)


def _reader(plan: Plan, candidates: Sequence[Candidate], folder: Path) -> Read:
    """Return a function that reads each stored start once."""
    known: dict[tuple[int, int], Observed] = {}

    def read(number: int, candidate: int) -> Observed | None:
        key = number, candidate
        if key not in known:
            found = observed(round_folder(folder, number, candidates[candidate]), plan.margin)
            if found is None:
                return None
            known[key] = found
        return known[key]

    return read


def _raced(work: Work, tell: Callable[[Outcome], None]) -> Outcome:
    """Measure the rounds that the race lacks."""
    race = _race(work.plan, work.candidates, work.folder, work.read)
    _check_defaults(work.plan, race.records[DEFAULTS])  # of an earlier command, too
    ended = race.standing.ended
    while not ended:
        ended = _measure_round(work, race)
        race = _race(work.plan, work.candidates, work.folder, work.read)
        _check_defaults(work.plan, race.records[DEFAULTS])
        ended = race.standing.ended or ended
        tell(Outcome(race, ended=ended))
    return Outcome(race, ended=ended)


def _race(plan: Plan, candidates: Sequence[Candidate], folder: Path, read: Read) -> Race:
    """Return the state of the race after all stored starts. Those of pairs that failed count, too."""
    records = {one.number: Record(tuple(_starts(plan, one.number, read))) for one in candidates}
    out = {one.number: fate for one in candidates if (fate := _fate(one, records[one.number])) is not None}
    out |= {one.number: SAME for one in candidates if _is_the_same(plan, one, records)}
    for one in candidates:
        if (failure := _failure_in_pairs(plan, confirm_folder(folder, one))) is not None:
            out[one.number] = Fate("failed", f"{failure} (in its pairs)")
    running = {one: record for one, record in records.items() if one not in out}
    gains = gains_of(running, plan.margin)
    return Race(plan.margin, records, out, standing(gains, plan.rounds, margin_in_gains(plan.margin)))


def _starts(plan: Plan, candidate: int, read: Read) -> Iterator[Observed]:
    """Yield the starts of a candidate up to the first that is lacking or failed."""
    for number in range(1, plan.rounds.most + 1):
        found = read(number, candidate)
        if found is None:
            return
        yield found
        if found.failure:
            return


def _fate(candidate: Candidate, record: Record) -> Fate | None:
    """Return why a candidate is out of the race; None if it is not."""
    if candidate.scenario is None:
        return Fate("failed", candidate.why_not)
    if record.failure:
        return Fate("failed", record.failure)
    if record.unknown:
        return Fate(POOR, "its number is zero, or only a bound of it is known")
    if len(record.starts) < LEAST_STARTS:
        return None
    if record.breaks is not None and record.breaks.sure:
        return Fate("breaks a limit", f"`{record.breaks.limit}`: {record.breaks.sentence}")
    return Fate(POOR, record.doubt) if record.doubt else None


def _is_the_same(plan: Plan, candidate: Candidate, records: Mapping[int, Record]) -> bool:
    """Return whether the engine reports the same options in force for a candidate as for the defaults."""
    own, defaults = (records[one].in_force for one in (candidate.number, DEFAULTS))
    if candidate.number == DEFAULTS or not defaults or own != defaults:
        return False
    axes = parse_axes(plan.over)
    return all(axis.kind is Kind.OPTION and axis.name.partition(".")[0] in defaults for axis in axes)


def _failure_in_pairs(plan: Plan, place: Path) -> str | None:
    """Return why a candidate failed in the pairs that were to confirm it; None if it did not."""
    if not place.exists():
        return None
    heads = (failure_of(run_folder(place, pair, HEAD)) for pair in range(1, plan.pairs.most + 1))
    return next(filter(None, heads), None)


def _check_defaults(plan: Plan, record: Record) -> None:
    """Raise TrialFailed if the defaults cannot be measured, UsageError if they have not the number."""
    if record.failure:
        why = record.failure.rstrip(".")
        raise TrialFailed(f"the defaults cannot be measured: {why}; begin a new tuning when they can")
    if record.unknown:
        named = " ".join(plan.number.split()[:-1])
        raise UsageError(f"the defaults have no {named} that can be compared: measure more requests, or name another")


def _measure_round(work: Work, race: Race) -> str:
    """Measure the next round of those that are left; return why it ended early, "" if it did not."""
    plan, left = work.plan, sorted(race.standing.left)
    number = next(one for one in range(1, plan.rounds.most + 1) if any(work.read(one, each) is None for each in left))
    start = Start(number, BASE, plan.seed_of_round(number))
    for one in [left[place] for place in places(len(left), number, plan.seed)]:
        if work.read(number, one) is not None:
            continue
        if not work.clock.allows(1 + 2 * plan.pairs.least):
            return SPENT
        candidate = work.candidates[one]
        work.maker.start(candidate, start, round_folder(work.folder, number, candidate))
        work.clock.made += 1
        if one == DEFAULTS:
            _check_defaults(plan, Record(tuple(_starts(plan, DEFAULTS, work.read))))
    return ""


def _gate(plan: Plan, candidates: Sequence[Candidate], best: int) -> Gate:
    """Return the plan of the pairs that confirm a candidate."""
    arms = []
    for one in (candidates[DEFAULTS], candidates[best]):
        assert one.scenario is not None  # what cannot be tried is out of the race
        arms.append(Arm(one.name, one.scenario.resolved(), plan.only))
    fail_on = (plan.number, GUARD)
    return Gate(arms[0], arms[1], plan.seed_of_pairs(best), plan.pairs, fail_on=fail_on)


def _confirm(work: Work, found: Outcome, tell: Callable[[Outcome], None]) -> Outcome | None:
    """Measure pairs of the best candidate and the defaults; return None if it failed in them."""
    assert found.best is not None
    best, defaults = work.candidates[found.best], work.candidates[DEFAULTS]
    place = confirm_folder(work.folder, best)
    gate = _gate(work.plan, work.candidates, found.best)
    gate.save(place)
    work.maker.scores(defaults, best, gate, place)
    gate = replace(gate, budget_s=work.clock.left_s)  # without the time of scoring
    make = _pair_maker(work, defaults, best)
    try:
        look = conduct_gate(gate, place, make, partial(_tell_look, tell, found), OPEN)
    except TrialFailed as error:
        if _failure_in_pairs(work.plan, place) is None:
            raise TrialFailed(f"the defaults cannot be measured again: {error}") from error
        return None
    return _with_limits(replace(found, look=look), best, place, work.plan)


def _pair_maker(work: Work, base: Candidate, head: Candidate) -> MeasurePair:
    """Return what makes the runs of a pair."""

    def make(made: Sequence[Place]) -> None:
        for each in made:
            work.maker.start(base if each.start.side == BASE else head, each.start, each.folder)
            work.clock.made += 1

    return make


def _tell_look(tell: Callable[[Outcome], None], found: Outcome, look: Look) -> None:
    tell(replace(found, look=look))


def _with_limits(found: Outcome, best: Candidate, place: Path, plan: Plan) -> Outcome:
    """Return the outcome with what both sides observed in their pairs, if there are limits."""
    assert best.scenario is not None  # what cannot be tried is not confirmed
    loads = [*best.scenario.load, *(one for block in best.scenario.engines for one in block.load or ())]
    if not best.scenario.limits and not any(load.limits for load in loads):
        return found
    folders = {side: [run_folder(place, pair, side) for pair in range(1, plan.pairs.most + 1)] for side in (BASE, HEAD)}
    observed_in = {side: [observed(one, plan.margin) for one in made] for side, made in folders.items()}
    limits = {side: Record(tuple(filter(None, all_))) for side, all_ in observed_in.items()}
    return replace(found, limits=limits)
