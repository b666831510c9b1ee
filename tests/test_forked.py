"""A command that is forked cannot be told from one that is started: the other tests rely on it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import command, forked
from tests.command import scenario

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("arguments", [("--version",), ("rum",), ("run", "scenario.yaml", "--dry-run")])
def test_both_say_the_same(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Exit code, standard output and standard error, in the folder that was asked for."""
    scenario(tmp_path)
    assert forked.harness(*arguments, cwd=tmp_path) == command.harness(*arguments, cwd=tmp_path)


def test_modules_of_the_path_are_found_after_ours_were_loaded(tmp_path: Path) -> None:
    """Plug-ins, and what stands for an event loop, come from folders that the path of a command names."""
    ended = forked.harness("list", "engines", cwd=tmp_path, env=command.on_path("misbehaving"))
    assert "misbehaving" in ended.out
    assert "misbehaving" not in forked.harness("list", "engines", cwd=tmp_path).out


def test_one_that_goes_on_for_too_long_is_killed(tmp_path: Path) -> None:
    """The test ends with the time-out of `subprocess`, and the next command is served."""
    with pytest.raises(subprocess.TimeoutExpired):
        forked.harness("worker", "--master-host", "127.0.0.1", cwd=tmp_path, timeout_s=0.5)
    assert forked.harness("--version", cwd=tmp_path).code == 0
