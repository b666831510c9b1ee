"""`harness run`: run a scenario, store it, and report."""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Exports, Formats, Labels, Only, Sets, check_exports, check_formats, parse_wait
from harness.cli.output import error_console, say
from harness.cli.report import show, write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.cli.report import Report
    from harness.scenario.model import Scenario
    from harness.schedule.cells import Cell, Skip


class Driver(StrEnum):
    """Who sends the load, as `--driver` has it."""

    INPROCESS = "inprocess"
    LOCUST = "locust"


OneScenarioFile = Annotated[Path | None, typer.Argument(help="The scenario file.", show_default=False)]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Go on with a stored run (its folder, its name, or latest) instead: what is "
        "complete is kept, everything else is measured again.",
        show_default=False,
    ),
]
WhoSends = Annotated[
    Driver | None, typer.Option(help="Who sends all loads: our own client, or Locust. Default: as the loads say.")
]
ExpectWorkers = Annotated[
    int, typer.Option(min=0, help="With Locust: let so many `harness worker` processes send the load.")
]


def run(
    scenario: OneScenarioFile = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; must be new. Default: runs/<time>-<name>.")
    ] = None,
    sets: Sets = [],  # noqa: B006
    labels: Labels = [],  # noqa: B006
    only: Only = None,
    resume: Resume = None,
    formats: Formats = [],  # noqa: B006
    exports: Exports = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and stop.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing while running.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Load a server on another machine without a budget.")] = False,
    wait: Annotated[str, typer.Option(help="Wait this long for another run on this machine to end.")] = "0s",
    driver: WhoSends = None,
    expect_workers: ExpectWorkers = 0,
    workers_within: Annotated[str, typer.Option(help="How long to wait for them.")] = "2m",
    master_bind_host: Annotated[str, typer.Option(help="Where they connect; * for all interfaces.")] = "127.0.0.1",
    master_bind_port: Annotated[int, typer.Option(help="The port for that.", min=0, max=65535)] = 5557,
    web: Annotated[bool, typer.Option("--web", help="With Locust: show its web page, on this machine only.")] = False,
) -> None:
    """Run a scenario, store it, and report."""
    from harness.drivers.locust.options import options
    from harness.run.job import new_job, stored_job
    from harness.schedule.estimate import check_budget

    patience_s = parse_wait(wait)
    who = None if driver is None else driver.value
    files = check_exports(exports)
    what = {"SCENARIO": scenario, "--out": out, "--set": sets, "--label": labels, "--only": only, "--driver": who}
    job = new_job(scenario, out, sets, labels, only, who) if resume is None else stored_job(resume, what)
    within_s, bind = parse_wait(workers_within, "--workers-within"), (master_bind_host, master_bind_port)
    locust = options(job.scenario, expect_workers=expect_workers, web=web, workers_within_s=within_s, bind=bind)
    if dry_run:
        from harness.cli.listing import plan_text

        print(plan_text(job.scenario, job.planned, job.folder))
        return
    job.check()
    check_budget(job.scenario, job.planned, consent=yes)
    kinds = check_formats(formats)
    report = measure(
        job.scenario, job.planned, job.folder, kinds, wait_s=patience_s, quiet=quiet, locust=locust, stored=job.stored
    )
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
    """Run, store and report; progress goes to standard error. stored: the folder holds a run, to go on with."""
    from contextlib import nullcontext

    from harness.cli.progress import ConsoleWatcher, SilentWatcher
    from harness.run.lock import machine_to_ourselves
    from harness.run.run import execute, go_on
    from harness.schedule.matrix import needs_the_machine
    from harness.verdict.forecast import foretold

    for line in () if quiet else foretold(planned):
        say(line)
    lock = machine_to_ourselves(scenario.title, wait_s=wait_s) if needs_the_machine(planned) else nullcontext()
    with lock, nullcontext(SilentWatcher()) if quiet else ConsoleWatcher(error_console()) as watcher:
        if stored:
            go_on(folder, watcher, command=command_line(), locust=locust)
        else:
            execute(scenario, planned, folder, watcher, command=command_line(), locust=locust)
    return write(folder, formats)


def command_line() -> str:
    """The command that repeats this run; what `--set` gives to a key with a secret's name is left out."""
    from harness.scenario.source import looks_secret

    def shown(argument: str) -> str:
        key, sign, _ = argument.partition("=")
        secret = sign and any(looks_secret(part) for part in key.split("."))
        return f"{key}=***" if secret else argument

    return shlex.join(["harness", *map(shown, sys.argv[1:])])
