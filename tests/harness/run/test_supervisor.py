"""A child may die, hang or refuse to stop: each costs a sentence, never the parent."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from harness.run import supervisor
from harness.run.supervisor import (
    ABORT_S,
    DRAIN_S,
    TRIAL_PATIENCE_S,
    Child,
    ChildCommand,
    StopRequest,
    pass_on_stops,
    supervise,
)
from tests import virtual_time

pytestmark = pytest.mark.slow

SAY = "import json, os, signal, sys, time\ndef say(**event): print(json.dumps(event), flush=True)\n"


@dataclass(frozen=True, slots=True)
class Program(ChildCommand):
    """A child that runs the text of a program instead of a trial."""

    text: str = ""

    def arguments(self) -> list[str]:
        """The interpreter and the program."""
        return [sys.executable, "-P", "-c", SAY + textwrap.dedent(self.text)]


def run(
    folder: Path, text: str, stop_after: str | None = None, silence_s: float = TRIAL_PATIENCE_S
) -> tuple[str | None, list[dict[str, Any]], str]:
    """Why the child ended out of order, its events, and its log. stop_after: the event on which the user stops."""
    heard: list[dict[str, Any]] = []
    stop = StopRequest()
    pids: list[int] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append(event)
        if event["event"] == stop_after:
            stop.raise_level()

    log = folder / "log.txt"
    program = Program(folder / "spec.json", log, {"FROM_SCENARIO": "yes"}, silence_s=silence_s, text=text)
    reason = asyncio.run(supervise(program, stop, pids.append, hear))
    assert not psutil.pid_exists(pids[0]), "the child is gone"
    return reason, heard, log.read_text()


def test_a_child_that_ends_in_order_has_no_failure(tmp_path: Path) -> None:
    """Events arrive in their order, other output goes to the log, the scenario's environment is there."""
    text = "say(event='alive')\nprint(os.environ['FROM_SCENARIO'], file=sys.stderr)\nsay(event='ended')"
    reason, heard, log = run(tmp_path, text)
    assert reason is None
    assert [event["event"] for event in heard] == ["alive", "ended"]
    assert log == "yes\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("sys.exit(3)", "exit status 3"),
        ("sys.stdout.write('{\"event\": '); sys.stdout.flush(); os._exit(1)", "exit status 1"),
    ],
)
def test_a_child_that_dies_leaves_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    """The signal or the exit status is named, also when it died in the middle of an event."""
    reason, _, _ = run(tmp_path, text)
    assert reason is not None
    assert words in reason


def test_a_child_that_hangs_is_ended(tmp_path: Path) -> None:
    """Without a sign of life for longer than the patience of a trial, the child is killed and the reason says so."""
    reason, heard, _ = run(tmp_path, "say(event='trial_begun')\ntime.sleep(600)", silence_s=0.5)
    assert reason is not None
    assert "no sign of life for 0.5 s" in reason
    assert [event["event"] for event in heard] == ["trial_begun"]


def test_a_stop_reaches_the_child_as_an_order(tmp_path: Path) -> None:
    """One request to stop sends `stop`; what the child does with it is its own matter."""
    text = "say(event='ready')\nsay(event='heard', order=sys.stdin.readline().strip())"
    reason, heard, _ = run(tmp_path, text, stop_after="ready")
    assert reason is None
    assert heard[-1] == {"event": "heard", "order": "stop"}


class Stubborn:
    """A child that notes when it is told something, and does nothing about it."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def send(self, order: str) -> None:
        """An order."""
        self.told.append((asyncio.get_running_loop().time(), order))

    def kill(self) -> None:
        """The end."""
        self.send("killed")


@pytest.mark.parametrize(("level", "abort_s"), [(1, DRAIN_S + ABORT_S), (2, 0)])
def test_orders_come_at_their_times(level: int, abort_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop` at once, `abort` after the bound of the drain or the second request, after another bound the end."""
    monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time()))
    child = Stubborn()

    async def main() -> None:
        stop = StopRequest(level, asyncio.Event())
        assert stop.changed is not None
        stop.changed.set()
        await pass_on_stops(cast("Child", child), stop)

    virtual_time.run(main())
    assert child.told == [(0, "stop"), (abort_s, "abort"), (abort_s + ABORT_S, "killed")]


def test_a_child_that_will_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it has heard by then, `stop` and `abort` in this order."""
    monkeypatch.setattr(supervisor, "DRAIN_S", 0.2)
    monkeypatch.setattr(supervisor, "ABORT_S", 0.3)
    text = """
        say(event='ready')
        for line in sys.stdin:
            say(event='heard', order=line.strip())
        time.sleep(600)
    """
    reason, heard, _ = run(tmp_path, text, stop_after="ready")
    orders = [event.get("order") for event in heard]
    assert orders == [None, "stop", "abort"][: len(orders)]
    assert reason is not None
    assert "SIGKILL" in reason


def test_the_engine_of_a_dead_child_does_not_outlive_it(tmp_path: Path) -> None:
    """Processes that the child named as its engine are ended with it, even those in sessions of their own."""
    text = """
        import subprocess
        engine = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        say(event='started', engine={"pids": [engine.pid]})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    _, heard, _ = run(tmp_path, text)
    (pid,) = heard[0]["engine"]["pids"]
    try:
        psutil.Process(pid).wait(timeout=60)
    except psutil.NoSuchProcess:
        return
    assert not psutil.pid_exists(pid)


def test_the_child_imports_our_packages_wherever_it_runs() -> None:
    """The folder of our packages comes first on its path."""
    command = ChildCommand(Path("spec.json"), Path("log.txt"), {})
    root = Path(supervisor.__file__).parents[2]
    assert command.full_environment()["PYTHONPATH"].split(os.pathsep)[0] == str(root)


def test_a_child_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no process or file left for it, that is a sentence."""

    async def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    command = ChildCommand(tmp_path / "child.json", tmp_path / "log.txt", {})
    heard: list[Any] = []
    reason = asyncio.run(supervise(command, StopRequest(), heard.append, heard.append))
    assert reason == "its process could not be started: Resource temporarily unavailable"
    assert heard == []
