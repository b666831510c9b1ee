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
from harness.tuning.reading import Observed, Record, gain, gains_of, margin_in_gains, observed

OPEN = (Word.CANNOT_TELL, Word.NO_WORSE)
"""Words that more pairs may settle: whether a candidate is better is the question."""
GUARD = "error_rate +0.1pp"
SPENT = "the budget is spent"
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
        limits: What both sides observed in these pairs, for their limits.
        ended: Why no further start begins; "" if one does.
    """

    race: Race
    best: int | None = None
    look: Look | None = None
    limits: Mapping[str, Record] = field(default_factory=dict)
    ended: str = ""


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


def conduct(
    plan: Plan, candidates: Sequence[Candidate], folder: Path, maker: Maker, tell: Callable[[Outcome], None]
) -> Outcome:
    """Race the candidates, confirm the best of them, and return the outcome. Runs that are stored are kept.

    Raises TrialFailed if the defaults cannot be measured, UsageError if they have not the number.

    Args:
        tell: Called after each round, and after each look at the pairs.
    """
    clock, read = Clock(plan.budget_s), _reader(plan, candidates, folder)
    race = _race(plan, candidates, read)
    ended = race.standing.ended
    while not ended:
        ended = _measure_round(plan, candidates, folder, race, read, maker, clock)
        race = _race(plan, candidates, read)
        _check_defaults(plan, race)
        ended = race.standing.ended or ended
        tell(Outcome(race, ended=ended))
    return _confirm(plan, candidates, folder, Outcome(race, ended=ended), maker, tell, clock)


def outcome(plan: Plan, candidates: Sequence[Candidate], folder: Path) -> Outcome:
    """Return what the stored runs of a tuning say, and measure nothing."""
    race = _race(plan, candidates, _reader(plan, candidates, folder))
    found = Outcome(race, ended=race.standing.ended)
    for one in finalists(race):
        gate, place = _gate(plan, candidates, one), confirm_folder(folder, candidates[one])
        if not place.exists():
            return found
        found, failure = _after_pairs(found, candidates[one], gate, place)
        if not failure:
            return found
    return found


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


Read = Callable[[int, int], Observed | None]
"""Reads what a candidate measured in a round; None if it measured nothing yet."""


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


def _race(plan: Plan, candidates: Sequence[Candidate], read: Read) -> Race:
    """Return the state of the race after all stored starts."""
    records = {one.number: Record(tuple(_starts(plan, one.number, read))) for one in candidates}
    out = {one.number: fate for one in candidates if (fate := _fate(one, records[one.number])) is not None}
    out |= {one.number: SAME for one in candidates if _is_the_same(plan, one, records)}
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
        return Fate("poor data", "its number is zero, or only a bound of it is known")
    if len(record.starts) < LEAST_STARTS:
        return None
    if record.breaks is not None and record.breaks.sure:
        return Fate("breaks a limit", f"`{record.breaks.limit}`: {record.breaks.sentence}")
    return Fate("poor data", record.doubt) if record.doubt else None


def _is_the_same(plan: Plan, candidate: Candidate, records: Mapping[int, Record]) -> bool:
    """Return whether the engine reports the same options in force for a candidate as for the defaults."""
    own, defaults = (records[one].in_force for one in (candidate.number, DEFAULTS))
    if candidate.number == DEFAULTS or not defaults or own != defaults:
        return False
    axes = parse_axes(plan.over)
    return all(axis.kind is Kind.OPTION and axis.name.partition(".")[0] in defaults for axis in axes)


def _check_defaults(plan: Plan, race: Race) -> None:
    """Raise TrialFailed if the defaults cannot be measured, UsageError if they have not the number."""
    record = race.records[DEFAULTS]
    if record.failure:
        raise TrialFailed(f"the defaults cannot be measured: {record.failure}")
    if record.unknown:
        named = " ".join(plan.number.split()[:-1])
        raise UsageError(f"the defaults have no {named} that can be compared: measure more requests, or name another")


def _measure_round(
    plan: Plan,
    candidates: Sequence[Candidate],
    folder: Path,
    race: Race,
    read: Read,
    maker: Maker,
    clock: Clock,
) -> str:
    """Measure the next round of those that are left; return why it ended early, "" if it did not."""
    number = next(
        one for one in range(1, plan.rounds.most + 1) if any(read(one, each) is None for each in race.standing.left)
    )
    left = sorted(race.standing.left)
    for place in places(len(left), number, plan.seed):
        one = left[place]
        if read(number, one) is not None:
            continue
        if not clock.allows(1 + 2 * plan.pairs.least):
            return SPENT
        maker.start(
            candidates[one],
            Start(number, BASE, plan.seed_of_round(number)),
            round_folder(folder, number, candidates[one]),
        )
        clock.made += 1
        if one == DEFAULTS and number == 1:
            _check_defaults(plan, _race(plan, candidates, read))
    return ""


def _gate(plan: Plan, candidates: Sequence[Candidate], best: int, budget_s: float | None = None) -> Gate:
    """Return the plan of the pairs that confirm a candidate."""
    arms = []
    for one in (candidates[DEFAULTS], candidates[best]):
        assert one.scenario is not None  # what cannot be tried is out of the race
        arms.append(Arm(one.name, one.scenario.resolved(), plan.only))
    fail_on = (plan.number, GUARD)
    return Gate(arms[0], arms[1], plan.seed_of_pairs(best), plan.pairs, budget_s, fail_on)


def _confirm(
    plan: Plan,
    candidates: Sequence[Candidate],
    folder: Path,
    found: Outcome,
    maker: Maker,
    tell: Callable[[Outcome], None],
    clock: Clock,
) -> Outcome:
    """Measure pairs of the best candidate and the defaults; of the next best if that one fails now."""
    for one in finalists(found.race):
        place, gate = confirm_folder(folder, candidates[one]), _gate(plan, candidates, one, clock.left_s)
        gate.save(place)
        maker.scores(candidates[DEFAULTS], candidates[one], gate, place)
        make = _pair_maker(maker, candidates[DEFAULTS], candidates[one])
        try:
            look = conduct_gate(gate, place, make, partial(_tell_look, tell, replace(found, best=one)), OPEN)
        except TrialFailed as error:
            found, failure = _after_pairs(found, candidates[one], gate, place)
            if not failure:
                raise TrialFailed(f"the defaults cannot be measured again: {error}") from error
        else:
            return _after_pairs(found, candidates[one], gate, place, look)[0]
    return found


def _pair_maker(maker: Maker, base: Candidate, head: Candidate) -> MeasurePair:
    """Return what makes the runs of a pair."""

    def make(made: Sequence[Place]) -> None:
        for each in made:
            maker.start(base if each.start.side == BASE else head, each.start, each.folder)

    return make


def _tell_look(tell: Callable[[Outcome], None], found: Outcome, look: Look) -> None:
    tell(replace(found, look=look))


def _after_pairs(
    found: Outcome, candidate: Candidate, gate: Gate, place: Path, look: Look | None = None
) -> tuple[Outcome, str]:
    """Return the outcome with the pairs of a candidate, or why it failed in them: then it is out of the race.

    Args:
        look: Judgement of the pairs; None to judge those that are stored.
    """
    known = look is not None and not _has_limits(candidate)
    sides = {side: Record(() if known else tuple(_observed_pairs(gate, place, side))) for side in (BASE, HEAD)}
    if failure := sides[HEAD].failure:
        return replace(found, race=_without(found.race, candidate.number, failure)), failure
    found = replace(found, best=candidate.number, limits=sides)
    try:
        look = judged(gate, place) if look is None else look
    except RunUnreadable:
        return replace(found, ended=""), ""
    return replace(found, look=look), ""


def _has_limits(candidate: Candidate) -> bool:
    assert candidate.scenario is not None  # what cannot be tried is not confirmed
    loads = [*candidate.scenario.load, *(one for block in candidate.scenario.engines for one in block.load or ())]
    return bool(candidate.scenario.limits) or any(load.limits for load in loads)


def _without(race: Race, candidate: int, failure: str) -> Race:
    """Return the race without a candidate that failed after it."""
    left = tuple(one for one in race.standing.left if one != candidate)
    out = {**race.out, candidate: Fate("failed", failure)}
    return replace(race, out=out, standing=replace(race.standing, left=left))


def _observed_pairs(gate: Gate, place: Path, side: str) -> Iterator[Observed]:
    for pair in range(1, gate.pairs.most + 1):
        if (one := observed(run_folder(place, pair, side), gate.margins[0])) is not None:
            yield one
