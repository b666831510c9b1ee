"""Plays one case: truth server, hardship, `harness run`, and the outcome."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import psutil

from benchmarks.battery.cases import Case
from benchmarks.battery.hardship import Run, hardship
from benchmarks.battery.outcome import Outcome, outcome_of
from benchmarks.battery.server import truth_server

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 900  # with the wait for other runs on this machine


def play(case: Case, program: Path, folder: Path, number: int) -> Outcome:
    """Run a case and read its outcome. Its files are in `folder`, under its number and name; the number is the seed."""
    name = f"{number:03d}-" + re.sub("[^a-z0-9]+", "-", case.name.lower()).strip("-")
    run, scenario, log = folder / name, folder / f"{name}.yaml", folder / f"{name}.truth"
    with ExitStack() as stack:
        server = None
        if case.simulated is None:
            server = stack.enter_context(truth_server(program, log, {**case.server, "seed": number}))
        scenario.write_text(case.scenario(server.port if server else 0) + f"seed: {number}\n")
        options = ["--out", str(run), "--quiet", "--format", "json,csv", "--wait", "10m"]
        command = [sys.executable, "-m", "harness.cli.main", "run", str(scenario), *options]
        command, then = stack.enter_context(hardship(case.hardship, command, server))
        output = stack.enter_context((folder / f"{name}.log").open("w"))
        before_s, began_s = _foreign_cpu_s(), time.monotonic()
        exit_code = _run(command, output, then)
    seconds = time.monotonic() - began_s
    foreign_s = _foreign_cpu_s() - before_s
    found = outcome_of(case, run, log if server else None)
    found.exit_code, found.seconds, found.foreign_cores = exit_code, seconds, max(0.0, foreign_s / seconds)
    return found


def _run(command: list[str], output: IO[str], then: Callable[[Run], None]) -> int | None:
    """Return the exit code; None if the run had to be ended."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
    try:
        then(process)
        return process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        return None
    finally:
        process.terminate()
        process.wait()


def _foreign_cpu_s() -> float:
    """Return the CPU time that others have used, and what a hypervisor took, in seconds.

    The processes that were started here count as soon as they have ended.
    """
    host = psutil.cpu_times()
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    used = host.user + host.nice + host.system + getattr(host, "steal", 0.0)
    return float(used - sum(one.ru_utime + one.ru_stime for one in own))
