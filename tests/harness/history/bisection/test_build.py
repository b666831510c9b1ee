"""Builds end before the load begins, with every process that they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import TrialFailed
from harness.history.bisection.build import Build
from harness.history.bisection.versions import Version

ONE, OTHER = Version("a" * 40), Version("v2")


def test_a_version_is_built_before_it_is_measured_after_another(tmp_path: Path) -> None:
    """Not again while it stays: one folder may be built in turns."""
    build = Build(f"echo {{commit}} >> {tmp_path}/built", tmp_path)
    for version in (ONE, ONE, OTHER, ONE):
        build(version)
    assert (tmp_path / "built").read_text().split() == [ONE.name, OTHER.name, ONE.name]


def test_processes_that_a_build_left_behind_have_ended(tmp_path: Path) -> None:
    """Also where the shell did not wait for them."""
    fifo = tmp_path / "fifo"
    Build(f"mkfifo {fifo}; (cat {fifo}; echo late >> {tmp_path}/end) & echo soon > {fifo}", tmp_path)(ONE)
    assert (tmp_path / "end").read_text() == "late\n"


def test_a_build_that_fails_is_a_sentence(tmp_path: Path) -> None:
    """With its status and the file that has its output; it is tried again."""
    build = Build("echo broken >&2; exit 3", tmp_path)
    for _ in range(2):
        with pytest.raises(TrialFailed, match=r"aaaaaaaaaa: the build ended with exit status 3; see .*aaaaaaaaaa.log"):
            build(ONE)
    assert (tmp_path / f"build-{ONE.short}.log").read_text() == "broken\n"


def test_a_version_is_one_word_of_the_shell(tmp_path: Path) -> None:
    """Whatever its name is."""
    Build(f"printf '%s' {{commit}} > {tmp_path}/name", tmp_path)(Version("a b;c"))
    assert (tmp_path / "name").read_text() == "a b;c"


def test_a_signal_while_a_build_is_started_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits until the process is known, and then ends it."""
    real: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(*arguments: Any, **named: Any) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **named))
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Build("exec sleep 600", tmp_path)(ONE)
    assert started[0].returncode == -signal.SIGKILL
