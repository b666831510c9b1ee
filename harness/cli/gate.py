"""`harness run --against`: both sides are started in turns, and the pairs compared, until it is clear.

With `--alternate` both sides of a pair are up at the same time, and blocks of requests take turns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.options import check_inconclusive
from harness.cli.output import say, table_console
from harness.errors import ExitCode, Interrupted, RunDirectoryExists, UsageError
from harness.signals import StopSignal

if TYPE_CHECKING:
    from harness.cli.asked import Asked
    from harness.comparison.gate import Gate, Look, Place
    from harness.comparison.rounds import Start
    from harness.run.alternate import Planned
    from harness.run.job import Job
    from harness.scenario.compare import Compare
    from harness.scenario.loads.kinds import Load
    from harness.scenario.model import Scenario
    from harness.schedule.cells import Cell, Skip
    from harness.store.run import RunWriter


@dataclass(frozen=True, slots=True)
class Wanted:
    """Options that make a run a gate.

    Attributes:
        against: Variant that is the baseline.
        base_sets: Keys of the scenario that differ for the baseline.
        fails: Whether "cannot tell" fails.
        across: Kinds of differences that are meant.
        alternate: Whether both sides are up, and take turns block by block.
        cache_audit: Whether each side is asked prompts twice beforehand.
    """

    against: str | None
    base_sets: tuple[str, ...]
    pairs: str | None
    budget: str | None
    fail_on: tuple[str, ...]
    fails: bool
    across: tuple[str, ...] = ()
    alternate: bool = False
    cache_audit: bool = False


def gate_of(asked: Asked, section: Compare | None = None) -> Wanted | None:
    """Return the gate that was asked for; None without a baseline. Raises UsageError for options that need one.

    Args:
        section: `compare` of the scenario, whose values options replace.
    """
    from harness.cli.commands.compare import check_across

    across = tuple(sorted(check_across(asked.across)))
    of_engine = {"url": asked.base_url, "command": asked.base_command, "python": asked.base_python}
    sets = [f"engines.0.{key}={json.dumps(value)}" for key, value in of_engine.items() if value is not None]
    if section is not None:
        return _of_section(asked, section, (*asked.base_sets, *sets), across)
    if asked.against is None and not (sets or asked.base_sets):
        alone: dict[str, object] = {"--pairs": asked.pairs, "--budget": asked.budget, "--fail-on": asked.fail_on}
        alone |= {"--across": asked.across, "--alternate": asked.alternate}
        if given := next((name for name, value in alone.items() if value), None):
            raise UsageError(f"{given} belongs to a gate: name its baseline with --against, --base-url or --base-set")
        return None
    _refuse(asked)
    fails = check_inconclusive(asked.inconclusive or "fail")
    every, fail_on = (*asked.base_sets, *sets), tuple(asked.fail_on)
    how = (asked.pairs, asked.budget, fail_on, fails, across, asked.alternate, asked.cache_audit)
    return Wanted(asked.against, every, *how)


def _of_section(asked: Asked, section: Compare, sets: tuple[str, ...], across: tuple[str, ...]) -> Wanted:
    _refuse(asked)
    against = asked.against or (None if sets else section.baseline)
    budget = asked.budget if asked.budget is not None or section.budget_s is None else f"{section.budget_s:g}s"
    fail_on = tuple(asked.fail_on) or tuple(margin.text for margin in section.gating)
    fails = check_inconclusive(asked.inconclusive or section.inconclusive)
    alternate, audit = asked.alternate or section.alternate, asked.cache_audit or section.cache_audit
    return Wanted(against, sets, asked.pairs or section.pairs, budget, fail_on, fails, across, alternate, audit)


def _refuse(asked: Asked) -> None:
    """Raise UsageError for options that a gate has no use for."""
    without: dict[str, object] = {"--resume": asked.resume, "--format": asked.formats, "--export": asked.exports}
    without |= {"--driver": asked.driver, "--columns": asked.columns}
    without |= {"--expect-workers": asked.expect_workers, "--web": asked.web}
    for name, value in without.items():
        if value:
            raise UsageError(f"{name} does not go with a gate: leave it out")


def run_gate(wanted: Wanted, read: Callable[[Sequence[str]], Scenario], asked: Asked, wait_s: float) -> ExitCode:
    """Conduct a gate, print its comparison, and return the exit code.

    A gate that was ended goes on if the same command names its folder.

    Args:
        read: Returns the scenario with further `--set`s.
    """
    from harness.cli.cache_audit import audit_sides
    from harness.cli.commands.compare import Told, shown, store
    from harness.cli.gate_quality import score_sides
    from harness.comparison.gate import conduct
    from harness.run.job import parse_only
    from harness.run.lock import machine_to_ourselves
    from harness.store.run import new_run_path

    scenarios = {"base": read(wanted.base_sets), "head": read(())}
    title = scenarios["head"].title
    gate = _gate(wanted, scenarios, parse_only(asked.only))
    folder = asked.out or new_run_path(f"{title}-gate")
    measure = _Measure(scenarios, gate, consent=asked.yes, quiet=asked.quiet)
    measure.check()
    if asked.dry_run:
        return _preview(measure, folder)
    _open(gate, folder)
    try:
        with machine_to_ourselves(title, wait_s=wait_s):
            never = None if wanted.against is None else gate.head.name
            first = dict(zip(("base", "head"), measure.first_pair(Path()), strict=True))
            score_sides(first, folder, never, quiet=asked.quiet)
            if wanted.cache_audit:
                audit_sides(first, folder, quiet=asked.quiet)
            look = conduct(gate, folder, measure, lambda look: None if asked.quiet else say(_told(look)))
    except (Interrupted, StopSignal) as error:
        raise Interrupted(f"interrupted: the same command with --out {folder} goes on with its seeds") from error
    told = Told.of(look.comparison, fails=wanted.fails)
    shown([told.data], table_console(), as_json=asked.as_json)
    store(told, ("html", "md", "json", "csv", "junit"), folder)
    return ExitCode(told.data["exit_code"])


def _gate(wanted: Wanted, scenarios: Mapping[str, Scenario], only: Mapping[str, str]) -> Gate:
    """Return the plan of the gate. Raises UsageError, naming the option, for a value that is none."""
    from harness.cli.commands.compare import parse_margins
    from harness.comparison.gate import Arm, Gate
    from harness.scenario.compare import parse_pairs
    from harness.units import parse_duration_s

    parse_margins(wanted.fail_on)
    try:
        pairs = parse_pairs(wanted.pairs or "4..8")
    except ValueError as error:
        raise UsageError(f"--pairs: {error}") from error
    try:
        budget_s = None if wanted.budget is None else parse_duration_s(wanted.budget)
    except ValueError as error:
        raise UsageError(f"--budget: {error}") from error
    base, head = ({**only}, {**only})
    names = ("base", "head")
    if wanted.against is not None:
        other = _other_variant(scenarios["head"], wanted.against, only)
        base["variant"], head["variant"], names = wanted.against, other, (wanted.against, other)
    arms = [
        Arm(name, scenarios[side].resolved(), chosen)
        for name, side, chosen in zip(names, ("base", "head"), (base, head), strict=True)
    ]
    seed, fail_on = scenarios["head"].seed, wanted.fail_on
    return Gate(arms[0], arms[1], seed, pairs, budget_s, fail_on, wanted.across, wanted.alternate)


def _other_variant(scenario: Scenario, against: str, only: Mapping[str, str]) -> str:
    """Return the variant that is compared with the baseline. Raises UsageError if it is not clear which."""
    from harness.scenario.base import near

    variants = list(dict.fromkeys(name for block in scenario.engines for name in block.variants))
    if against not in variants:
        hint = near(against, variants) if variants else "the scenario has no `variants`"
        raise UsageError(f"--against {against}: no engine has this variant; {hint}")
    others = [name for name in variants if name != against]
    if "variant" in only:
        return only["variant"]
    if len(others) != 1:
        which = f"there are {', '.join(others)}" if others else "there is no other"
        raise UsageError(f"--against {against}: {which}; name one with --only variant=NAME")
    return others[0]


def _preview(measure: _Measure, folder: Path) -> ExitCode:
    """Print the plan of each side's first start, how many there are, and how long they take together."""
    from harness.cli.commands.listing import plan_text, rounded_time
    from harness.schedule.duration import run_time_s

    pairs, first = measure.gate.pairs, measure.first_pair(folder)
    how = "in turns"
    if measure.gate.alternate:
        how = f"both sides up, {_blocks_text(first[0].planned)} in turns (ABBA)"
    scores = "" if measure.gate.head.scenario.get("quality") is None else "both sides scored once for quality, then "
    print(f"{scores}{pairs.least} to {pairs.most} pairs of starts, {how}; the first:\n")
    for job in first:
        print(plan_text(job.scenario, job.planned, job.folder))
    pair_s = sum(run_time_s(job.scenario, job.planned) for job in first)
    print(f"\nall pairs       about {rounded_time(pairs.least * pair_s)} to {rounded_time(pairs.most * pair_s)}")
    return ExitCode.HOLDS


def _blocks_text(planned: Sequence[Cell | Skip]) -> str:
    """Return the number and length of the blocks of each load."""
    from harness.schedule.blocks import whole
    from harness.schedule.cells import Cell

    plans = next((cell.trials for cell in planned if isinstance(cell, Cell)), ())
    blocks: dict[str, list[Load]] = {}
    for plan in plans:
        blocks.setdefault(whole(plan.name), []).append(plan.load)
    texts = []
    for name, loads in blocks.items():
        size = f"{loads[0].measured_s:.3g} s" if loads[0].measured_s is not None else f"{loads[0].measured_count}"
        unit = (
            "" if loads[0].measured_s is not None else f" {'sessions' if loads[0].kind == 'sessions' else 'requests'}"
        )
        texts.append(f"{len(loads)} blocks of {size}{unit} ({name})")
    return ", ".join(texts)


def _open(gate: Gate, folder: Path) -> None:
    """Store the plan in a new folder, or find the same plan there. Raises RunDirectoryExists if another is."""
    from harness.comparison.gate import STATE, Gate
    from harness.store.run import refuse_existing

    if not (folder / STATE).exists():
        refuse_existing(folder)
        gate.save(folder)
    elif Gate.read(folder) != gate:
        raise RunDirectoryExists(f"{folder} holds another gate; repeat its command to go on with it, or choose --out")


class _Measure:
    """Maker of the run of one start, or of both of a pair."""

    def __init__(self, scenarios: Mapping[str, Scenario], gate: Gate, *, consent: bool, quiet: bool) -> None:
        from harness.schedule.blocks import in_blocks

        self.gate, self._consent, self._quiet = gate, consent, quiet
        self._scenarios = {
            side: in_blocks(one) if gate.alternate else one.model_copy(update={"repetitions": 1})
            for side, one in scenarios.items()
        }
        self._told: set[str] = set()

    def check(self) -> None:
        """Raise UsageError if a side cannot run, or if both would not be comparable."""
        from harness.comparison.planned import PlannedSide, check_planned
        from harness.run.alternate import check_paired
        from harness.schedule.matrix import check_runnable

        jobs = self.first_pair(Path())
        for job in jobs:
            check_runnable(job.planned)
        arms = (self.gate.base, self.gate.head)
        base, head = (PlannedSide(arm.name, job.scenario, job.planned) for arm, job in zip(arms, jobs, strict=True))
        check_planned(base, head, self.gate.across)
        if self.gate.alternate:
            check_paired([_planned(arm.name, job) for arm, job in zip(arms, jobs, strict=True)])
            _refuse_memory(self.gate)

    def first_pair(self, folder: Path) -> list[Job]:
        """Return what the first start of each side measures, that of the base first."""
        from harness.comparison.gate import Place, run_folder
        from harness.comparison.rounds import rounds

        first = sorted(next(rounds(1, self.gate.seed)), key=lambda start: start.side)
        arms = (self.gate.base, self.gate.head)
        return [
            self.job(Place(arm, start, run_folder(folder, start.pair, start.side)))
            for arm, start in zip(arms, first, strict=True)
        ]

    def __call__(self, places: Sequence[Place]) -> None:
        """Make the runs."""
        from harness.cli.asked import command_line
        from harness.run.alternate import execute_both

        names = " and ".join(place.arm.name for place in places)
        self._tell(f"pair {places[0].start.pair} of at most {self.gate.pairs.most}: {names}")
        jobs = [self.job(place) for place in places]
        if len(jobs) == 1:
            measure_start(jobs[0], consent=self._consent)
            return
        for job in jobs:
            _make_room(job, consent=self._consent)
        sides = [_planned(place.arm.name, job) for place, job in zip(places, jobs, strict=True)]
        _check_ended(execute_both(sides[0], sides[1], command=command_line(), tell=self._tell))

    def job(self, place: Place) -> Job:
        """Return what a start measures."""
        return start_job(self._scenarios[place.start.side], place.arm.only, place.start, place.folder)

    def _tell(self, line: str) -> None:
        """Tell a line once."""
        if not self._quiet and line not in self._told:
            self._told.add(line)
            say(line)


def _planned(name: str, job: Job) -> Planned:
    from harness.run.alternate import Planned

    return Planned(name, job.scenario, job.planned, job.folder)


def _refuse_memory(gate: Gate) -> None:
    """Raise UsageError for a margin on memory, which both sides hold at the same time."""
    from harness.comparison.blocks import HELD_TOGETHER

    for margin in gate.margins:
        if margin.metric in HELD_TOGETHER:
            why = "both sides hold memory at the same time, so it is not compared"
            raise UsageError(f"--fail-on {margin.text}: {why}; leave --alternate out")


def start_job(scenario: Scenario, only: Mapping[str, str], start: Start, place: Path) -> Job:
    """Return what one start of a scenario measures, with the seed of its pair."""
    from harness.run.job import Job
    from harness.schedule.matrix import expand

    once = scenario.model_copy(update={"seed": start.seed, "repetitions": 1})
    return Job(once, expand(once, only=only), place, stored=False)


def measure_start(job: Job, *, consent: bool) -> None:
    """Make the run of one start. What an attempt that was ended has left is put aside."""
    from harness.cli.asked import command_line
    from harness.cli.progress import SilentWatcher
    from harness.run.references import Scoring
    from harness.run.run import execute

    _make_room(job, consent=consent)
    once = Scoring(wanted=False)  # sides are scored once, before their pairs
    made = execute(job.scenario, job.planned, job.folder, SilentWatcher(), command=command_line(), scoring=once)
    _check_ended([made])


def _make_room(job: Job, *, consent: bool) -> None:
    """Put aside what an attempt has left. Raises UsageError if the job cannot run."""
    from harness.store.run import put_aside

    if job.folder.exists():
        put_aside(job.folder)
    job.check(consent=consent)


def _check_ended(made: Sequence[RunWriter]) -> None:
    """Raise Interrupted if the user stopped a run."""
    if any(writer.manifest.status == "interrupted" for writer in made):
        raise Interrupted("interrupted")


def _told(look: Look) -> str:
    """Return one line about a look."""
    gating = ", ".join(
        f"{row.margin.metric} {row.margin.statistic} {row.word.value}" for row in look.comparison.gating[:6]
    )
    return f"{look.pairs} pairs: {gating}" + (f" · {look.ended}" if look.ended else "")
