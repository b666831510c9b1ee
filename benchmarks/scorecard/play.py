"""Plays one gate as a user does: `harness run` on a scenario, and its comparison read afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.scorecard.arms import Planned
from benchmarks.scorecard.outcome import VERDICTS, Outcome, read_outcome

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path(__file__).with_name("plugin")
END_LIMIT_S = 60.0  # of a gate that was interrupted
_HOG = "while True: pass"


class GateFailed(Exception):
    """A gate ended without a verdict."""


def play(one: Planned, folder: Path) -> Outcome:
    """Make a gate, or go on with one that was interrupted. Raises GateFailed if it comes to no verdict."""
    scenario, gate, log = (folder / f"{one.key}{end}" for end in (".yaml", "", ".log"))
    scenario.write_text(one.arm.scenario(one.seed))
    options = [*one.arm.options(), "--out", str(gate), "--quiet", "--wait", "10m"]
    began = time.monotonic()
    with hogs(one.arm.hogs):
        code = _run([sys.executable, "-m", "harness.cli.main", "run", str(scenario), *options], log)
    if code not in VERDICTS:
        raise GateFailed(f"{one.key}: exit code {code}; see {log}")
    return read_outcome(gate, one.arm.name, one.key, one.seed, code, time.monotonic() - began)


def environment() -> dict[str, str]:
    """Return our environment, in which the engine of the embedded arms is found."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, PLUGIN)))}


def _run(command: list[str], log: Path) -> int:
    """Return the exit code. If we end, the gate ends too, and may go on later."""
    with log.open("a") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT)
        try:
            return process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(END_LIMIT_S)


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Run busy loops beside the block, on one core each in turn."""
    cores = sorted(os.sched_getaffinity(0)) if count else []
    running = [subprocess.Popen([sys.executable, "-c", _HOG]) for _ in range(count)]
    try:
        for number, process in enumerate(running):
            os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
