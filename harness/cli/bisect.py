"""`harness bisect`: the versions between a good and a bad one are measured in pairs, until the guilty one is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.output import say, table_console
from harness.errors import ExitCode, Interrupted, RunDirectoryExists, UsageError
from harness.signals import StopSignal

if TYPE_CHECKING:
    from harness.comparison.rounds import Start
    from harness.history.bisection.run import Outcome, Plan
    from harness.history.bisection.versions import Version
    from harness.scenario.model import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Options of the command.

    Attributes:
        command: Command of the engine, with `{commit}`.
        sets: Keys of the scenario, of which some have `{commit}`.
        steps: File of versions; None for commits of `repo`.
    """

    good: str
    bad: str
    scenario: str | None
    command: str | None
    python: str | None
    build: str | None
    sets: list[str]
    steps: Path | None
    repo: Path
    fail_on: str | None
    pairs: str | None
    most: int
    budget: str | None
    only: str | None
    out: Path | None
    quiet: bool
    as_json: bool
    yes: bool
    wait: str

    @property
    def templates(self) -> tuple[str, ...]:
        """Keys of the scenario with their values, in which `{commit}` stands for the version."""
        engine = {"command": self.command, "python": self.python}
        return (*self.sets, *(f"engines.0.{key}={json.dumps(value)}" for key, value in engine.items() if value))


def run_bisection(asked: Asked) -> ExitCode:
    """Conduct a bisection, print it, and return the exit code. One that was ended goes on in its folder."""
    from harness.cli.options import parse_wait
    from harness.history.bisection.run import conduct
    from harness.run.lock import machine_to_ourselves
    from harness.store.run import new_run_path

    wait_s, budget_s = parse_wait(asked.wait), _budget_s(asked.budget)
    plan = _plan(asked)
    title = str(plan.scenario["name"])
    folder = asked.out or new_run_path(f"{title}-bisect")
    measure = _Measure(asked, plan, folder)
    measure.check()
    _open(plan, folder)
    say(f"{plan.steps} steps from {plan.versions[0].short} to {plan.versions[-1].short}; stored in {folder}")
    try:
        with machine_to_ourselves(title, wait_s=wait_s):
            outcome = conduct(plan, folder, measure, partial(_tell, plan, quiet=asked.quiet), budget_s)
    except (Interrupted, StopSignal) as error:
        raise Interrupted(f"interrupted: the same command with --out {folder} goes on where it was") from error
    return _show(plan, outcome, folder, as_json=asked.as_json)


def _plan(asked: Asked) -> Plan:
    """Return the plan. Raises UsageError, naming the option, for a value that is none."""
    from harness.cli.commands.compare import parse_margins
    from harness.history.bisection.build import PLACEHOLDER
    from harness.history.bisection.run import Plan
    from harness.history.bisection.versions import of_file, of_git
    from harness.run.job import parse_only
    from harness.scenario.compare import parse_pairs

    if asked.fail_on is None:
        raise UsageError("name the number that changed, such as --fail-on 'ttft p95 +10%'")
    parse_margins([asked.fail_on])
    if not any(PLACEHOLDER in text for text in (*asked.templates, asked.build or "")):
        raise UsageError(f"every version would be the same: write {PLACEHOLDER} in --command, --set or --build")
    try:
        pairs = parse_pairs(asked.pairs or "4..8")
    except ValueError as error:
        raise UsageError(f"--pairs: {error}") from error
    if asked.most <= pairs.most:
        raise UsageError(f"--most {asked.most}: write more than the {pairs.most} pairs of the good and the bad version")
    ends = (asked.good, asked.bad)
    versions = of_git(asked.repo, *ends) if asked.steps is None else of_file(asked.steps, *ends)
    scenario = _scenario(asked, versions[0])
    return Plan(
        tuple(versions),
        asked.fail_on,
        scenario.seed,
        pairs,
        asked.most,
        scenario.resolved(),
        asked.templates,
        asked.build,
        dict(parse_only(asked.only)),
    )


def _budget_s(text: str | None) -> float | None:
    from harness.units import parse_duration_s

    try:
        return None if text is None else parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"--budget: {error}") from error


def _scenario(asked: Asked, version: Version) -> Scenario:
    """Return the scenario of a version."""
    from harness.history.bisection.build import filled
    from harness.scenario.reader import load

    if asked.scenario is None:
        raise UsageError("name the scenario that shows the change: --scenario FILE")
    return load(asked.scenario, sets=[filled(text, version) for text in asked.templates])


def _open(plan: Plan, folder: Path) -> None:
    """Store the plan in a new folder, or find the same plan there. Raises RunDirectoryExists if another is."""
    from harness.history.bisection.run import STATE, Plan
    from harness.store.run import refuse_existing

    if not (folder / STATE).exists():
        refuse_existing(folder)
        plan.save(folder)
    elif Plan.read(folder) != plan:
        raise RunDirectoryExists(f"{folder} holds another bisection; repeat its command to go on, or choose --out")


@dataclass(slots=True)
class _Measure:
    """Maker of the run of one start: it builds the version, and measures after the build has ended."""

    asked: Asked
    plan: Plan
    folder: Path
    _scenarios: dict[str, Scenario] = field(default_factory=dict)
    _build: Any = None

    def check(self) -> None:
        """Raise UsageError if the good version's scenario cannot run."""
        from harness.cli.gate import start_job
        from harness.comparison.rounds import Start
        from harness.schedule.matrix import check_runnable

        scenario = self._of(self.plan.versions[0])
        check_runnable(start_job(scenario, self.plan.only, Start(1, "base", self.plan.seed), Path("base")).planned)

    def __call__(self, version: Version, start: Start, place: Path) -> None:
        from harness.cli.gate import measure_start, start_job
        from harness.history.bisection.build import Build

        if self._build is None:
            self._build = Build(self.asked.build, self.folder)
        self._build(version)
        if not self.asked.quiet:
            say(f"{place.parent.parent.name}, pair {start.pair}: {version.short}")
        job = start_job(self._of(version), self.plan.only, start, place)
        measure_start(job, consent=self.asked.yes)

    def _of(self, version: Version) -> Scenario:
        if version.name not in self._scenarios:
            self._scenarios[version.name] = _scenario(self.asked, version)
        return self._scenarios[version.name]


def _tell(plan: Plan, outcome: Outcome, *, quiet: bool) -> None:
    """Print what is known after some pairs."""
    if quiet or not outcome.found.chances:
        return
    likely = sorted(outcome.found.guilty, key=lambda step: -outcome.found.chances[step - 1])[:3]
    named = [f"{plan.versions[step].short} {100 * outcome.found.chances[step - 1]:.0f} %" for step in likely]
    say(f"{outcome.pairs} pairs: {', '.join(named)}" + (f" · {outcome.ended}" if outcome.ended else ""))


def _show(plan: Plan, outcome: Outcome, folder: Path, *, as_json: bool) -> ExitCode:
    """Store and print the result, and return the exit code."""
    from harness.history.bisection.run import as_data
    from harness.store.streams import storage_errors, write_atomically
    from reports.writers.bisection import as_markdown, show

    data: Mapping[str, Any] = as_data(plan, outcome)
    text = json.dumps(data, indent=2, allow_nan=False)
    with storage_errors(folder):
        write_atomically(folder / "bisection.json", text.encode())
        write_atomically(folder / "bisection.md", as_markdown(data).encode())
    if as_json:
        print(text)
    else:
        show(data, table_console())
    return ExitCode(data["exit_code"])
