"""The command line: parse, call, print, exit code. The only module that prints or ends the process."""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from harness.errors import (
    ExitCode,
    HarnessError,
    Interrupted,
    Problem,
    ScenarioError,
    UsageError,
    first_that_applies,
)
from harness.outlets import lost_output, open_outlets
from harness.quality_command import quality
from harness.stop_signals import stop_signals
from reports.characters import for_terminal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from harness.matrix import Cell, Skip
    from harness.report import Report
    from harness.scenario import Scenario

FORMATS = ("html", "md", "csv", "parquet", "json", "junit", "plots")
EXPORTS = ("prometheus",)

app = typer.Typer(
    help="Benchmark and load-test LLM inference.",
    epilog="Begin with `harness run scenarios/quickstart.yaml`, or `harness init` to write a scenario of your own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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
Sets = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a key, such as load.0.rate=4.")]
Labels = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", help="Label the run, such as commit=abc.")]
Formats = Annotated[
    list[str],
    typer.Option("--format", metavar="NAME", help=f"Write: {', '.join(FORMATS)}. Default: all; plots of 24 trials."),
]
Exports = Annotated[
    list[str],
    typer.Option("--export", metavar="KIND:FILE", help="Write the summary for another program: prometheus:FILE."),
]
Only = Annotated[
    str | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="Only these cells: engine=, quantization=, variant=, model=, repetition=; with * and, between several, |.",
    ),
]
WhoSends = Annotated[
    Driver | None, typer.Option(help="Who sends all loads: our own client, or Locust. Default: as the loads say.")
]
ExpectWorkers = Annotated[
    int, typer.Option(min=0, help="With Locust: let so many `harness worker` processes send the load.")
]


@app.callback(invoke_without_command=True)
def harness(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Benchmark and load-test LLM inference."""
    if version:
        from harness import __version__

        print(__version__)
        raise typer.Exit


@app.command()
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
    from harness.estimate import check_budget
    from harness.jobs import new_job, stored_job
    from harness.locust_order import options

    patience_s = parse_wait(wait)
    who = None if driver is None else driver.value
    files = check_exports(exports)
    what = {"SCENARIO": scenario, "--out": out, "--set": sets, "--label": labels, "--only": only, "--driver": who}
    job = new_job(scenario, out, sets, labels, only, who) if resume is None else stored_job(resume, what)
    within_s, bind = parse_wait(workers_within, "--workers-within"), (master_bind_host, master_bind_port)
    locust = options(job.scenario, expect_workers=expect_workers, web=web, workers_within_s=within_s, bind=bind)
    if dry_run:
        from harness.listing import plan_text

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

    from harness.console import ConsoleWatcher, SilentWatcher
    from harness.exclusive import machine_to_ourselves
    from harness.matrix import needs_the_machine
    from harness.report import write
    from harness.run import execute, go_on
    from harness.sample_size import foretold

    for line in () if quiet else foretold(planned):
        say(line)
    lock = machine_to_ourselves(scenario.title, wait_s=wait_s) if needs_the_machine(planned) else nullcontext()
    with lock, nullcontext(SilentWatcher()) if quiet else ConsoleWatcher(error_console()) as watcher:
        if stored:
            go_on(folder, watcher, command=command_line(), locust=locust)
        else:
            execute(scenario, planned, folder, watcher, command=command_line(), locust=locust)
    return write(folder, formats)


app.command()(quality)


@app.command()
def worker(
    master_host: Annotated[str, typer.Option(help="The machine that leads the run.", show_default=False)],
    master_port: Annotated[int, typer.Option(help="Its --master-bind-port.", min=1, max=65535)] = 5557,
    within: Annotated[str, typer.Option(help="How long to wait for it.")] = "10m",
) -> None:
    """Send a share of the load of `harness run --driver locust --expect-workers N`, which runs elsewhere."""
    from harness.worker import serve

    trials = serve(master_host, master_port, within_s=parse_wait(within, "--within"), say=say)
    say(f"the run is over; this worker sent its share of {trials} trial{'s' if trials > 1 else ''}")


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run's folder, its name, or latest.", show_default=False)],
    formats: Formats = [],  # noqa: B006
    exports: Exports = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")] = False,
    out: Annotated[Path | None, typer.Option(help="Where to write the reports. Default: into the run.")] = None,
) -> None:
    """Make the reports of a stored run again."""
    from harness.report import write
    from harness.store import find_run

    files = check_exports(exports)
    made = write(find_run(run), check_formats(formats), out=out)
    made.export(files)
    show(made, as_json=as_json, quiet=False)
    raise typer.Exit(made.exit_code)


@app.command()
def validate(
    scenarios: Annotated[list[Path], typer.Argument(help="Scenario files.", show_default=False)],
    sets: Sets = [],  # noqa: B006
) -> None:
    """Check scenario files; every problem with its place and what to write instead."""
    from harness.sample_size import foretold_of
    from harness.scenario import load

    problems: list[Problem] = []
    for path in scenarios:
        try:
            checked = load(path, sets=sets)
        except ScenarioError as error:
            problems += error.problems
        else:
            print(f"{path}: fine")
            for line in foretold_of(checked):
                say(f"{path}: {line}")
            for name in checked.variables_not_set():
                say(f"{path}: the environment variable {name} is not set; `harness run` will need it")
    if problems:
        raise ScenarioError(problems)


@app.command()
def init(
    template: Annotated[
        str, typer.Option(help="A shipped scenario to begin with; see `harness list scenarios`.")
    ] = "quickstart",
    out: Annotated[Path | None, typer.Option(help="The file to write. Default: print it.")] = None,
) -> None:
    """Write a commented scenario to begin with."""
    from harness.templates import init_template

    text = init_template(template)
    if out is None:
        print(text, end="")
        return
    if out.exists():
        raise UsageError(f"{out} exists; choose another name with --out")
    try:
        out.write_text(text)
    except OSError as error:
        raise UsageError(f"{out}: cannot write: {error.strerror}; choose another name with --out") from error
    say(f"wrote {out}; check it with `harness validate {out}`, run it with `harness run {out}`")


@app.command(name="list")
def list_(what: Annotated[str, typer.Argument(help="scenarios, engines or models.", show_default=False)]) -> None:
    """List the shipped scenarios, the engines, or the built-in models."""
    from harness.listing import listing

    print(listing(what))


@app.command()
def doctor(
    no_calibrate: Annotated[bool, typer.Option("--no-calibrate", help="Only look; do not measure the client.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Calibrate in seconds, with fewer and smaller loads.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything found as JSON.")] = False,
) -> None:
    """Check this machine, and find the largest load that can be measured exactly here; under a minute."""
    from harness.doctor import examine
    from harness.doctor import show as show_examination

    found = examine(calibrating=not no_calibrate, quick=quick, say=say)
    if as_json:
        print(found.as_json())
    else:
        show_examination(found, table_console())
    raise typer.Exit(found.exit_code)


def show(made: Report, *, as_json: bool, quiet: bool) -> None:
    """The data on standard output; where the reports are on standard error."""
    if as_json:
        from reports.summaries import as_json as json_text

        print(json_text(made.data), end="")
    else:
        from reports import terminal

        terminal.show(made.data, table_console())
    if not quiet:
        for path in made.headline_files():
            say(f"wrote {path}")


def table_console() -> Console:
    """Where the table goes: as wide as the terminal, or wide enough for any table where the output is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def check_formats(formats: list[str]) -> tuple[str, ...] | None:
    """The formats asked for, also as comma-separated lists; None, the default, is all of them."""
    asked = [name for text in formats for name in text.split(",")]
    for name in asked:
        if name not in FORMATS:
            raise UsageError(f"--format {name}: there is no such report; write one of {', '.join(FORMATS)}")
    return tuple(asked) or None


def check_exports(exports: list[str]) -> list[tuple[str, Path]]:
    """(kind, file) of each; what could not be written at the end is refused at the beginning."""
    found = []
    for text in exports:
        kind, _, file = text.partition(":")
        if kind not in EXPORTS or not file:
            raise UsageError(f"--export {text}: there is no such export; write {EXPORTS[0]}:FILE")
        if not Path(file).parent.is_dir() or Path(file).is_dir():
            raise UsageError(f"--export {text}: {file} cannot be a file; name one in a folder that exists")
        found.append((kind, Path(file)))
    return found


def parse_wait(text: str, option: str = "--wait") -> float:
    """Seconds."""
    from harness.quantities import parse_duration_s

    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def command_line() -> str:
    """The command that repeats this run; what `--set` gives to a key with a secret's name is left out."""
    from harness.scenario_source import looks_secret

    def shown(argument: str) -> str:
        key, sign, _ = argument.partition("=")
        secret = sign and any(looks_secret(part) for part in key.split("."))
        return f"{key}=***" if secret else argument

    return shlex.join(["harness", *map(shown, sys.argv[1:])])


def say(text: str) -> None:
    """A line on standard error, or several; what a server said in them is not obeyed."""
    print("\n".join(map(for_terminal, text.splitlines())), file=sys.stderr)


def error_console() -> Console:
    """Where progress goes."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def main() -> NoReturn:
    """Entry point: run the command, turn whatever went wrong into a sentence and an exit code."""
    for number in stop_signals():
        signal.signal(number, interrupt)
    outlets = open_outlets()
    code = carried_out()
    if (why := lost_output(outlets)) is not None:
        say(f"harness: {why}")
        code = first_that_applies({code, ExitCode.TRIAL_FAILED})
    sys.exit(code)


def carried_out() -> ExitCode:
    """Run the command; what its end means."""
    try:
        app()
    except SystemExit as end:
        return ExitCode(int(end.code or 0))
    except HarnessError as error:
        say(f"harness: {error}")
        return error.exit_code
    except Exception as error:
        say(f"harness: this is a defect of harness, please report it: {type(error).__name__}: {error}")
        say(f"harness: details are in {save_traceback()}")
        return ExitCode.TRIAL_FAILED
    return ExitCode.HOLDS


def interrupt(*_: object) -> NoReturn:
    """Ctrl-C, SIGTERM or SIGHUP outside a run: nothing is in flight that would have to be finished."""
    raise Interrupted("interrupted")


def save_traceback() -> str:
    """Keep what only a maintainer can read; where."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="harness-defect-", suffix=".txt", delete=False) as file:
            traceback.print_exc(file=file)
    except OSError as error:
        return f"no file: {error.strerror or error}"
    return file.name


if __name__ == "__main__":
    main()
