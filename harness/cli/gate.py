"""`harness run --against`: both sides are started in turns, and the pairs compared, until it is clear."""

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
    from harness.comparison.gate import Arm, Gate, Look
    from harness.comparison.rounds import Start
    from harness.run.job import Job
    from harness.scenario.compare import Compare
    from harness.scenario.model import Scenario


@dataclass(frozen=True, slots=True)
class Wanted:
    """Options that make a run a gate.

    Attributes:
        against: Variant that is the baseline.
        base_sets: Keys of the scenario that differ for the baseline.
        fails: Whether "cannot tell" fails.
    """

    against: str | None
    base_sets: tuple[str, ...]
    pairs: str | None
    budget: str | None
    fail_on: tuple[str, ...]
    fails: bool


def gate_of(asked: Asked, section: Compare | None = None) -> Wanted | None:
    """Return the gate that was asked for; None without a baseline. Raises UsageError for options that need one.

    Args:
        section: `compare` of the scenario, whose values options replace.
    """
    of_engine = {"url": asked.base_url, "command": asked.base_command, "python": asked.base_python}
    sets = [f"engines.0.{key}={json.dumps(value)}" for key, value in of_engine.items() if value is not None]
    if section is not None:
        return _of_section(asked, section, (*asked.base_sets, *sets))
    if asked.against is None and not (sets or asked.base_sets):
        alone = {"--pairs": asked.pairs, "--budget": asked.budget, "--fail-on": asked.fail_on}
        if given := next((name for name, value in alone.items() if value), None):
            raise UsageError(f"{given} belongs to a gate: name its baseline with --against, --base-url or --base-set")
        return None
    _refuse(asked)
    fails = check_inconclusive(asked.inconclusive or "fail")
    return Wanted(asked.against, (*asked.base_sets, *sets), asked.pairs, asked.budget, tuple(asked.fail_on), fails)


def _of_section(asked: Asked, section: Compare, sets: tuple[str, ...]) -> Wanted:
    _refuse(asked)
    against = asked.against or (None if sets else section.baseline)
    budget = asked.budget if asked.budget is not None or section.budget_s is None else f"{section.budget_s:g}s"
    fail_on = tuple(asked.fail_on) or tuple(margin.text for margin in section.gating)
    fails = check_inconclusive(asked.inconclusive or section.inconclusive)
    return Wanted(against, sets, asked.pairs or section.pairs, budget, fail_on, fails)


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
    from harness.cli.commands.compare import Told, shown, store
    from harness.comparison.gate import conduct
    from harness.run.job import parse_only
    from harness.run.lock import machine_to_ourselves
    from harness.store.run import new_run_path

    scenarios = {"base": read(wanted.base_sets), "head": read(())}
    title = scenarios["head"].title
    gate = _gate(wanted, scenarios, parse_only(asked.only))
    folder = asked.out or new_run_path(f"{title}-gate")
    measure = _Measure(scenarios, consent=asked.yes, quiet=asked.quiet, pairs=gate.pairs.most)
    measure.check(gate)
    if asked.dry_run:
        return _preview(measure, gate, folder)
    _open(gate, folder)
    try:
        with machine_to_ourselves(title, wait_s=wait_s):
            look = conduct(gate, folder, measure, lambda look: None if asked.quiet else say(_told(look)))
    except (Interrupted, StopSignal) as error:
        raise Interrupted(f"interrupted: the same command with --out {folder} goes on with its seeds") from error
    told = Told.of(look.comparison, fails=wanted.fails)
    store(told, ("html", "md", "json", "csv", "junit"), folder)
    shown([told.data], table_console(), as_json=asked.as_json)
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
    return Gate(arms[0], arms[1], scenarios["head"].seed, pairs, budget_s, wanted.fail_on)


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


def _preview(measure: _Measure, gate: Gate, folder: Path) -> ExitCode:
    """Print the plan of each side's first start, and how many there are."""
    from harness.cli.commands.listing import plan_text
    from harness.comparison.gate import run_folder
    from harness.comparison.rounds import starts

    print(f"{gate.pairs.least} to {gate.pairs.most} pairs of starts, in turns; the first:\n")
    for start in sorted(starts(1, gate.seed), key=lambda one: one.side):
        arm, place = gate.base if start.side == "base" else gate.head, run_folder(folder, start.pair, start.side)
        job = measure.job(arm, start, place)
        print(plan_text(job.scenario, job.planned, job.folder))
    return ExitCode.HOLDS


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
    """Maker of the run of one start."""

    def __init__(self, scenarios: Mapping[str, Scenario], *, consent: bool, quiet: bool, pairs: int) -> None:
        self._scenarios, self._consent, self._quiet, self._pairs = scenarios, consent, quiet, pairs

    def check(self, gate: Gate) -> None:
        """Raise UsageError if a side cannot run."""
        from harness.comparison.rounds import Start
        from harness.schedule.matrix import check_runnable

        for side, arm in (("base", gate.base), ("head", gate.head)):
            check_runnable(self.job(arm, Start(1, side, gate.seed), Path(side)).planned)

    def __call__(self, arm: Arm, start: Start, place: Path) -> None:
        """Make the run."""
        if not self._quiet:
            say(f"pair {start.pair} of at most {self._pairs}: {arm.name}")
        measure_start(self.job(arm, start, place), consent=self._consent)

    def job(self, arm: Arm, start: Start, place: Path) -> Job:
        """Return what a start measures."""
        return start_job(self._scenarios[start.side], arm.only, start, place)


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
    from harness.run.run import execute

    if job.folder.exists():
        _put_aside(job.folder)
    job.check(consent=consent)
    writer = execute(job.scenario, job.planned, job.folder, SilentWatcher(), command=command_line())
    if writer.manifest.status == "interrupted":
        raise Interrupted("interrupted")


def _put_aside(place: Path) -> None:
    """Rename a run that is not whole, so that nothing is lost."""
    number = 1
    while (other := place.with_name(f"{place.name}-ended-{number}")).exists():
        number += 1
    place.rename(other)


def _told(look: Look) -> str:
    """Return one line about a look."""
    gating = ", ".join(
        f"{row.margin.metric} {row.margin.statistic} {row.word.value}" for row in look.comparison.gating[:6]
    )
    return f"{look.pairs} pairs: {gating}" + (f" · {look.ended}" if look.ended else "")
