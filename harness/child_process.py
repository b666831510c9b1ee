"""How a process of ours and its child talk: orders on standard input, events as JSON lines on standard output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from engines.server_process import signal_name

LONGEST_LINE_BYTES = 1 << 24
PROGRESS_EVERY_S = 0.5
Emit = Callable[[dict[str, Any]], None]


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
