"""Ctrl-C after the last request: what was measured is stored, and the sentence says how to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.cli import run as command
from harness.errors import ExitCode, Interrupted
from harness.run.job import Job
from harness.scenario.reader import load
from harness.schedule.matrix import expand
from harness.store.manifest import Manifest
from harness.store.run import RunWriter

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
        raise Interrupted("interrupted")

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
