"""`harness tune`: candidates race, and the best of them is confirmed against the defaults by fresh pairs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.output import say, table_console
from harness.errors import ExitCode, Interrupted, RunDirectoryExists, UsageError
from harness.signals import StopSignal

if TYPE_CHECKING:
    from harness.comparison.gate import Gate
    from harness.comparison.rounds import Start
    from harness.run.job import Job
    from harness.scenario.model import Scenario
    from harness.tuning.candidates import Candidate, Target
    from harness.tuning.plan import Plan
    from harness.tuning.run import Outcome

FORMATS = ("html", "md", "json")
MASKED = "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Options that decide what is tuned; the folder stores them, to go on with it.

    Attributes:
        over: Axes, as written.
        number: Number that shall get better; None for that of the load.
        load: Name of the load; None for the only one.
    """

    scenario: str
    over: list[str]
    number: str | None
    margin: str | None
    starts: str
    pairs: str
    budget: str | None
    load: str | None
    sets: list[str]
    only: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """Options of this command alone. out: folder; None for a new one."""

    out: Path | None
    dry_run: bool
    quiet: bool
    as_json: bool
    yes: bool
    wait: str


@dataclass(frozen=True, slots=True)
class Tuning:
    """Plan with the candidates that follow from it."""

    plan: Plan
    target: Target
    candidates: Sequence[Candidate]


def run_tuning(asked: Asked, how: How) -> ExitCode:
    """Conduct a tuning, print it, and return the exit code. One that was ended goes on in its folder."""
    from contextlib import nullcontext

    from harness.cli.options import parse_wait
    from harness.run.job import check_plans
    from harness.run.lock import machine_to_ourselves, run_to_ourselves
    from harness.schedule.estimate import check_budget
    from harness.schedule.matrix import check_runnable, needs_the_machine
    from harness.store.run import new_run_path
    from harness.tuning.run import conduct

    wait_s, tuning = parse_wait(how.wait), tuning_of(asked)
    title = tuning.plan.name
    folder = how.out or new_run_path(f"{title}-tune")
    first = _first(tuning)
    check_runnable(first.planned)
    check_plans(first.planned)
    check_budget(first.scenario, first.planned, consent=how.yes)
    if how.dry_run:
        return _preview(tuning)
    _open(tuning.plan, folder)
    say(f"{len(tuning.candidates)} candidates, the defaults among them; stored in {folder}")
    maker = _Maker(tuning, quiet=how.quiet, consent=how.yes)
    ours = needs_the_machine(first.planned)
    lock = machine_to_ourselves(title, wait_s=wait_s) if ours else nullcontext()
    try:
        with lock, run_to_ourselves(folder):
            found = conduct(tuning.plan, tuning.candidates, folder, maker, maker.tell)
    except (Interrupted, StopSignal) as error:
        raise Interrupted(
            f"interrupted: `harness tune --resume {shlex.quote(str(folder))}` goes on where it was"
        ) from error
    data = data_of(tuning, found, folder)
    store(data, folder)
    return show(data, as_json=how.as_json)


def tuning_of(asked: Asked) -> Tuning:
    """Return the plan and its candidates. Raises UsageError, naming the option, for a value that is none."""
    from harness.run.job import parse_only
    from harness.scenario.address import is_address
    from harness.scenario.reader import load
    from harness.tuning.axes import parse_axes
    from harness.tuning.candidates import candidates, one_start, target_of

    axes = parse_axes(asked.over)
    if is_address(asked.scenario):
        raise UsageError(f"{asked.scenario}: a running server cannot be tuned; name a scenario whose engine starts it")

    def read(more: Sequence[str]) -> Scenario:
        return one_start(load(asked.scenario, sets=[*asked.sets, *more]), asked.load)

    scenario, only = read(()), parse_only(asked.only)
    target = target_of(scenario, only)
    every = candidates(target, axes, read)
    return Tuning(_plan(asked, every, only), target, every)


def _plan(asked: Asked, candidates: Sequence[Candidate], only: Mapping[str, str]) -> Plan:
    from harness.cli.asked import without_secret
    from harness.scenario.compare import parse_pairs
    from harness.tuning.plan import Plan, parse_rounds
    from harness.units import parse_duration_s

    def parsed(option: str, parse: Any, text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise UsageError(f"{option}: {error}") from error

    rounds, pairs = parsed("--starts", parse_rounds, asked.starts), parsed("--pairs", parse_pairs, asked.pairs)
    budget_s = None if asked.budget is None else parsed("--budget", parse_duration_s, asked.budget)
    command = {**asdict(asked), "sets": [without_secret(text) for text in asked.sets]}
    about = (rounds, pairs, budget_s, tuple(one.stored() for one in candidates), dict(only), command)
    scenario = candidates[0].scenario
    assert scenario is not None  # the defaults are a scenario that was read
    return Plan(tuple(asked.over), _number(asked, scenario), scenario.seed, *about)


def _number(asked: Asked, scenario: Scenario) -> str:
    """Return the number that is tuned, with its margin. Raises UsageError for a text that is none."""
    from harness.scenario.margins import margin_by_default, margin_of, metric_of

    number = asked.number or ("ttft p50" if scenario.workload.stream else "e2e p50")
    metric, named = metric_of(number), f"--for {number}"
    if number.rstrip().endswith("%") or number.rstrip().endswith("pp"):
        raise UsageError(f"{named}: name the number alone, and write the size as --margin")
    if metric is not None and metric.takes_statistics and len(number.split()) < 2:
        raise UsageError(f"{named}: name a statistic of it, such as --for '{number} p95'")
    try:
        found = margin_by_default(number) if asked.margin is None else margin_of(number, asked.margin)
    except ValueError as error:
        raise UsageError(f"{'--for' if asked.margin is None else '--for and --margin'}: {error}") from error
    if found.guards or found.of_quality:
        raise UsageError(f"{named}: no candidate may lose in it; name a speed, such as output_tokens_per_s")
    return found.text


def _first(tuning: Tuning) -> Job:
    """Return what the first start of the defaults measures."""
    from harness.comparison.rounds import BASE, Start

    return _job(tuning.candidates[0], Start(1, BASE, tuning.plan.seed), Path(), tuning.plan.only)


def _job(candidate: Candidate, start: Start, place: Path, only: Mapping[str, str]) -> Job:
    from harness.cli.gate import start_job

    assert candidate.scenario is not None  # what cannot be tried is out of the race
    return start_job(candidate.scenario, only, start, place)


def _open(plan: Plan, folder: Path) -> None:
    """Store the plan in a new folder, or find the same plan there. Raises RunDirectoryExists if another is."""
    from harness.store.run import refuse_existing
    from harness.tuning.plan import STATE, Plan

    if not (folder / STATE).exists():
        refuse_existing(folder)
        plan.save(folder)
    elif Plan.read(folder) != plan:
        raise RunDirectoryExists(f"{folder} holds a tuning of another scenario or command; choose another with --out")


def tuning_folder(name: str) -> Path | None:
    """Return the folder of a stored tuning by its path, or its name in `runs/`; None if there is none."""
    from harness.store.run import RUNS
    from harness.tuning.plan import STATE

    return next((folder for folder in (Path(name), RUNS / name) if (folder / STATE).is_file()), None)


def stored(name: str) -> tuple[Asked, Path]:
    """Return the options of a stored tuning, and its folder. Raises UsageError if there is none to go on with."""
    from harness.tuning.plan import STATE, Plan

    folder = tuning_folder(name)
    if folder is None:
        raise UsageError(f"{name} holds no tuning: it has no {STATE}")
    command = Plan.read(folder).command
    if set(command) != {field.name for field in fields(Asked)}:
        raise UsageError(f"{folder / STATE} lacks the options of its command; begin a new tuning")
    if any(text.endswith(f"={MASKED}") for text in command["sets"]):
        raise UsageError(f"{folder} has not stored its secrets; repeat the command that began it, with --out {folder}")
    return Asked(**command), folder


def report_again(folder: Path, others: Sequence[str], out: Path | None, *, as_json: bool) -> ExitCode:
    """Make the reports of a stored tuning again, from its runs; return its exit code.

    Args:
        others: Formats, exports and columns that were asked for; all but the formats of a tuning are refused.
        out: Folder of the reports; None for that of the tuning.
    """
    from harness.tuning.candidates import restored, target_of
    from harness.tuning.plan import STATE, Plan
    from harness.tuning.run import outcome

    wanted = [name for text in others for name in text.split(",")]
    if wrong := next((name for name in wanted if name not in FORMATS), None):
        raise UsageError(f"{wrong}: a tuning has no such report; write --format {','.join(FORMATS)}")
    plan = Plan.read(folder)
    candidates = restored(plan.candidates, folder / STATE)
    assert candidates[0].scenario is not None  # of the defaults
    tuning = Tuning(plan, target_of(candidates[0].scenario, plan.only), candidates)
    data = data_of(tuning, outcome(plan, candidates, folder), folder)
    store(data, out or folder, wanted or FORMATS)
    return show(data, as_json=as_json)


def data_of(tuning: Tuning, found: Outcome, folder: Path) -> dict[str, Any]:
    """Return a tuning as plain data."""
    from harness.tuning.plain import as_data

    return as_data(tuning.plan, tuning.target, tuning.candidates, found, folder)


def store(data: Mapping[str, Any], folder: Path, formats: Sequence[str] = FORMATS) -> None:
    """Write the files of a tuning. Raises StorageFailed if one cannot be written."""
    from harness.store.streams import storage_errors, write_atomically
    from reports.writers import tuning

    writers = {"html": tuning.as_html, "md": tuning.as_markdown, "json": _as_json}
    for name in formats:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / f"tuning.{name}", writers[name](data).encode())


def _as_json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def show(data: Mapping[str, Any], *, as_json: bool) -> ExitCode:
    """Print a tuning, and return its exit code."""
    from reports.writers import tuning

    if as_json:
        print(_as_json(data), end="")
    else:
        tuning.show(data, table_console())
    return ExitCode(data["exit_code"])


class _Maker:
    """Maker of the runs, and teller of the progress on standard error."""

    def __init__(self, tuning: Tuning, *, quiet: bool, consent: bool) -> None:
        self._tuning, self._quiet, self._consent = tuning, quiet, consent

    def start(self, candidate: Candidate, start: Start, folder: Path) -> None:
        """Make the run of a start; one whose configuration is skipped, such as for memory, stores the reason."""
        from harness.cli.asked import command_line
        from harness.cli.gate import measure_start
        from harness.cli.progress import SilentWatcher
        from harness.run.run import execute
        from harness.schedule.cells import Skip

        stage = folder.parent.name.replace("-", " ")
        self._say(f"{stage if stage.startswith('round') else f'confirming {stage}'}: {candidate.name}")
        job = _job(candidate, start, folder, self._tuning.plan.only)
        if all(isinstance(cell, Skip) for cell in job.planned):
            execute(job.scenario, job.planned, folder, SilentWatcher(), command=command_line())
        else:
            measure_start(job, consent=self._consent)

    def scores(self, defaults: Candidate, best: Candidate, gate: Gate, folder: Path) -> None:
        """Score both for quality, against the same reference."""
        from harness.cli.gate_quality import score_sides
        from harness.comparison.rounds import BASE, HEAD, Start

        sides = {BASE: defaults, HEAD: best}
        only = self._tuning.plan.only
        jobs = {side: _job(one, Start(1, side, gate.seed), folder, only) for side, one in sides.items()}
        score_sides(jobs, folder, None, quiet=self._quiet)

    def tell(self, found: Outcome) -> None:
        """Tell what is known after a round or a look at the pairs."""
        from reports.format import count

        names = {one.number: one.name for one in self._tuning.candidates}
        if found.look is not None and found.best is not None:
            word = found.look.comparison.gating[0].word.value
            self._say(f"{found.look.pairs} pairs: {names[found.best]} against the defaults: {word}")
            return
        standing = found.race.standing
        left = ", ".join(names[one] for one in standing.left[:4]) + (", ..." if len(standing.left) > 4 else "")
        ended = found.ended or standing.ended
        told = f"{count(standing.rounds, 'round')}: {len(standing.left)} left ({left})"
        self._say(told + (f" · {ended}" if ended else ""))

    def _say(self, line: str) -> None:
        if not self._quiet:
            say(line)


def _preview(tuning: Tuning) -> ExitCode:
    """Print the candidates, the stages, and how long they take."""
    from harness.cli.commands.listing import rounded_time
    from harness.comparison.rounds import BASE, Start
    from harness.schedule.cells import Skip
    from harness.schedule.duration import run_time_s

    plan, times = tuning.plan, list[float]()
    print(f"tune {plan.number} of {plan.name}\n")
    for one in tuning.candidates:
        why = one.why_not
        if one.scenario is not None:
            job = _job(one, Start(1, BASE, plan.seed), Path(), plan.only)
            why = next((cell.reason for cell in job.planned if isinstance(cell, Skip)), "")
            times += [] if why else [run_time_s(job.scenario, job.planned)]
        print(f"  {one.name}" + (f"  cannot be tried: {why}" if why else ""))
    rounds, pairs = plan.rounds, plan.pairs
    least_s, most_s = rounds.least * sum(times), rounds.most * sum(times)
    each_s = 2 * max(times, default=0.0)
    print(f"\nrace            {rounds.least} to {rounds.most} starts of each, fewer of those that are surely worse")
    print(f"confirming      {pairs.least} to {pairs.most} pairs of the best and the defaults")
    total = [least_s + pairs.least * each_s, most_s + pairs.most * each_s]
    print(f"time            about {rounded_time(total[0])} to {rounded_time(total[1])}")
    if plan.budget_s is not None:
        short = ", which is too short for the least: some may not be tried" if plan.budget_s < total[0] else ""
        print(f"budget          {rounded_time(plan.budget_s)}{short}")
    return ExitCode.HOLDS
