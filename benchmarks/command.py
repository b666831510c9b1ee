"""This project's command, as a benchmark runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def harness(folder: Path, *arguments: str) -> None:
    """Run the command in a folder. Raises RuntimeError with its last words if it fails.

    Data of a busy machine are taken (exit code 4): the errors of the predictions say how much that was.
    """
    command, environment = [sys.executable, "-m", "harness", *arguments], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 4):
        raise RuntimeError(f"harness {' '.join(arguments)}: exit code {done.returncode}: {done.stderr[-600:]}")
