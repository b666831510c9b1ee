"""One child process: started, listened to, told to stop, and never left behind.

A crash, a kill, an out-of-memory or a hang of the child is a normal event here: it becomes the sentence that
`supervise` returns, and costs the trial that was running.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.processes import LONGEST_LINE_BYTES, ended_how, module_command, own_packages_first
from harness.schedule.cells import Cell
from harness.schedule.devices import environment_of
from harness.schedule.interpreter import own_packages

START_PATIENCE_S = 900.0
TRIAL_PATIENCE_S = 60.0
STOP_PATIENCE_S = 120.0
DRAIN_S = 30.0
ABORT_S = 10.0
LAST_WORDS_S = 2.0
POLL_S = 0.5
LOG_TAIL_BYTES = 8192
OOM_COUNTS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class StopRequest:
    """What the user asked for: 0 go on, 1 finish what is in flight, 2 stop now."""

    level: int = 0
    changed: asyncio.Event | None = None

    def raise_level(self) -> None:
        """One more request to stop."""
        self.level = min(self.level + 1, 2)
        if self.changed is not None:
            self.changed.set()


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """How to start the child: the specification file, its log, what to add to its environment, its interpreter.

    start_s: how long its engine may take to start.   silence_s: without a sign of life for so long, once it measures,
    it is taken for hung.
    """

    specification: Path
    log: Path
    environment: Mapping[str, str]
    python: str | None = None
    start_s: float = START_PATIENCE_S
    silence_s: float = TRIAL_PATIENCE_S

    @classmethod
    def of(cls, cell: Cell, folder: Path, silence_s: float) -> ChildCommand:
        """For a cell: its specification is `child.json` in a folder, where `log.txt` is written too."""
        environment = {**environment_of(cell.spec.devices), **cell.spec.env}
        files = (folder / "child.json", folder / "log.txt")
        return cls(*files, environment, cell.interpreter, cell.start_timeout_s, silence_s)

    def arguments(self) -> list[str]:
        """The command line."""
        return module_command("harness.run.child", str(self.specification), python=self.python)

    async def started(self, arguments: Sequence[str], standard_input: int) -> asyncio.subprocess.Process:
        """A process for the cell, what it prints of itself going to the log. Raises OSError where it cannot start."""
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *arguments,
                stdin=standard_input,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self.full_environment(),
                start_new_session=True,
                limit=LONGEST_LINE_BYTES,
            )

    def full_environment(self) -> dict[str, str]:
        """Ours, so that the child imports the same packages, and what the engine needs."""
        root = None if self.python is None else own_packages()
        return {**own_packages_first(os.environ, root), **self.environment}


class Deadline:
    """Until when something must have happened. missed: what to say if it has not."""

    def __init__(self, within_s: float, missed: str) -> None:
        self._at = time.monotonic() + within_s
        self.missed = missed

    def left_s(self) -> float:
        """Seconds until then."""
        return self._at - time.monotonic()


class Child:
    """A running child and the processes of its engine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._engine: list[psutil.Process] = []
        self._oom_kills = oom_kills()

    @classmethod
    async def start(cls, command: ChildCommand) -> Child:
        """Start it, its output going to the log, events coming through its standard output."""
        return cls(await command.started(command.arguments(), asyncio.subprocess.PIPE))

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def remember_engine(self, pids: list[int]) -> None:
        """Processes that must not outlive the child."""
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._engine.append(psutil.Process(pid))

    def tell(self, command: str) -> None:
        """Send a command; a child that is gone does not hear it, and its end is noticed elsewhere."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(command.encode() + b"\n")

    async def event(self) -> dict[str, Any] | None:
        """The next event; None when the child has ended."""
        assert self._process.stdout is not None
        reading = asyncio.ensure_future(self._process.stdout.readline())
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=POLL_S)
                if not reading.done() and self._process.returncode is not None:
                    return None  # it has ended; a descendant of it holds the pipe open
            return json.loads(reading.result()) if reading.result() else None
        except ValueError:
            return None  # cut off in the middle of a line: it is dying
        finally:
            reading.cancel()

    async def end(self) -> int:
        """Make sure that it and its engine are gone; returns its exit status."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        status = await self._exit_status(ABORT_S)
        if status is None:
            self.kill()
            status = await self._exit_status(ABORT_S)
        await self._end_what_it_left()
        for process in self._engine:
            with contextlib.suppress(psutil.NoSuchProcess):  # psutil also refuses a pid that was given to another
                process.kill()
        if self._process.stdout is not None:
            with contextlib.suppress(TimeoutError):  # whoever still holds the pipe is not ours to end
                await asyncio.wait_for(self._process.stdout.read(), POLL_S)
        return -signal.SIGKILL if status is None else status

    async def _end_what_it_left(self) -> None:
        """Its load processes end by themselves when it is gone, and write down first what they know."""
        deadline = time.monotonic() + LAST_WORDS_S
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, 0)
                await asyncio.sleep(0.01)
            self.kill()

    async def _exit_status(self, within_s: float) -> int | None:
        """How it ended; None if it has not. asyncio's own wait() would also wait for whoever holds its pipes."""
        deadline = time.monotonic() + within_s
        while self._process.returncode is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self._process.returncode

    def kill(self) -> None:
        """End the child and everything in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def obituary(self, status: int) -> str | None:
        """Why it ended, if not in order."""
        if status == 0:
            return None
        out_of_memory = status < 0 and oom_kills() > self._oom_kills
        memory = " (out of memory: the kernel killed a process here)" if out_of_memory else ""
        return f"its process {ended_how(status)}{memory}"


async def supervise(
    command: ChildCommand, stop: StopRequest, on_start: Callable[[int], None], on_event: OnEvent
) -> str | None:
    """Run a child to its end, passing on its events. Returns why it ended out of order, None if it did not."""
    try:
        child = await Child.start(command)
    except OSError as error:
        return f"its process could not be started: {error.strerror or error}"
    on_start(child.pid)
    stop.changed = asyncio.Event()
    if stop.level:
        stop.changed.set()
    orders = asyncio.ensure_future(pass_on_stops(child, stop))
    try:
        hung = await listen(child, command, on_event)
    finally:
        orders.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await orders
        status = await child.end()
    reason = hung or child.obituary(status)
    return f"{reason}{last_words(command.log)}" if reason else None


def last_words(log: Path) -> str:
    """The last line of a log as the end of a sentence; empty where there is none."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f'; the last line of its {log.name}: "{lines[-1][:300]}"' if lines else ""


async def listen(child: Child, command: ChildCommand, on_event: OnEvent) -> str | None:
    """Pass events on until the child ends; kill it when it gives no sign of life any more, or takes too long to start
    or stop its engine, and say so.
    """
    silence_s = max(START_PATIENCE_S, command.start_s)
    deadline: Deadline | None = None
    while True:
        left_s = silence_s if deadline is None else min(silence_s, deadline.left_s())
        try:
            event = await asyncio.wait_for(child.event(), left_s)
        except TimeoutError:
            child.kill()
            late = deadline is not None and deadline.left_s() <= 0
            why = deadline.missed if deadline and late else f"no sign of life for {silence_s:g} s"
            return f"{why}: its process was ended"
        if event is None:
            return None
        match event["event"]:
            case "starting":
                deadline = Deadline(command.start_s, f"its engine did not start within {command.start_s:g} s")
            case "started":
                deadline = None
                child.remember_engine(event["engine"]["pids"])
            case "stopping":
                deadline = Deadline(STOP_PATIENCE_S, f"its engine did not stop within {STOP_PATIENCE_S:g} s")
            case "trial_begun" | "progress":
                silence_s = command.silence_s
        on_event(event)


async def pass_on_stops(child: Child, stop: StopRequest) -> None:
    """First request: stop offering. Second, or too long after the first: stop now. Too long after that: kill."""
    assert stop.changed is not None
    await stop.changed.wait()
    child.tell("stop")
    deadline = time.monotonic() + DRAIN_S + ABORT_S
    while stop.level < 2 and time.monotonic() < deadline:
        stop.changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.changed.wait(), deadline - time.monotonic())
    child.tell("abort")
    await asyncio.sleep(ABORT_S)
    child.kill()


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory in our control group, or on this machine where that
    is not told; 0 where nothing is.
    """
    for path in OOM_COUNTS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
