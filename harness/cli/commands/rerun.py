"""`harness rerun`: make a stored run again, with its scenario, seed and requests."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import options as shared
from harness.cli.output import say
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.run.rerun import Repeat
    from harness.scenario.model import Scenario

_RUN = "Folder or name of a run, latest, baseline:NAME, or KEY=VALUE of a label."


def rerun(
    run: Annotated[str, typer.Argument(help=_RUN, show_default=False)],
    out: shared.Out = None,
    labels: shared.Labels = [],  # noqa: B006
    formats: shared.Formats = [],  # noqa: B006
    exports: shared.Exports = [],  # noqa: B006
    quiet: shared.Quiet = False,
    as_json: shared.AsJson = False,
    yes: shared.Yes = False,
    wait: shared.Wait = "0s",
    expect_workers: shared.ExpectWorkers = 0,
    workers_within: shared.WorkersWithin = "2m",
    master_bind_host: shared.MasterBindHost = "127.0.0.1",
    master_bind_port: shared.MasterBindPort = 5557,
) -> None:
    """Repeat a stored run: the same scenario, seed and requests, in a new folder."""
    from harness.cli.commands.report import show
    from harness.cli.commands.run import measure
    from harness.drivers.locust.options import options
    from harness.run.job import Job
    from harness.run.rerun import repeat
    from harness.store.run import find_run, new_run_path

    wait_s, within_s = shared.parse_wait(wait), shared.parse_wait(workers_within, "--workers-within")
    files, kinds = shared.check_exports(exports), shared.check_formats(formats)
    path = find_run(run)
    again = repeat(path)
    if not expect_workers and "--expect-workers" in (again.original.command or ""):
        raise UsageError(f"{path} was sent by workers; add --expect-workers N, as in {again.original.command}")
    scenario = _labelled(again.scenario, labels)
    folder = out or new_run_path(scenario.title)
    job = Job(scenario, again.planned, folder, stored=False, notes=again.notes)
    bind = (master_bind_host, master_bind_port)
    locust = options(scenario, web=False, expect_workers=expect_workers, bind=bind, workers_within_s=within_s)
    job.check(consent=yes)
    for note in again.notes:
        say(note)
    report = measure(job, kinds, wait_s=wait_s, quiet=quiet, locust=locust)
    report.export(files)
    show(report, as_json=as_json, quiet=quiet)
    _tell_the_rest(again, path, folder)
    raise typer.Exit(report.exit_code)


def _labelled(scenario: Scenario, labels: list[str]) -> Scenario:
    """Return the scenario with further labels. Raises UsageError for a text that is none."""
    wrong = next((text for text in labels if not text.partition("=")[0] or "=" not in text), None)
    if wrong is not None:
        raise UsageError(f"--label {wrong}: write KEY=VALUE, such as commit=abc")
    more = {key: value for key, _, value in (text.partition("=") for text in labels)}
    return scenario.model_copy(update={"labels": {**scenario.labels, **more}}) if more else scenario


def _tell_the_rest(again: Repeat, path: Path, folder: Path) -> None:
    """Name the loads whose requests are not those of the stored run, and the command that compares both."""
    from harness.comparison.differences import differences, refused
    from harness.comparison.sides import Side
    from harness.run.rerun import other_plans
    from harness.store.run import Run

    made = Run.open(folder).manifest
    if others := other_plans(again.original, made):
        say(f"other requests than in {path}: {', '.join(others)}")
    sides = Side(str(path), path, again.original, ()), Side(str(folder), folder, made, ())
    kinds = dict.fromkeys(one.kind for one in refused(differences(*sides, ()), ()))
    words = ["harness", "compare", str(path), str(folder), *(f"--across={kind}" for kind in kinds)]
    say(f"next    {shlex.join(words)}")
