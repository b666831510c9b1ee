"""Supervise one child process: start it, receive its events, stop it, and leave nothing of it behind.

A crash, a kill, an out-of-memory or a hang of the child costs the running trial; `supervise` returns the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from engines.process.log import mask
from engines.secrets import masked
from harness.processes import LONGEST_LINE_BYTES, aside, ended_how, module_command, own_packages_first
from harness.run.turns import Turn
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
    """Request of the user: 0 continue, 1 finish the requests in flight, 2 stop now."""

    level: int = 0
    changed: asyncio.Event | None = None

    def raise_level(self) -> None:
        """Add one request to stop."""
        self.level = min(self.level + 1, 2)
        if self.changed is not None:
            self.changed.set()


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """Command and limits of a child process."""

    specification: Path
    log: Path
    environment: Mapping[str, str]  # added to ours
    python: str | None = None  # interpreter
    start_s: float = START_PATIENCE_S  # most time for the start of its engine
    silence_s: float = TRIAL_PATIENCE_S  # silence after which it counts as hung, during a trial

    @classmethod
    def of(cls, cell: Cell, folder: Path, silence_s: float) -> ChildCommand:
        """Return the command for a cell, with `child.json` and `log.txt` in a folder."""
        environment = {**environment_of(cell.spec.devices), **cell.spec.env}
        specification, log = folder / "child.json", folder / "log.txt"
        return cls(specification, log, environment, cell.interpreter, cell.start_timeout_s, silence_s)

    def arguments(self) -> list[str]:
        """Return the command line."""
        return module_command("harness.run.child", str(self.specification), python=self.python)

    async def started(self, arguments: Sequence[str], standard_input: int) -> asyncio.subprocess.Process:
        """Start a process whose standard error goes to the log. Raises OSError if it cannot start."""
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
        """Return our environment, in which the child imports the same packages, and the additions of the engine."""
        root = None if self.python is None else own_packages()
        return {**own_packages_first(os.environ, root), **self.environment}


class Child:
    """Running child with the processes of its engine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._engine: list[psutil.Process] = []
        self._oom_kills = oom_kills()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def remember_engine(self, pids: list[int]) -> None:
        """Take the engine's processes, which must not outlive the child."""
        for pid in pids:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._engine.append(psutil.Process(pid))

    def send(self, order: str) -> None:
        """Send an order; ignored if the child is gone."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(order.encode() + b"\n")

    async def event(self) -> dict[str, Any] | None:
        """Return the next event, None if the child has ended."""
        assert self._process.stdout is not None
        reading = asyncio.ensure_future(self._process.stdout.readline())
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=POLL_S)
                if not reading.done() and self._process.returncode is not None:
                    return None  # a descendant holds the pipe open
            return json.loads(reading.result()) if reading.result() else None
        except ValueError:
            return None  # incomplete line of a dying child
        finally:
            reading.cancel()

    async def end(self) -> int:
        """End the child and its engine; return its exit status."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        status = await self._exit_status(ABORT_S)
        if status is None:
            self.kill()
            status = await self._exit_status(ABORT_S)
        await self._end_group()
        for process in self._engine:
            with contextlib.suppress(psutil.NoSuchProcess):  # also raised for a reused pid
                process.kill()
        if self._process.stdout is not None:
            with contextlib.suppress(TimeoutError):  # another process may hold the pipe
                await asyncio.wait_for(self._process.stdout.read(), POLL_S)
        return -signal.SIGKILL if status is None else status

    async def _end_group(self) -> None:
        """Let its load processes write their last records before they are killed."""
        deadline = time.monotonic() + LAST_WORDS_S
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, 0)
                await asyncio.sleep(0.01)
            self.kill()

    async def _exit_status(self, within_s: float) -> int | None:
        """Return its exit status, None if it runs. `Process.wait` would also wait for other holders of its pipes."""
        deadline = time.monotonic() + within_s
        while self._process.returncode is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self._process.returncode

    def kill(self) -> None:
        """Kill the child and all processes of its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def failure(self, status: int) -> str | None:
        """Return why it ended, None for exit status 0."""
        out_of_memory = status < 0 and oom_kills() > self._oom_kills
        memory = " (out of memory: the kernel killed a process here)" if out_of_memory else ""
        return f"its process {ended_how(status)}{memory}" if status else None


async def supervise(
    command: ChildCommand,
    stop: StopRequest,
    on_start: Callable[[int], None],
    on_event: OnEvent,
    turn: Turn | None = None,
) -> str | None:
    """Run a child to its end and pass its events on. Return the reason if it failed.

    Args:
        turn: Its place beside another child, if both are up.
    """
    try:
        child = Child(await command.started(command.arguments(), asyncio.subprocess.PIPE))
    except OSError as error:
        return f"its process could not be started: {error.strerror or error}"
    on_start(child.pid)
    stop.changed = asyncio.Event()
    if stop.level:
        stop.changed.set()
    orders = asyncio.ensure_future(pass_on_stops(child, stop))
    try:
        hung = await listen(child, command, on_event, turn)
    finally:
        orders.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await orders
        status = await child.end()
        with contextlib.suppress(OSError):  # no space for a copy: what was measured counts more
            await aside(partial(mask, command.log))
    reason = hung or child.failure(status)
    return f"{reason}{last_words(command.log)}" if reason else None


def last_words(log: Path) -> str:
    """Return the last line of a log as the end of a sentence; empty for an empty log."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f'; the last line of its {log.name}: "{masked(lines[-1], 300)}"' if lines else ""


async def listen(child: Child, command: ChildCommand, on_event: OnEvent, turn: Turn | None = None) -> str | None:
    """Pass events on until the child ends. If it is silent for too long or misses a deadline, kill it; return why."""
    silence_s = max(START_PATIENCE_S, command.start_s)
    deadline, missed = math.inf, ""
    while True:
        try:
            event = await asyncio.wait_for(child.event(), min(silence_s, deadline - time.monotonic()))
        except TimeoutError:
            child.kill()
            why = missed if time.monotonic() >= deadline else f"no sign of life for {silence_s:g} s"
            return f"{why}: its process was ended"
        if event is None:
            return None
        match event["event"]:
            case "starting":
                deadline = time.monotonic() + command.start_s
                missed = f"its engine did not start within {command.start_s:g} s"
            case "started":
                deadline = math.inf
                child.remember_engine(event["engine"]["pids"])
            case "stopping":
                deadline = time.monotonic() + STOP_PATIENCE_S
                missed = f"its engine did not stop within {STOP_PATIENCE_S:g} s"
            case "trial_begun" | "progress":
                silence_s = command.silence_s
        on_event(event)
        if event["event"] == "waiting" and turn is not None:
            turn.ask(partial(child.send, "go"))


async def pass_on_stops(child: Child, stop: StopRequest) -> None:
    """Send `stop` at the first request, `abort` at the second or too long after the first; kill too long after that."""
    assert stop.changed is not None
    await stop.changed.wait()
    child.send("stop")
    deadline = time.monotonic() + DRAIN_S + ABORT_S
    while stop.level < 2 and time.monotonic() < deadline:
        stop.changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.changed.wait(), deadline - time.monotonic())
    child.send("abort")
    await asyncio.sleep(ABORT_S)
    child.kill()


def oom_kills() -> int:
    """Return how many processes the kernel killed for lack of memory, in our control group if known, else here."""
    for path in OOM_COUNTS:
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    return 0
