"""Whoever reads what a command prints may leave: the run goes on, and its exit code says what it found."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import VIRTUAL_TIME, environment, manifest, scenario

from tests.forked import harness, program

STARTED = f'exec {sys.executable} -P -m harness "$@"'
RUN = ("run", "scenario.yaml", "--out", "run", "--format", "md")
ALL_CLOSED = ">&- 2>&- <&-"
LEAVING = ["| head -1", "2> >(head -1 >/dev/null)", ">&-", "2>&-", ALL_CLOSED]


def redirected(
    folder: Path, redirection: str, *arguments: str, started: bool = True
) -> subprocess.CompletedProcess[str]:
    """A command whose streams go where the shell is told. started: not forked where one of them is closed."""
    script, variables = (STARTED, dict[str, str]()) if started and "&-" in redirection else program()
    shell = ["bash", "-c", f"(\n{script}\n) {redirection}; exit ${{PIPESTATUS[0]}}", "bash", *arguments]
    env = environment({**VIRTUAL_TIME, **variables})
    return subprocess.run(shell, cwd=folder, env=env, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize("redirection", LEAVING)
def test_the_exit_code_is_the_runs(tmp_path: Path, redirection: str) -> None:
    """The run goes on to its end and its report; broken limits are 1, and nothing else is.

    That a command starts without a stream is tried below.
    """
    scenario(tmp_path, limits=["ttft_ms p50 <= 1"])
    done = redirected(tmp_path, redirection, *RUN, started=False)
    assert done.returncode == 1, done.stderr
    assert manifest(tmp_path / "run")["status"] == "complete"
    assert (tmp_path / "run" / "report.md").exists()
    assert "defect" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose limits hold."""
    folder = tmp_path_factory.mktemp("held")
    scenario(folder, limits=["ttft_ms p50 <= 500"])
    assert harness(*RUN, cwd=folder, env=VIRTUAL_TIME).code == 0
    return folder


@pytest.mark.parametrize("redirection", LEAVING)
def test_a_reader_who_leaves_is_no_failure(held: Path, redirection: str) -> None:
    """The results of a run whose limits hold are printed to nobody, and the exit code is 0."""
    done = redirected(held, redirection, "report", "run", "--format", "md", started=redirection == ALL_CLOSED)
    assert done.returncode == 0, done.stderr
    assert "defect" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_finds_no_room_is_a_sentence(tmp_path: Path) -> None:
    """The run is stored and complete, and who wanted its table is told that it is lost: 3."""
    scenario(tmp_path, limits=["ttft_ms p50 <= 500"])
    done = redirected(tmp_path, ">/dev/full", *RUN)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "harness: what was printed could not be written: No space left on device; the run's own folder is complete"
    )
    assert manifest(tmp_path / "run")["status"] == "complete"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_progress_that_finds_no_room_is_no_failure(tmp_path: Path) -> None:
    """Standard error carries no data: the exit code is the run's."""
    scenario(tmp_path, limits=["ttft_ms p50 <= 500"])
    done = redirected(tmp_path, "2>/dev/full", *RUN)
    assert done.returncode == 0
    assert manifest(tmp_path / "run")["status"] == "complete"


COMMANDS = [("--version",), ("--help",), ("list", "engines"), ("validate", "s.yaml"), ("init",)]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("redirection", [*LEAVING, ">/dev/full", "2>/dev/full"])
def test_every_command_loses_its_reader_in_order(tmp_path: Path, arguments: tuple[str, ...], redirection: str) -> None:
    """0, or 3 and a sentence where the data found no room; of a run, nothing is said."""
    scenario(tmp_path).rename(tmp_path / "s.yaml")
    started = redirection == ALL_CLOSED or arguments == ("--version",)
    done = redirected(tmp_path, redirection, *arguments, started=started)
    full = redirection == ">/dev/full"
    assert done.returncode == (3 if full else 0), done.stderr
    said = "harness: what was printed could not be written: No space left on device\n"
    assert done.stderr.endswith(said if full else "")
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP])
def test_a_command_that_is_ended_while_it_is_loaded(tmp_path: Path, number: int) -> None:
    """One sentence and 130, from the first line of the program on."""
    (tmp_path / "typer.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\nprint('too late')\n")
    env = environment()
    env["PYTHONPATH"] = os.pathsep.join((str(tmp_path), env["PYTHONPATH"]))
    command = [sys.executable, "-P", "-m", "harness.cli.main", "--version"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "harness: interrupted\n")


def test_nohup_is_obeyed(tmp_path: Path) -> None:
    """Where SIGHUP is ignored, it stays so."""
    program = (
        "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from harness.signals import stop_signals\nassert signal.SIGHUP not in stop_signals()\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\nassert signal.SIGHUP in stop_signals()\n"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)
