"""Confirmation of a new alert: both builds are measured in turns, before anybody is told.

Either by the scenario of a night, which can start both, or by a command of the user's.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand

from harness.cli.output import say
from harness.errors import ExitCode, HarnessError, UsageError

if TYPE_CHECKING:
    from harness.history.board import Alert
    from harness.history.series import Series
    from harness.scenario.model import Scenario

OPTION, BY_NIGHT = "--confirm", "nights"
"""The option, and its value where it stands alone."""
_SAYS = {ExitCode.REGRESSED: True, ExitCode.HOLDS: False}
"""What the exit code of a gate says of a change."""


class Confirming(TyperCommand):
    """Command whose option `--confirm` may stand alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, with a value for the option if it has none."""
        with_next = zip_longest(args, args[1:], fillvalue="-")
        named = [f"{OPTION}={BY_NIGHT}" if (one, after[:1]) == (OPTION, "-") else one for one, after in with_next]
        return super().parse_args(ctx, named)


def check_confirm(command: str | None) -> None:
    """Raise UsageError for a command that cannot confirm."""
    if command is None or command == BY_NIGHT:
        return
    try:
        shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{OPTION}: {error}; check the quotes") from error
    if not any(place in command for place in ("{before}", "{after}")):
        raise UsageError(f"{OPTION}: write {{before}} and {{after}} where the command takes the two versions")


def confirmation(command: str | None, series: Sequence[Series]) -> Callable[[Alert], bool | None] | None:
    """Return what confirms an alert: whether the change is there, None if nobody knows. None without a command."""
    from harness.history.board import identity

    if command is None:
        return None
    if command != BY_NIGHT:
        return lambda alert: by_command(shlex.split(command), alert)
    known = {identity(one.key): one for one in series}
    return lambda alert: by_night(alert, known)


def by_command(words: Sequence[str], alert: Alert) -> bool | None:
    """Return what a command says whose exit code is that of a gate.

    `{before}` and `{after}` stand for the first label that differs; they are swapped for an improvement, so that exit
    code 5 says that the change is there, and 0 that it is not.
    """
    from harness.history.detector.states import State

    if not alert.suspects:
        return None
    _, before, after = alert.suspects[0]
    if alert.state is State.IMPROVED:
        before, after = after, before
    return _said([word.replace("{before}", before).replace("{after}", after) for word in words])


def by_night(alert: Alert, series: Mapping[str, Series]) -> bool | None:
    """Return what a gate of both builds says; None, with a line why, if no night's scenario can start them."""
    from harness.history.confirmation import gate_options, scenario_text

    lead = series[alert.lead]
    scenario = _scenario(lead)
    if scenario is None:
        say(
            f"harness: unconfirmed: no run of {lead.key.scenario!r} is in runs/, whose scenario could start both builds"
        )
        return None
    options = gate_options(alert, lead, scenario)
    if not options:
        why = "the scenario has no `command` with a label that differs, such as {label.commit}"
        say(f"harness: unconfirmed: {why}, and no variants of such names")
        return None
    with tempfile.TemporaryDirectory(prefix="harness-confirm-") as folder:
        file = Path(folder) / "night.yaml"
        file.write_text(scenario_text(scenario, lead.key), encoding="utf-8")
        words = [sys.executable, "-P", "-m", "harness", "run", str(file), *options, "--quiet", "--wait", "2h"]
        return _said(words)


def _scenario(lead: Series) -> Scenario | None:
    """Return the scenario of the last night of a series whose run is there; None without one."""
    from harness.scenario.reader import restore
    from harness.store.run import Run, find_run

    for point in reversed(lead.points):
        try:
            run = Run.open(find_run(point.run))
            return restore(run.manifest.scenario, run.path)
        except HarnessError:
            continue
    return None


def _said(words: Sequence[str]) -> bool | None:
    """Return what a gate says, whose output goes to standard error. Raises UsageError if it cannot start."""
    say(f"harness: confirms with {shlex.join(words)}")
    try:
        code = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode
    except OSError as error:
        raise UsageError(f"{OPTION}: {words[0]}: {error.strerror}; name a command that can be started") from error
    return next((says for known, says in _SAYS.items() if code == known), None)
