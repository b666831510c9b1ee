"""The command in a process of its own, for a third of what it costs: forked from one that has imported its modules.

Everything else is as at a command line: environment, folder, standard streams, signals, exit code. What is to be seen
while the program is loaded, or from its very first line on, needs `command.start`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.command import Ended, environment
from tests.command import harness as from_the_start

# What a run imports until its report is written. Nothing here may start threads, or read the user's settings.
PRELOADED = (
    "harness.cli.app",
    "harness.cli.listing",
    "harness.cli.progress",
    "harness.results",
    "harness.run.job",
    "harness.run.lock",
    "harness.run.run",
    "harness.verdict.forecast",
    "jinja2",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "reports.writers.html",
    "reports.writers.junit",
    "reports.writers.markdown",
    "reports.writers.summaries",
    "reports.writers.terminal",
    "scipy.special",
)
LARGEST_REQUEST_BYTES = 1 << 17
STREAMS = 3  # standard output, standard error, and the pipe on which the end is told
READ_EARLY = ("PYTHON", "LC_", "LANG", "OPENBLAS", "OMP_", "MPL", "HF_")  # by an interpreter, or a library's import


def harness(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 120.0) -> Ended:
    """A command, run to its end."""
    whole = environment(env)
    if not sys.platform.startswith("linux") or read_early(whole) != loaded().read_early:
        return from_the_start(*arguments, cwd=cwd, env=env, timeout_s=timeout_s)
    out, err, end = os.pipe(), os.pipe(), os.pipe()
    request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": whole}).encode()
    assert len(request) < LARGEST_REQUEST_BYTES
    theirs = [pair[1] for pair in (out, err, end)]
    socket.send_fds(loaded().way, [request], theirs)
    for file in theirs:
        os.close(file)
    said = read_all([out[0], err[0], end[0]], timeout_s)
    return Ended(int(said[2].split()[1]), said[0].decode(), said[1].decode())


def read_early(env: Mapping[str, str]) -> dict[str, str]:
    """What a process that has been loaded would not notice; the path for imports it does."""
    return {name: value for name, value in env.items() if name != "PYTHONPATH" and name.startswith(READ_EARLY)}


def read_all(files: list[int], timeout_s: float) -> list[bytes]:
    """What comes from pipes until all have ended; the process that begins its last pipe with its number is killed when
    that takes too long.
    """
    said = dict.fromkeys(files, b"")
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for file in files:
            selector.register(file, selectors.EVENT_READ)
        while selector.get_map():
            if (left := deadline - time.monotonic()) <= 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(said[files[-1]].split()[0]), signal.SIGKILL)
                raise subprocess.TimeoutExpired("harness", timeout_s, said[files[0]], said[files[1]])
            for key, _ in selector.select(left):
                some = os.read(key.fd, 1 << 16)
                said[key.fd] += some
                if not some:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return list(said.values())


@dataclass(frozen=True)
class Loaded:
    """A process that has imported everything, which lives as long as ours: the way to it, and what it has read."""

    way: socket.socket
    read_early: dict[str, str]


@cache
def loaded() -> Loaded:
    """Start it, once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = environment()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            env=env,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def leave() -> None:
        ours.close()
        process.wait()

    atexit.register(leave)
    return Loaded(ours, read_early(env))


def serve(requests: socket.socket) -> None:
    """Fork for each request, until nobody is left who could ask; in the fork, be the command."""
    for name in PRELOADED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}  # by the descriptor of the process: its number, and where its end is told
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is requests:
                    data, theirs, _, _ = socket.recv_fds(requests, LARGEST_REQUEST_BYTES, STREAMS)
                    if not data:
                        return
                    out, err, end = theirs
                    pid = os.fork()
                    if pid == 0:
                        selector.close()
                        requests.close()
                        os.close(end)
                        for other, (_, their_end) in running.items():
                            os.close(other)
                            os.close(their_end)
                        become(json.loads(data), out, err)
                    os.close(out)
                    os.close(err)
                    os.write(end, b"%d\n" % pid)
                    running[os.pidfd_open(pid)] = pid, end
                    selector.register(max(running), selectors.EVENT_READ)
                else:
                    pid, end = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    os.write(end, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    os.close(end)


def become(request: dict[str, Any], out: int, err: int) -> None:
    """The command, in this process."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    own = request["env"]["PYTHONPATH"].split(os.pathsep)
    for folder in own[1:]:
        names = {path.stem for path in Path(folder).glob("*.py")}
        assert not names & sys.modules.keys(), f"{names & sys.modules.keys()} would come from {folder}: preload less"
    sys.path[:] = [*own, *(folder for folder in sys.path if folder not in own)]
    importlib.invalidate_caches()
    sys.argv[1:] = request["arguments"]
    runpy.run_module("harness", run_name="__main__", alter_sys=True)
    raise SystemExit


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)  # the other threads are idle
    with socket.socket(fileno=int(sys.argv[1])) as way:
        serve(way)
