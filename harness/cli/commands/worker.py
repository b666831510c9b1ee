"""`harness worker`: send a share of the load of a run that another machine leads.

Each trial gets a fresh process (`harness.drivers.locust.worker`), because Locust changes the interpreter it runs in.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from harness.cli.options import parse_wait
from harness.cli.output import say
from harness.drivers.locust.seals import VARIABLE, check_exposed
from harness.errors import ExitCode, HarnessError, TrialFailed, UsageError
from harness.signals import StopSignal

NEXT_TRIAL_WITHIN_S = 900.0
END_S = 5.0
_ALLOW_ENV = "Environment variable that the scenario may send to the server; repeat for several."


def worker(
    master_host: Annotated[str, typer.Option(help="Machine that leads the run.", show_default=False)],
    master_port: Annotated[int, typer.Option(help="Its --master-bind-port.", min=1, max=65535)] = 5557,
    within: Annotated[str, typer.Option(help="Time to wait for the master.")] = "10m",
    allow_env: Annotated[list[str], typer.Option(metavar="NAME", help=_ALLOW_ENV, show_default=False)] = [],  # noqa: B006
) -> None:
    """Send a share of the load of `harness run --driver locust --expect-workers N`, which runs elsewhere."""
    check_exposed(master_host, "--master-host", os.environ)
    if VARIABLE in allow_env:
        raise UsageError(f"--allow-env {VARIABLE}: the secret of master and workers goes to no server; leave it out")
    trials = serve(master_host, master_port, allow_env, within_s=parse_wait(within, "--within"), say=say)
    say(f"the run is over; this worker sent its share of {trials} trial{'s' if trials > 1 else ''}")


class WorkerFailed(HarnessError):
    """The share could not be sent; the exit code is that of the process that tried."""

    def __init__(self, sentence: str, code: int) -> None:
        super().__init__(sentence)
        self.exit_code = ExitCode(code)


def serve(host: str, port: int, allowed: Sequence[str], *, within_s: float, say: Callable[[str], None]) -> int:
    """Take part in one run; return the number of trials in which this worker sent its share.

    Args:
        allowed: Names of the environment variables that the run's scenario may send to its server.
        within_s: Time to wait for the master; for the next trial it is 15 minutes.

    Raises TrialFailed or WorkerFailed if there is no master, if it vanishes, or if the share cannot be sent from here,
    and StopSignal after Ctrl-C.
    """
    trials = 0
    say(f"waiting for the master at {host}:{port}")
    while True:
        outcome = _take_part(host, port, NEXT_TRIAL_WITHIN_S if trials else within_s, allowed)
        if "failed" in outcome:
            raise WorkerFailed(outcome["failed"], outcome["code"])
        trials += 1
        if not outcome["more"]:
            return trials
        say("the trial is over; waiting for the next")


def _take_part(host: str, port: int, within_s: float, allowed: Sequence[str]) -> dict[str, Any]:
    """Take part in one trial in a process of its own; return the outcome that it prints."""
    from harness.processes import ended_how

    with _process(host, port, within_s, allowed) as running:
        assert running.stdout is not None
        with contextlib.suppress(ValueError):  # nothing, or a part of a line: the process is ending
            outcome: dict[str, Any] = json.loads(running.stdout.readline())
            return outcome
        status = running.wait()
    raise TrialFailed(f"the process that was to send the load {ended_how(status)}")


@contextlib.contextmanager
def _process(host: str, port: int, within_s: float, allowed: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Start the process of one trial, and end it when the block ends."""
    from harness.processes import module_command, own_packages_first

    with subprocess.Popen(
        module_command("harness.drivers.locust.worker", host, str(port), str(within_s), *allowed),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=own_packages_first(os.environ),
        start_new_session=True,  # Ctrl-C reaches this process only, which passes it on
    ) as running:
        try:
            yield running
        except (KeyboardInterrupt, StopSignal):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGTERM)
            raise
        finally:
            assert running.stdin is not None
            running.stdin.close()
            try:
                running.wait(END_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
