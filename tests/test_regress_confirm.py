"""`harness regress --confirm` with servers: both builds of an alert are started and measured in turns."""

from __future__ import annotations

import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command import ROOT, scenario

from tests import histories
from tests.forked import harness, program
from tests.harness.cli.test_regress import NIGHTS, Store, ended
from tests.histories import Noise, series

pytestmark = pytest.mark.slow
PAUSES = {"c69": "0.005", "c70": "0.01"}
"""Pauses between tokens of the builds before and after the change, in seconds."""


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two builds, and the run of a night whose command names the commit."""
    folder = tmp_path_factory.mktemp("nights")
    (folder / "built").mkdir()
    for commit, pause in PAUSES.items():
        (folder / "built" / commit).write_text(pause)
    server = shlex.join([sys.executable, str(ROOT / "tests" / "engines" / "tiny_server.py")])
    inner = f"exec {server} {{port}} --models m --pause $(cat {folder}/built/{{label.commit}})"
    engine = {"engine": "http", "command": f"sh -c {shlex.quote(inner)}"}
    load = [{"kind": "single_user", "requests": 4, "timeout": "5s", "name": "chat"}]
    scenario(folder, engines=[engine], load=load)
    night = ("run", "scenario.yaml", "--label", "commit=c70", "--out", "runs/r79", "--format", "json", "-q")
    made = harness(*night, cwd=folder)
    assert made.code == 0, made.err
    return folder


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `regress` starts as `python -P -m harness` is forked, as other commands of tests are."""
    script, variables = program()
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "-P -m harness" ] || exit 99\nshift 3\n{script}\n')
    interpreter.chmod(0o755)
    for name, value in {**variables, "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "executable", str(interpreter))


@pytest.mark.usefixtures("forked")
def test_an_alert_is_confirmed_before_it_is_told(monkeypatch: pytest.MonkeyPatch, nights: Path) -> None:
    """By the scenario of the last night: each start has the build of its own side."""
    monkeypatch.chdir(nights)
    monkeypatch.setattr(histories, "FIRST", datetime.now(UTC) - timedelta(days=NIGHTS - 1, hours=6))
    of = {"engine": "http", "model": "", "level": "", "metric": "tpot_ms", "statistic": "p50"}
    slower = series(Noise(NIGHTS).step(70, 0.6).values, **of)
    done = ended(monkeypatch, Store([slower]), "--confirm")
    assert (done.exit_code, "; confirmed by pairs" in done.stdout) == (5, True), done.output
