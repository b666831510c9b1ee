"""`harness run`: run a scenario, store it, and report."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import options as shared
from harness.cli.output import error_console, say
from harness.cli.report import show, write
from harness.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.cli.report import Report
    from harness.scenario.model import Scenario
    from harness.schedule.cells import Cell, Skip

_RESUME = "Continue a stored run (folder, name or latest): complete trials are kept, all others are measured again."


class Driver(StrEnum):
    """Load generators that `--driver` names."""

    INPROCESS = "inprocess"
    LOCUST = "locust"


def run(
    scenario: Annotated[Path | None, typer.Argument(help=shared.SCENARIO_HELP, show_default=False)] = None,
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
    yes: Annotated[bool, typer.Option("--yes", help="Allow load on a remote server without a `budget`.")] = False,
    wait: shared.Wait = "0s",
    driver: Annotated[Driver | None, typer.Option(help="Load generator. [default: as the loads say]")] = None,
    expect_workers: Annotated[int, typer.Option(min=0, help="With Locust: number of `harness worker`s.")] = 0,
    workers_within: Annotated[str, typer.Option(help="Time to wait for these workers.")] = "2m",
    master_bind_host: Annotated[str, typer.Option(help="Address for workers; * for all interfaces.")] = "127.0.0.1",
    master_bind_port: Annotated[int, typer.Option(help="Port for workers.", min=0, max=65535)] = 5557,
    web: Annotated[bool, typer.Option("--web", help="With Locust: serve its web page, on this machine only.")] = False,
) -> None:
    """Run a scenario, store it, and report."""
    from harness.drivers.locust.options import options
    from harness.run.job import new_job, stored_job
    from harness.schedule.estimate import check_budget

    wait_s = shared.parse_wait(wait)
    chosen = None if driver is None else driver.value
    files, kinds = shared.check_exports(exports), shared.check_formats(formats)
    given = {"SCENARIO": scenario, "--out": out, "--set": sets, "--label": labels, "--only": only, "--driver": chosen}
    given["--columns"], sets = columns, [*sets, *shared.column_sets(columns)]
    job = new_job(scenario, out, sets, labels, only, chosen) if resume is None else stored_job(resume, given)
    within_s, bind = shared.parse_wait(workers_within, "--workers-within"), (master_bind_host, master_bind_port)
    locust = options(job.scenario, expect_workers=expect_workers, web=web, workers_within_s=within_s, bind=bind)
    if dry_run:
        from harness.cli.listing import plan_text

        print(plan_text(job.scenario, job.planned, job.folder))
        check_budget(job.scenario, job.planned, consent=True)
        return
    job.check()
    check_budget(job.scenario, job.planned, consent=yes)
    how: dict[str, Any] = {"wait_s": wait_s, "quiet": quiet, "locust": locust, "stored": job.stored}
    report = measure(job.scenario, job.planned, job.folder, kinds, **how)
    report.export(files)
    show(report, as_json=as_json, quiet=quiet)
    raise typer.Exit(report.exit_code)


def measure(
    scenario: Scenario,
    planned: Sequence[Cell | Skip],
    folder: Path,
    formats: tuple[str, ...] | None,
    *,
    wait_s: float,
    quiet: bool,
    locust: Mapping[str, Any],
    stored: bool = False,
) -> Report:
    """Run, store and report; progress goes to standard error.

    Args:
        stored: The folder holds a run to continue.
    """
    from contextlib import nullcontext

    from harness.cli.course import Course
    from harness.cli.progress import ConsoleWatcher, SilentWatcher
    from harness.run.lock import machine_to_ourselves
    from harness.run.run import execute, go_on
    from harness.schedule.matrix import needs_the_machine
    from harness.schedule.reachable import check_servers
    from harness.store.run import complete_trials
    from harness.verdict.forecast import foretold

    for line in (*check_servers(planned), *(() if quiet else foretold(planned))):
        say(line)
    lock = machine_to_ourselves(scenario.title, wait_s=wait_s) if needs_the_machine(planned) else nullcontext()
    course = Course.of(planned, complete_trials(folder) if stored else ())
    console = ConsoleWatcher(error_console(), folder, course, columns=scenario.columns)
    shown = nullcontext(SilentWatcher()) if quiet else console
    with lock, shown as watcher:
        if stored:
            go_on(folder, watcher, command=command_line(), locust=locust)
        else:
            execute(scenario, planned, folder, watcher, command=command_line(), locust=locust)
    try:
        return write(folder, formats)
    except Interrupted as error:
        raise Interrupted(f"interrupted while the report was made; all is stored: {remaining(folder)}") from error


def remaining(run: Path) -> str:
    """Return the command that makes the report of a stored run, or first measures what it lacks."""
    from harness.store.run import Run

    whole = Run.open(run).manifest.status != "interrupted"
    return f"`harness report {run}` makes it" if whole else f"`harness run --resume {run}` measures the rest"


def command_line() -> str:
    """Return the command that repeats this run; values that `--set` gives to keys with a secret's name are left out."""
    from harness.scenario.source import looks_secret

    def shown(argument: str) -> str:
        key, sign, _ = argument.partition("=")
        secret = sign and any(looks_secret(part) for part in key.split("."))
        return f"{key}=***" if secret else argument

    return shlex.join(["harness", *map(shown, sys.argv[1:])])
