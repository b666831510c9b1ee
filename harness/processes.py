"""Conversation of a parent with its child process, and work in threads.

The parent writes orders to standard input: a word per line, in some cases followed by data as JSON. The child writes
events as JSON lines to standard output. The end of standard input means that the parent is gone.
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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from engines.process.server import signal_name
from engines.secrets import hide_environment, masked_in
from harness.errors import TrialFailed
from harness.signals import stop_signals

LONGEST_LINE_BYTES = 1 << 24
_OUR_EVENTS = frozenset({"alive", "progress", "clock", "planning", "trial_begun"})  # no text of a server or an engine
_OUR_KEYS = frozenset({"event", "status", "path", "options", "metrics_urls", "facts"})
PROGRESS_EVERY_S = 0.5
Emit = Callable[[dict[str, Any]], None]
Made = TypeVar("Made")


def own_packages_first(environment: Mapping[str, str], root: Path | None = None) -> dict[str, str]:
    """Return an environment in which a child imports the same packages; root: the folder that contains them."""
    root = root or Path(__file__).absolute().parent.parent
    path = os.pathsep.join(part for part in (str(root), environment.get("PYTHONPATH", "")) if part)
    return {**environment, "PYTHONPATH": path}


def module_command(module: str, *arguments: str, python: str | None = None) -> list[str]:
    """Return the command that runs a module of this project, by this interpreter or another.

    `-P` keeps the user's folder off the import path: it may contain folders named like these packages.
    """
    return [python or sys.executable, "-P", "-m", module, *arguments]


def ended_how(status: int) -> str:
    """Return how a process ended, as the end of a sentence. status: from `subprocess`, negative for a signal."""
    return f"was killed by {signal_name(-status)}" if status < 0 else f"ended with exit status {status}"


@contextlib.contextmanager
def stop_signals_heard_by(handler: Callable[[int], object]) -> Iterator[None]:
    """Let a handler have stop signals during the block, with their number; those before it have them again after it."""
    before = {number: signal.signal(number, lambda number, _: handler(number)) for number in stop_signals()}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


@contextlib.contextmanager
def stop_signals_held() -> Iterator[None]:
    """Let stop signals wait to the end of the block: a process whose start they break would be left, its id unknown."""
    came: list[int] = []
    try:
        with stop_signals_heard_by(came.append):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


def first_line() -> bytes:
    """Read the first order, and nothing after it, from standard input."""
    with open(0, "rb", buffering=0, closefd=False) as raw:
        return raw.readline()


def event_stream() -> Emit:
    """Reserve standard output for events; send all other output to standard error.

    Secrets of the environment are hidden from now on, and masked in what the events say of servers and engines.
    """
    hide_environment(os.environ)
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(event: dict[str, Any]) -> None:
        told = event if event.get("event") in _OUR_EVENTS else masked_in(event, _OUR_KEYS)
        events.write(json.dumps(told) + "\n")

    return emit


async def parent_orders() -> AsyncIterator[tuple[str, Any]]:
    """Yield the parent's orders, each with its data or None, until standard input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        word, _, data = line.decode().strip().partition(" ")
        yield word, json.loads(data) if data else None


class Pipe:
    """Parent's end of the conversation with a child."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._orders, self._events = process.stdin, process.stdout

    @classmethod
    async def start(cls, module: str, first: Mapping[str, Any]) -> Pipe:
        """Start a module and write its first line. Raises OSError if the system starts no process."""
        process = await asyncio.create_subprocess_exec(
            *module_command(module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=own_packages_first(os.environ),
            limit=LONGEST_LINE_BYTES,
        )
        pipe = cls(process)
        pipe._orders.write(json.dumps(first).encode() + b"\n")
        return pipe

    def send(self, word: str, data: Mapping[str, Any] | None = None) -> None:
        """Send an order; ignored if the child is gone."""
        if not self._orders.is_closing():
            self._orders.write((f"{word} {json.dumps(data)}" if data else word).encode() + b"\n")

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the child's events until it has ended."""
        async for line in self._events:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # incomplete line of a dying child
            yield event

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    async def end(self, patience_s: float) -> None:
        """Close the child's standard input, which ends the child; kill it after `patience_s`."""
        self._orders.close()
        try:
            await asyncio.wait_for(self.process.wait(), patience_s)
        except TimeoutError:
            self.kill()
            await self.process.wait()


def event_loop_runner() -> Callable[[Any], Any]:
    """Return uvloop's runner if it is installed (cheaper for the load generator), else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    runner: Callable[[Any], Any] = uvloop.run
    return runner


def on_a_thread(work: Callable[[], None]) -> None:
    """Start work on a daemon thread."""
    threading.Thread(target=work, daemon=True).start()


async def aside(work: Callable[[], Made], begin: Callable[[Callable[[], None]], object] = on_a_thread) -> Made:
    """Run long work on a thread while the loop keeps hearing orders. The process does not wait for it at exit."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    task = _Aside(work, lambda: loop.call_soon_threadsafe(over.set))
    begin(task.do)
    await over.wait()
    return task.result()


def unless_ordered(work: Callable[[], Made]) -> Made:
    """Run long work before the loop starts. Raises TrialFailed if an order arrives or the parent is gone."""
    ended, end = os.pipe()
    try:
        task = _Aside(work, lambda: _write_last(end))
        on_a_thread(task.do)
        ready, _, _ = select.select([0, ended], [], [])
        if ended not in ready:
            raise TrialFailed("the trial was ended while its plan was made")
        return task.result()
    finally:
        os.close(ended)


def _write_last(pipe: int) -> None:
    """Write a byte to a pipe and close it."""
    with open(pipe, "wb", buffering=0) as raw:
        raw.write(b".")


class _Aside(Generic[Made]):
    """Work for another thread; `over` is called at its end."""

    def __init__(self, work: Callable[[], Made], over: Callable[[], object]) -> None:
        self._work, self._over = work, over
        self._made: list[Made] = []
        self._error: BaseException | None = None

    def do(self) -> None:
        """Do the work, in the other thread."""
        try:
            self._made.append(self._work())
        except BaseException as error:
            self._error = error
        with contextlib.suppress(RuntimeError, OSError):  # the waiting side is gone
            self._over()

    def result(self) -> Made:
        """Return the result, or raise the exception of the work."""
        if self._error is not None:
            raise self._error
        return self._made[0]


@contextlib.asynccontextmanager
async def background(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Run a task that lives as long as the block."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
