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
import select
import selectors
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.command import Ended, environment, not_longer_than_the_test, start, to_its_end
from tests.forked_children import LARGEST_REQUEST_BYTES, NUMBER, STREAMS, fork_children, read_early

# What a run imports until its report is written. Nothing here may start threads, or read the user's settings.
PRELOADED = (
    "engines.simulated",
    "harness.cli.app",
    "harness.cli.commands.listing",
    "harness.cli.progress",
    "harness.comparison.comparison",
    "harness.comparison.foreign.imports",
    "harness.comparison.foreign.sides",
    "harness.comparison.gate",
    "harness.comparison.opening",
    "harness.comparison.plain",
    "harness.history.export",
    "harness.history.store.intake",
    "harness.history.plain",
    "harness.history.store.folder",
    "harness.results",
    "harness.run.child",
    "harness.run.job",
    "harness.run.lock",
    "harness.run.run",
    "harness.tuning.plain",
    "harness.verdict.forecast",
    "jinja2",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "reports.comparison",
    "reports.plots.comparison",
    "reports.writers.comparison",
    "reports.history",
    "reports.writers.grid",
    "reports.writers.html",
    "reports.writers.junit",
    "reports.writers.markdown",
    "reports.writers.summaries",
    "reports.writers.terminal",
    "scipy.special",
)
MEASURING = ("bisect", "plan", "quality", "regress", "rerun", "run", "saturate", "tune")  # commands that start cells
# It replaces what is private to `subprocess`.
CAN_FORK = sys.platform.startswith("linux") and sys.version_info < (3, 14)
ROOM_FOR_A_NAME = "-" * 400  # the command lines of cells are written there


def harness(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 120.0) -> Ended:
    """A command, run to its end."""
    return to_its_end(running(*arguments, cwd=cwd, env=env), timeout_s)


@contextlib.contextmanager
def running(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while the test goes on, and not longer."""
    whole = environment(env)
    if CAN_FORK and not read_early(env or {}) and not customized(whole):
        process: subprocess.Popen[str] = Forked(arguments, cwd=cwd, env=as_loaded(whole))
    else:
        process = start(*arguments, cwd=cwd, env=env)
    with not_longer_than_the_test(process):
        yield process


def program() -> tuple[str, dict[str, str]]:
    """The command for a shell script, as the text of a script, and the variables that it needs."""
    if not CAN_FORK:
        return f'exec {sys.executable} -P -m harness "$@"', {}
    return f'exec {sys.executable} {Path(__file__).with_name("forked_program.py")} "$@"', {
        "HARNESS_LOADED": loaded().address
    }


def as_loaded(env: Mapping[str, str]) -> dict[str, str]:
    """The same, but for what was read early: an engine that runs in our process sets some of it for its libraries."""
    later = {name: value for name, value in env.items() if name not in read_early(env)}
    return later | loaded().read_early


def customized(env: Mapping[str, str]) -> bool:
    """Whether an interpreter runs a module of the tests as it starts."""
    return any((Path(folder) / "sitecustomize.py").exists() for folder in env["PYTHONPATH"].split(os.pathsep))


class Forked(subprocess.Popen[str]):
    """A command that another process of ours has forked, and waits for.

    What is replaced is private to `subprocess`, and the same since Python 3.11: how a process begins, and how its
    status is asked for.
    """

    def __init__(self, arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> None:
        self._end = -1
        super().__init__(arguments, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def _execute_child(self, arguments: Sequence[str], *more: Any) -> None:
        cwd, env, (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite) = more[4], more[5], more[9:15]
        request = json.dumps({"arguments": arguments, "cwd": str(cwd), "env": env}).encode()
        assert len(request) < LARGEST_REQUEST_BYTES
        self._end, theirs = os.pipe()
        socket.send_fds(loaded().way, [request], [c2pwrite, errwrite, theirs])
        os.close(theirs)
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]
        self.pid = NUMBER.unpack(os.read(self._end, NUMBER.size))[0]
        self._child_created = True

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            self._try_wait(os.WNOHANG)
        return self.returncode

    def _try_wait(self, flags: int) -> tuple[int, int]:
        """As `os.waitpid`: (0, 0) while it runs, else its number and status."""
        if flags == os.WNOHANG and not select.select([self._end], [], [], 0)[0]:
            return 0, 0
        status = NUMBER.unpack(os.read(self._end, NUMBER.size))[0]
        os.close(self._end)
        self.returncode = os.waitstatus_to_exitcode(status)
        return self.pid, status


@dataclass(frozen=True)
class Loaded:
    """A process that has imported everything, which lives as long as ours: the way to it, and what it has read."""

    way: socket.socket
    address: str  # in the abstract namespace, for `forked_program.py`
    read_early: dict[str, str]


@cache
def loaded() -> Loaded:
    """Start it, once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    others = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    others.bind("")  # the system chooses an address
    others.listen()
    address = others.getsockname()[1:].decode()
    env = environment()
    with theirs, others:
        numbers = theirs.fileno(), others.fileno()
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, *map(str, numbers), ROOM_FOR_A_NAME],
            env=env,
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def leave() -> None:
        ours.close()
        process.wait()

    atexit.register(leave)
    return Loaded(ours, address, read_early(env))


def serve(requests: socket.socket, others: socket.socket) -> None:
    """Fork for each request, until nobody is left who could ask; in the fork, be the command."""
    for name in PRELOADED:
        importlib.import_module(name)
    warm_up()
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, int]] = {}  # by the descriptor of the process: its number, and where its end is told
    with selectors.DefaultSelector() as selector:
        for way in (requests, others):
            selector.register(way, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj in (requests, others):
                    data, theirs = received(requests if key.fileobj is requests else others.accept()[0])
                    if not data:
                        return
                    out, err, end = theirs
                    pid = os.fork()
                    if pid == 0:
                        selector.close()
                        requests.close()
                        others.close()
                        os.close(end)
                        for other, (_, their_end) in running.items():
                            os.close(other)
                            os.close(their_end)
                        become(json.loads(data), out, err)
                    os.close(out)
                    os.close(err)
                    os.write(end, NUMBER.pack(pid))
                    running[os.pidfd_open(pid)] = pid, end
                    selector.register(max(running), selectors.EVENT_READ)
                else:
                    pid, end = running.pop(key.fd)
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    tell_end(end, os.waitpid(pid, 0)[1])
                    os.close(end)


def warm_up() -> None:
    """Do what each command would do for itself once: compile the templates, find the fonts, make the validators."""
    from harness.scenario.model import Scenario
    from harness.store.manifest import Manifest
    from reports.plots.drawing import Panel, picture
    from reports.plots.scales import Scale
    from reports.writers.html import TEMPLATES
    from reports.writers.jinja import templates

    for path in TEMPLATES.rglob("*.html"):
        templates().get_template(str(path.relative_to(TEMPLATES)))
    axis = Scale(0.0, 1.0)
    picture("none", [Panel("none", axis, lambda _: None)], axis, "none")
    Scenario.model_validate({"engines": [{"engine": "simulated"}], "load": [{"kind": "single_user", "requests": 1}]})
    Manifest.model_validate({})


def received(way: socket.socket) -> tuple[bytes, list[int]]:
    """A request; with it standard output and error, and the pipe on which the end is told. b"" if nobody can ask."""
    data, streams, _, _ = socket.recv_fds(way, LARGEST_REQUEST_BYTES, STREAMS)
    return data, streams


def tell_end(end: int, status: int) -> None:
    """To whoever started the command, if that is still of interest."""
    with contextlib.suppress(BrokenPipeError):
        os.write(end, NUMBER.pack(status))


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
    if sys.argv[1:2] and sys.argv[1] in MEASURING:
        fork_children()
    close_streams(request.get("closed", []))
    code: object = None
    try:
        runpy.run_module("harness", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    end_with(code)


def close_streams(numbers: Sequence[int]) -> None:
    """Standard streams that are closed, as an interpreter finds them at its start."""
    for number in numbers:
        name = ("stdin", "stdout", "stderr")[number]
        for known in (name, f"__{name}__"):
            setattr(sys, known, None)
        os.close(number)


def end_with(code: object) -> None:
    """End as an interpreter does, but without taking its modules apart: they are most of what a command costs."""
    assert code is None or isinstance(code, int)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)  # the other threads are idle
    with socket.socket(fileno=int(sys.argv[1])) as way, socket.socket(fileno=int(sys.argv[2])) as others:
        serve(way, others)
