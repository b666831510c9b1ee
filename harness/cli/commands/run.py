"""`harness run`: run a scenario, store it, and report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options as shared
from harness.cli.asked import Asked, Driver, command_line
from harness.cli.commands.report import show, write
from harness.cli.output import error_console, say
from harness.errors import ExitCode, Interrupted, UsageError
from harness.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.cli.commands.report import Report
    from harness.run.job import Job
    from harness.scenario.address import Wanted
    from harness.scenario.model import Scenario

_SCENARIO = "Scenario file, the name of a shipped one, such as quickstart, or the address of a server."
BESIDE = "another run is measuring on this machine ({other}): this one takes processors from it, and lacks them itself"
_RESUME = "Continue a stored run (folder, name or latest): complete trials are kept, all others are measured again."


def run(
    scenario: Annotated[str | None, typer.Argument(help=_SCENARIO, metavar="SCENARIO|URL", show_default=False)] = None,
    rate: shared.Rate = None,
    users: shared.Users = None,
    max_concurrency: shared.MaxConcurrency = None,
    retries: shared.Retries = None,
    duration: shared.Duration = None,
    prompt_tokens: shared.PromptLengths = None,
    output_tokens: shared.OutputLengths = None,
    limits: shared.Limits = [],  # noqa: B006
    dialect: shared.Dialect = None,
    served_model: shared.ServedModel = None,
    api_key_env: shared.ApiKeyEnv = None,
    out: shared.Out = None,
    sets: shared.Sets = [],  # noqa: B006
    labels: shared.Labels = [],  # noqa: B006
    only: shared.Only = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help=_RESUME, show_default=False)] = None,
    formats: shared.Formats = [],  # noqa: B006
    exports: shared.Exports = [],  # noqa: B006
    columns: shared.Columns = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan of the run, and stop.")] = False,
    quiet: shared.Quiet = False,
    as_json: shared.AsJson = False,
    yes: shared.Yes = False,
    wait: shared.Wait = "0s",
    driver: Annotated[Driver | None, typer.Option(help="Load generator. [default: as the loads say]")] = None,
    expect_workers: shared.ExpectWorkers = 0,
    workers_within: shared.WorkersWithin = "2m",
    master_bind_host: shared.MasterBindHost = "127.0.0.1",
    master_bind_port: shared.MasterBindPort = 5557,
    against: shared.Against = None,
    base_sets: shared.BaseSets = [],  # noqa: B006
    base_url: shared.BaseUrl = None,
    base_command: shared.BaseCommand = None,
    base_python: shared.BasePython = None,
    pairs: shared.Pairs = None,
    budget: shared.GateBudget = None,
    fail_on: shared.FailOn = [],  # noqa: B006
    inconclusive: shared.RunInconclusive = None,
    across: shared.Across = [],  # noqa: B006
    alternate: shared.Alternate = False,
    cache_audit: shared.CacheAudit = False,
    web: Annotated[bool, typer.Option("--web", help="With Locust: serve its web page, on this machine only.")] = False,
) -> None:
    """Run a scenario, store it, and report."""
    raise typer.Exit(carry_out(Asked(**locals())))


def carry_out(asked: Asked) -> ExitCode:
    """Run what was asked for, and return the exit code."""
    from harness.cli.cache_audit import audited
    from harness.cli.gate import gate_of, run_gate
    from harness.drivers.locust.options import options

    wait_s, within_s = shared.parse_wait(asked.wait), shared.parse_wait(asked.workers_within, "--workers-within")
    files, kinds = shared.check_exports(asked.exports), shared.check_formats(asked.formats)
    job = _job(asked.scenario, asked.resume, asked.of_url, asked.changes, quiet=asked.quiet)
    if (gate := gate_of(asked, None if job.stored else job.scenario.compare)) is not None:
        return run_gate(gate, lambda more: _of_file(asked, more), asked, wait_s)
    bind = (asked.master_bind_host, asked.master_bind_port)
    workers: dict[str, Any] = {"expect_workers": asked.expect_workers, "workers_within_s": within_s, "bind": bind}
    locust = options(job.scenario, web=asked.web, **workers)
    if asked.dry_run:
        _preview(job)
        return ExitCode.HOLDS
    job.check(consent=asked.yes)
    if asked.cache_audit:
        job = audited(job, quiet=asked.quiet)
    report = measure(job, kinds, wait_s=wait_s, quiet=asked.quiet, locust=locust)
    report.export(files)
    show(report, as_json=asked.as_json, quiet=asked.quiet)
    return report.exit_code


def _of_file(asked: Asked, more: Sequence[str]) -> Scenario:
    """Return the scenario in a file, with further `--set`s."""
    from harness.scenario.address import Wanted

    return _read(asked.scenario, Wanted(**asked.of_url), [*asked.sets, *more], asked.labels, quiet=asked.quiet)


def _job(
    named: str | None, resume: str | None, of_url: Mapping[str, Any], changes: Mapping[str, Any], *, quiet: bool
) -> Job:
    """Return what is to be measured: a scenario, a server, or the rest of a stored run.

    Args:
        of_url: Options for a server by its address (`Wanted`).
        changes: Other options that change the scenario or its run, by their names.
    """
    from harness.run.job import new_job, stored_job
    from harness.scenario.address import Wanted

    wanted = Wanted(**of_url)
    if resume is not None:
        return stored_job(resume, {"SCENARIO": named, **dict.fromkeys(wanted.stated, True), **changes})
    sets = [*changes["--set"], *shared.column_sets(changes["--columns"])]
    scenario = _read(named, wanted, sets, changes["--label"], quiet=quiet)
    driver = changes["--driver"]
    return new_job(scenario, changes["--out"], changes["--only"], driver and driver.value)


def _preview(job: Job) -> None:
    """Print the plan. Raises UsageError if it exceeds the budget."""
    from harness.cli.commands.listing import plan_text
    from harness.schedule.estimate import check_budget

    print(plan_text(job.scenario, job.planned, job.folder))
    check_budget(job.scenario, job.planned, consent=True)


def _read(named: str | None, wanted: Wanted, sets: Sequence[str], labels: Sequence[str], *, quiet: bool) -> Scenario:
    """Return the scenario in a file, or for the server at an address."""
    from harness.cli.address import scenario_for
    from harness.scenario.address import is_address
    from harness.scenario.reader import load

    if named is None:
        why = "as in `harness run quickstart`, the address of a server, or a stored run to continue: --resume RUN"
        raise UsageError(f"name a scenario, {why}")
    if is_address(named):
        return scenario_for(named, wanted, sets, labels, quiet=quiet)
    if wanted.stated:
        raise UsageError(
            f"{wanted.stated[0]} goes with the address of a server; for a file use --set, as load.0.rate=4"
        )
    return load(named, sets=sets, labels=labels)


def measure(
    job: Job, formats: tuple[str, ...] | None, *, wait_s: float, quiet: bool, locust: Mapping[str, Any]
) -> Report:
    """Run, store and report; progress goes to standard error."""
    from contextlib import nullcontext

    from harness.cli.course import Course
    from harness.cli.progress import ConsoleWatcher, SilentWatcher
    from harness.run.lock import machine_to_ourselves, other_run
    from harness.run.run import execute, go_on
    from harness.schedule.matrix import needs_the_machine
    from harness.schedule.reachable import check_servers
    from harness.store.run import complete_trials
    from harness.verdict.forecast import foretold

    planned, folder, command = job.planned, job.folder, command_line()
    ours = needs_the_machine(planned)
    beside = () if ours or (other := other_run()) is None else (BESIDE.format(other=other),)
    for line in (*check_servers(planned), *beside, *(() if quiet else foretold(planned))):
        say(line)
    lock = machine_to_ourselves(job.scenario.title, wait_s=wait_s) if ours else nullcontext()
    course = Course.of(planned, complete_trials(folder) if job.stored else ())
    console = ConsoleWatcher(error_console(), folder, course, columns=job.scenario.columns)
    shown = nullcontext(SilentWatcher()) if quiet else console
    with lock, shown as watcher:
        if job.stored:
            go_on(folder, watcher, command=command, locust=locust)
        else:
            execute(job.scenario, planned, folder, watcher, command=command, locust=locust, notes=(*job.notes, *beside))
    try:
        return write(folder, formats)
    except StopSignal as error:
        raise Interrupted(f"interrupted while the report was made; all is stored: {remaining(folder)}") from error


def remaining(run: Path) -> str:
    """Return the command that makes the report of a stored run, or first measures what it lacks."""
    from harness.store.run import Run

    whole = Run.open(run).manifest.status != "interrupted"
    shown = shlex.quote(str(run))
    return f"`harness report {shown}` makes it" if whole else f"`harness run --resume {shown}` measures the rest"
