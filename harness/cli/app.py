"""The `harness` command: its subcommands, and the sentence and exit code that an error becomes."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import traceback
from typing import Annotated, NoReturn

import typer

from engines.secrets import hide_environment, masked
from harness.cli.commands.baseline import baseline
from harness.cli.commands.bisect import bisect
from harness.cli.commands.compare import compare
from harness.cli.commands.doctor import doctor
from harness.cli.commands.history import history
from harness.cli.commands.import_ import import_
from harness.cli.commands.init import init
from harness.cli.commands.listing import list_
from harness.cli.commands.open import open_
from harness.cli.commands.plan import plan
from harness.cli.commands.quality import quality
from harness.cli.commands.regress import regress
from harness.cli.commands.report import report
from harness.cli.commands.rerun import rerun
from harness.cli.commands.run import run
from harness.cli.commands.saturate import saturate
from harness.cli.commands.selftest import selftest
from harness.cli.commands.tune import tune
from harness.cli.commands.validate import validate
from harness.cli.commands.worker import worker
from harness.cli.confirm import Confirming
from harness.cli.leave import leave
from harness.cli.limits import check_limits
from harness.cli.options import check_pairs
from harness.cli.output import lost_output, open_outlets, say
from harness.errors import ExitCode, HarnessError, code_of, first_that_applies, refusal
from harness.signals import ASKED, StopSignal, stop_signals

app = typer.Typer(
    help="Benchmark and load-test LLM inference.",
    epilog="Begin with `harness run quickstart`, or `harness init` to write a scenario of your own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


LOADS_LIBRARIES = ("run", "saturate", "tune", "bisect", "quality", "worker", "report", "doctor")
"""Commands that load numpy, scipy and pyarrow."""


@app.callback(invoke_without_command=True)
def harness(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Benchmark and load-test LLM inference."""
    if context.invoked_subcommand in LOADS_LIBRARIES:
        check_limits()
    if version:
        from harness import __version__

        typer.echo(__version__)
        raise typer.Exit


COMMANDS = (run, saturate, tune, rerun, quality, worker, report, compare, bisect, regress, plan, validate, init)
for command in COMMANDS:
    app.command(cls=Confirming if command is regress else None)(command)
app.command(name="import")(import_)
app.command(name="list")(list_)
app.command(name="open")(open_)
app.add_typer(baseline, name="baseline")
app.add_typer(history, name="history")
app.add_typer(selftest, name="selftest")
app.command()(doctor)


def main() -> NoReturn:
    """Run the command; turn an error into a sentence and an exit code."""
    hide_environment(os.environ)
    for number in stop_signals():
        signal.signal(number, interrupt)
    outlets = open_outlets()
    code = run_command()
    if (why := lost_output(outlets)) is not None:
        say(f"harness: {why}")
        code = first_that_applies({code, ExitCode.TRIAL_FAILED})
    sys.exit(code)


def run_command() -> ExitCode:
    """Run the command and return its exit code."""
    try:
        check_pairs(sys.argv[1:])
        app()
    except StopSignal:
        say("harness: interrupted")
        return ExitCode.INTERRUPTED
    except SystemExit as end:
        return ExitCode(int(end.code or 0))
    except HarnessError as error:
        say(f"harness: {masked(str(error))}")
        return error.exit_code
    except Exception as error:
        if (why := refusal(error)) is not None:
            say(f"harness: {masked(why)}")
            return code_of(error)
        say(f"harness: this is a defect of harness, please report it: {type(error).__name__}: {masked(str(error))}")
        say(f"harness: details are in {save_traceback()}")
        return ExitCode.TRIAL_FAILED
    return ExitCode.HOLDS


def interrupt(number: int, *_: object) -> NoReturn:
    """Raise StopSignal on the first signal outside a run, where nothing is in flight; exit at once on the second."""
    ASKED.append(number)
    if len(ASKED) > 1:
        leave()
    raise StopSignal(ExitCode.INTERRUPTED)


def save_traceback() -> str:
    """Write the traceback to a temporary file, for maintainers; return the file's name."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="harness-defect-", suffix=".txt", delete=False) as file:
            file.write(masked(traceback.format_exc()))
    except OSError as error:
        return f"no file: {error.strerror or error}"
    return file.name
