"""The command line in the process of the test, where everything is loaded already: for tests about what a run finds.

Signals, standard streams and an environment of its own need a process of its own: `forked.harness`, or
`command.harness`.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest
from command import Ended

from harness.cli.app import run_command


def harness(*arguments: str, cwd: Path) -> Ended:
    """A command, run to its end; each cell of a run has its process, as ever."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr("sys.argv", ["harness", *arguments])
        code = run_command()
    return Ended(int(code), out.getvalue(), err.getvalue())
