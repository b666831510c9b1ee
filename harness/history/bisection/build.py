"""Builds: a command that is run to its end before a version is measured, so that no load runs beside it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from harness.errors import TrialFailed
from harness.history.bisection.versions import Version
from harness.processes import ended_how, stop_signals_held
from harness.store.streams import storage_errors

PLACEHOLDER = "{commit}"
PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.05


def filled(text: str, version: Version) -> str:
    """Return a text with the version's name in place of `{commit}`."""
    return text.replace(PLACEHOLDER, version.name)


class Build:
    """Builder that is called before each start, and runs its command if the version is another than before.

    So one folder may be built again and again, and a folder for each version costs a build that does nothing.
    """

    def __init__(self, command: str | None, folder: Path) -> None:
        self._command, self._folder = command, folder
        self._built: Version | None = None

    def __call__(self, version: Version) -> None:
        """Build a version, with the output in a file. Raises TrialFailed, one sentence, if that fails."""
        if self._command is None or version == self._built:
            return
        self._built = None
        log = self._folder / f"build-{version.short.replace('/', '-')}.log"
        command = self._command.replace(PLACEHOLDER, shlex.quote(version.name))
        with storage_errors(self._folder), log.open("wb") as output:
            status = _run_to_its_end(command, output.fileno())
        if status:
            raise TrialFailed(f"{version.short}: the build {ended_how(status)}; see {log}")
        self._built = version


def _run_to_its_end(command: str, output: int) -> int:
    """Run a command by the shell, wait for all processes of its group, and return its status."""
    with ExitStack() as ended:
        with stop_signals_held():
            process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            ended.callback(process.wait)
            ended.callback(_end_group, process.pid)
        status = process.wait()
        end = time.monotonic() + PATIENCE_S
        while _group_lives(process.pid):
            if time.monotonic() > end:
                raise TrialFailed(f"the build left processes that still ran after {PATIENCE_S:.0f} s: `{command}`")
            time.sleep(_LOOK_EVERY_S)
    return status


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _end_group(group: int) -> None:
    if _group_lives(group):
        os.killpg(group, signal.SIGKILL)
