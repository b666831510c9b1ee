"""What a case does to the load generator: hogs, fewer cores, a lower priority, stops, and a second client.

Every process that is started here ends with its block.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import psutil

from benchmarks.battery.server import TruthServer

Run = subprocess.Popen[bytes]
HARD_S = 9.0
"""How long a load is made hard: most of its 10 s, so that the reports after it are not slow as well."""
_PLACED = """
import os, sys
if sys.argv[1]:
    os.sched_setaffinity(0, [int(core) for core in sys.argv[1].split(",")])
os.execvp(sys.argv[2], sys.argv[2:])
"""
_HOG = "while True: pass"
_SECOND_CLIENT = """
import http.client, json, sys, threading, time
port, until = int(sys.argv[1]), time.monotonic() + float(sys.argv[2])
body = json.dumps({"prompt": "hello there", "max_tokens": 32, "stream": True})
def ask():
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/v1/completions?other", body)
        connection.getresponse().read()
        connection.close()
threads = [threading.Thread(target=ask) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def placed(command: Sequence[str], cores: Sequence[int] = ()) -> list[str]:
    """Return a command that runs another one on these cores; none: all."""
    return [sys.executable, "-c", _PLACED, ",".join(map(str, cores)), *command]


@contextmanager
def hardship(
    name: str, command: Sequence[str], server: TruthServer | None
) -> Iterator[tuple[list[str], Callable[[Run], None]]]:
    """Make the load generator's life hard, from the beginning of its load on.

    Yields the command to start in place of `command`, and what to call with its process.
    """
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        run = list(command)
        then: Callable[[Run], None] = _nothing
        if name == "two hogs":
            _hogs(stack, 2)
        elif name and server is not None:
            if name == "one core":
                run = placed(command, cores[-1:])
                os.sched_setaffinity(server.process.pid, cores[:-1] or cores)
            hard: dict[str, Callable[[Run], None]] = {
                "one core": lambda _: _hogs(stack, 2, cores[-1:]),
                "nice": lambda run: _nice_beside_hogs(stack, run, len(cores)),
                "hogs": lambda _: _hogs(stack, 3 * len(cores)),
                "stopped": lambda run: _stop(run, 2.0, 1),
                "stuttering": lambda run: _stop(run, 0.06, 14),
                "second client": lambda _: _second_client(stack, server, 7.0),
            }
            then = _once_under_load(server, hard[name], stack)
        yield run, then


def _nothing(_: Run) -> None:
    """Leave the process alone."""


def _once_under_load(server: TruthServer, then: Callable[[Run], None], stack: ExitStack) -> Callable[[Run], None]:
    """Return what waits for the load to begin, acts, and ends what it started when the load is over."""

    def act(run: Run) -> None:
        while not server.await_load(timeout_s=1):
            if run.poll() is not None:
                return
        then(run)
        try:
            run.wait(HARD_S)
        except subprocess.TimeoutExpired:
            stack.pop_all().close()

    return act


def _hogs(stack: ExitStack, count: int, cores: Sequence[int] = ()) -> None:
    for _ in range(count):
        _start(stack, placed([sys.executable, "-c", _HOG], cores))


def _start(stack: ExitStack, command: Sequence[str]) -> None:
    process = subprocess.Popen(command)
    stack.callback(process.wait, 10)
    stack.callback(process.kill)


def _nice_beside_hogs(stack: ExitStack, run: Run, count: int) -> None:
    """Give all threads of a run the lowest priority."""
    for process in _tree(run):
        for thread in process.threads():
            os.setpriority(os.PRIO_PROCESS, thread.id, 19)
    _hogs(stack, count)


def _second_client(stack: ExitStack, server: TruthServer, seconds: float) -> None:
    _start(stack, [sys.executable, "-c", _SECOND_CLIENT, str(server.port), str(seconds)])


def _stop(run: Run, seconds: float, times: int) -> None:
    """Stop all processes of a run for so long, from 3 s into the load on, once each half second."""
    time.sleep(3)
    processes = _tree(run)
    for _ in range(times):
        try:
            _signal(processes, signal.SIGSTOP)
            time.sleep(seconds)
        finally:
            _signal(processes, signal.SIGCONT)
        time.sleep(max(0.0, 0.5 - seconds))


def _tree(run: Run) -> list[psutil.Process]:
    own = psutil.Process(run.pid)
    return [own, *own.children(recursive=True)]


def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
