"""Ctrl-C after the last request: what was measured is stored, and the sentence says how to go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.cli.commands import run as command
from harness.errors import ExitCode, Interrupted
from harness.run.job import Job
from harness.scenario.reader import load
from harness.schedule.matrix import expand
from harness.signals import StopSignal
from harness.store.manifest import Manifest
from harness.store.run import RunWriter
from tests.command import environment

HOW: dict[str, Any] = {"wait_s": 0.0, "quiet": True, "locust": {}}
SCENARIO = """
engines: [{engine: simulated, options: {ttft_ms: 1, tpot_ms: 1}}]
workload: {output_tokens: 2}
load: [{kind: single_user, requests: 3}]
"""


def test_an_interrupt_while_the_report_is_made_names_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exit code of an interrupted run."""

    def interrupted(*_: object) -> NoReturn:
        raise StopSignal(130)

    monkeypatch.setattr(command, "write", interrupted)
    (tmp_path / "s.yaml").write_text(SCENARIO)
    scenario, folder = load(tmp_path / "s.yaml"), tmp_path / "run"
    with pytest.raises(Interrupted) as caught:
        command.measure(Job(scenario, list(expand(scenario)), folder, stored=False), None, **HOW)
    assert f"`harness report {folder}` makes it" in str(caught.value)
    assert caught.value.exit_code == ExitCode.INTERRUPTED


def test_a_run_that_lacks_trials_names_the_command_that_measures_them(tmp_path: Path) -> None:
    """The report is made at its end."""
    RunWriter(tmp_path / "run", Manifest(format=1, status="interrupted", cells=[]))
    assert command.remaining(tmp_path / "run") == f"`harness run --resume {tmp_path / 'run'}` measures the rest"


SWALLOWING = """
import os, signal, sys
from pathlib import Path
import harness.cli.app as app
import harness.scenario.reader as reader
whole = reader.load

def load(*given, **named):
    try:  # as a library does around an optional import
        for _ in range({times}):
            os.kill(os.getpid(), signal.{name})
    except Exception:
        pass
    class Lost:
        def __del__(self):
            os.kill(os.getpid(), signal.{name})
    if {destructor}:
        Lost()
    return whole(*given, **named)

reader.load = load
sys.argv = ["harness", "run", "s.yaml", "--out", "run", "--format", "md"]
app.main()
"""


def command_with(folder: Path, **values: object) -> subprocess.CompletedProcess[str]:
    """The command, in which reading the scenario is interrupted."""
    (folder / "s.yaml").write_text(SCENARIO)
    program = SWALLOWING.format(**{"times": 1, "name": "SIGINT", "destructor": False} | values)
    run = [sys.executable, "-P", "-c", program]
    return subprocess.run(run, cwd=folder, env=environment(), capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP"])
def test_no_library_stops_a_signal(tmp_path: Path, name: str) -> None:
    """An `except Exception` around the moment of the signal does not let the run begin."""
    done = command_with(tmp_path, name=name)
    assert (done.returncode, done.stderr) == (130, "harness: interrupted\n")
    assert not (tmp_path / "run").exists()


def test_a_signal_whose_exception_is_lost_ends_the_run_before_its_first_request(tmp_path: Path) -> None:
    """In a destructor, Python prints every exception and goes on."""
    done = command_with(tmp_path, times=0, destructor=True)
    assert done.returncode == 130, done.stderr
    stored = json.loads((tmp_path / "run" / "manifest.json").read_text())
    (cell,) = stored["cells"]
    assert (stored["status"], [trial["status"] for trial in cell["trials"]]) == ("interrupted", ["pending"])


def test_a_second_signal_ends_the_command_at_once(tmp_path: Path) -> None:
    """Also where the first one was lost."""
    done = command_with(tmp_path, times=1, destructor=True)
    assert done.returncode == 130
