"""How a process of ours and its child talk: orders on standard input, events as JSON lines on standard output.

By which signals a user, or the system, asks for the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from engines.process.server import signal_name
from harness.errors import TrialFailed

LONGEST_LINE_BYTES = 1 << 24
PROGRESS_EVERY_S = 0.5
Emit = Callable[[dict[str, Any]], None]
Made = TypeVar("Made")


def own_packages_first(environment: Mapping[str, str], root: Path | None = None) -> dict[str, str]:
    """An environment in which a child of ours imports the packages that we imported; root: the folder they are in."""
    root = root or Path(__file__).absolute().parent.parent
    path = os.pathsep.join(part for part in (str(root), environment.get("PYTHONPATH", "")) if part)
    return {**environment, "PYTHONPATH": path}


def module_command(module: str, *arguments: str, python: str | None = None) -> list[str]:
    """A module of ours, run by our interpreter or another.

    `-P` keeps the user's folder off the import path: it may hold folders named like our packages.
    """
    return [python or sys.executable, "-P", "-m", module, *arguments]


def ended_how(status: int) -> str:
    """How a process ended, to stand behind its name; status: as `subprocess` gives it, negative for a signal."""
    return f"was killed by {signal_name(-status)}" if status < 0 else f"ended with exit status {status}"


def first_line() -> bytes:
    """The order that a child begins with; nothing behind it is taken from standard input."""
    with open(0, "rb", buffering=0, closefd=False) as raw:
        return raw.readline()


def event_stream() -> Emit:
    """Events go to the original standard output; everything else that is printed goes to standard error."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")

    return emit


def event_loop_runner() -> Callable[[Any], Any]:
    """uvloop's where it is installed: it costs the client less than the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    runner: Callable[[Any], Any] = uvloop.run
    return runner


async def aside(work: Callable[[], Made]) -> Made:
    """Something long, done on a thread, so that orders are heard meanwhile. The process does not wait for it to end."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    task = _Aside(work, lambda: loop.call_soon_threadsafe(over.set))
    await over.wait()
    return task.result()


def unless_ordered(work: Callable[[], Made]) -> Made:
    """Something long, before the loop runs that hears orders. Raises TrialFailed if one comes, or nobody is left."""
    ended, end = os.pipe()
    try:
        task = _Aside(work, lambda: os.write(end, b"."))
        ready, _, _ = select.select([0, ended], [], [])
        if ended not in ready:
            raise TrialFailed("the trial was ended while its plan was made")
        return task.result()
    finally:
        os.close(ended)


class _Aside(Generic[Made]):
    """Work on a thread of its own, that no end of the process waits for; then `over` is called."""

    def __init__(self, work: Callable[[], Made], over: Callable[[], object]) -> None:
        self._work, self._over = work, over
        self._made: list[Made] = []
        self._error: BaseException | None = None
        threading.Thread(target=self._do, daemon=True).start()

    def _do(self) -> None:
        try:
            self._made.append(self._work())
        except BaseException as error:
            self._error = error
        with contextlib.suppress(RuntimeError, OSError):  # nobody waits any more
            self._over()

    def result(self) -> Made:
        """What was made; raises what the work raised."""
        if self._error is not None:
            raise self._error
        return self._made[0]


@contextlib.asynccontextmanager
async def background(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task that lives as long as the block."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def stop_signals() -> tuple[int, ...]:
    """Ctrl-C, SIGTERM, and SIGHUP (the terminal is closed) unless that is ignored, as `nohup` has it."""
    hang_up = getattr(signal, "SIGHUP", None)
    ignored = hang_up is None or signal.getsignal(hang_up) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
