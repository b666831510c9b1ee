"""Start a server from a command line, wait until it is ready, and end it with all its descendants.

The server has a session of its own. A small shell holds the reading end of a pipe from this process. If this process
ends, however it ends, the pipe closes and the shell ends the server's process group.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import psutil

from engines.base import NO_USAGE_REPORTS, EngineError, StartFailed
from engines.process.log import begun, read_from, size_of
from engines.process.placeholders import MODEL, PORT, filled, label_values, labels_in, names_in
from engines.secrets import masked

READY_LIMIT_S = 300.0
READY_POLL_S = 0.05
PROBE_LIMIT_S = 2.0
REPLY_LIMIT_S = 60.0
KILL_LIMIT_S = 2.0
TERM_GRACE_S = 10.0
STOP_COMMAND_LIMIT_S = 60.0
PORT_ATTEMPTS = 3
_TAIL_BYTES = 8_192
_PORT_TAKEN = ("address already in use", "eaddrinuse", "address in use")
_GUARD = 'read -r word; [ "$word" = done ] && exit 0; kill -TERM "-$0"; sleep 5; kill -KILL "-$0"'


@dataclass(frozen=True, slots=True)
class ServerCommand:
    """Command line of a server."""

    command: str  # split like a shell would, but no shell runs it; see `placeholders`
    model: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready_path: str | None = None  # answers 200 once the server is ready; None: an open port is enough
    ready_timeout_s: float = READY_LIMIT_S
    stop: str | None = None  # command to run after the process has ended, to clean up; {port} is filled in
    log_path: Path | None = None  # output is appended to it; None is this process' own output
    port: int | None = None  # None is a free one
    labels: Mapping[str, str] = field(default_factory=dict)  # of the run, which the command may name


class ServerProcess:
    """Server process, from start() to stop()."""

    def __init__(self, command: ServerCommand) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Run the command and wait until the server is ready.

        If another process takes the port meanwhile, another port is tried, twice. Raises StartFailed, which quotes the
        log's last line, if the command cannot run, the process ends, or it is not ready in time.
        """
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self.port = self._command.port or free_port()
            self._spawn()
            try:
                await self._wait_until_ready()
                return
            except StartFailed:
                taken = any(sign in self._log_tail().lower() for sign in _PORT_TAKEN)
                if attempt == PORT_ATTEMPTS or not taken or self.alive() is None:
                    raise
                await self.stop()

    def alive(self) -> str | None:
        """Return why the process ended, in one sentence; None while it runs."""
        if self._process is None:
            return "the server was not started"
        code = self._process.poll()
        if code is None:
            return None
        return f"the server {self._program!r} {ending_of(code)}{self._last_line()}"

    def pids(self) -> tuple[int, ...]:
        """Return the server's process and its current descendants."""
        if self._process is None or self._process.poll() is not None:
            return ()
        return (self._process.pid, *(child.pid for child in _descendants(self._process.pid)))

    async def stop(self) -> None:
        """End the process and its descendants: SIGTERM, ten seconds, SIGKILL; then the stop command. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        await _end_tree(process)
        guard, self._guard = self._guard, None
        if guard is not None:
            with suppress(BrokenPipeError):  # the guard has ended
                guard.communicate(b"done\n")
            guard.wait()
        if self._command.stop is not None:
            await self._run_stop_command(self._command.stop)

    @property
    def _program(self) -> str:
        return shlex.split(self._command.command)[0]

    def _arguments(self) -> list[str]:
        try:
            parts = shlex.split(self._command.command)
        except ValueError as error:
            raise StartFailed(f"the command {self._command.command!r} cannot be split: {error}") from error
        if not parts:
            raise StartFailed("the command is empty; write how to start the server")
        if self._command.model is None and MODEL in names_in(self._command.command):
            raise StartFailed("the command contains {model}, but the scenario names no model; add `model:`")
        if lacking := next((one for one in labels_in(self._command.command) if one not in self._command.labels), None):
            raise StartFailed(f"the command contains {{label.{lacking}}}, which is not set; add --label {lacking}=...")
        return [self._filled(part) for part in parts]

    def _filled(self, text: str) -> str:
        own = {PORT: str(self.port), MODEL: self._command.model or ""}
        return filled(text, {**own, **label_values(self._command.labels)})

    def _spawn(self) -> None:
        arguments = self._arguments()
        log = self._open_log()
        try:
            # Popen works on every loop and from every thread, asyncio's does not.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT if log else None,
                env={**os.environ, **NO_USAGE_REPORTS, **self._command.env},
                start_new_session=True,
            )
        except OSError as error:
            raise StartFailed(f"cannot run {arguments[0]!r}: {error.strerror}; check `command`") from error
        finally:
            if log:
                log.close()
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _open_log(self) -> IO[bytes] | None:
        path = self._command.log_path
        if path is None:
            return None
        try:
            log = path.open("ab")
        except OSError as error:
            raise StartFailed(f"the server's log {path} cannot be written: {error.strerror}") from error
        self._log_start = log.tell()
        return log

    async def _wait_until_ready(self) -> None:
        import aiohttp

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._command.ready_timeout_s
        timeout = aiohttp.ClientTimeout(total=PROBE_LIMIT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=dict(self._command.headers)) as session:
            while True:
                answer = await self._probe(session)
                # Checked after the probe: another server on a port that ours could not get answers too.
                if (reason := self.alive()) is not None:
                    raise StartFailed(reason)
                if answer is None:
                    return
                if loop.time() >= deadline:
                    waited = f"was not ready after {self._command.ready_timeout_s:g} s: {answer} at {self.url}"
                    path = self._command.ready_path or ""
                    raise StartFailed(f"the server {self._program!r} {waited}{path}{self._last_line()}")
                await asyncio.sleep(READY_POLL_S)

    async def _probe(self, session: Any) -> str | None:
        """Return None if the server is ready, else the finding."""
        import aiohttp

        try:
            if self._command.ready_path is None:
                _, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.port), PROBE_LIMIT_S)
                writer.close()
                return None
            async with session.get(self.url + self._command.ready_path, allow_redirects=False) as response:
                return None if response.status == 200 else f"status {response.status}"
        except TimeoutError:  # before OSError, whose kind it is
            return f"no answer within {PROBE_LIMIT_S:g} s"
        except (OSError, aiohttp.ClientError):
            return "nothing answered"

    async def _run_stop_command(self, command: str) -> None:
        """Run the stop command. A failure only goes to the log, for there may be nothing left to stop."""
        log = self._open_log()
        outcome = ""
        try:
            arguments = [self._filled(part) for part in shlex.split(command)]
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT if log else None
            )
            if not await _wait_for(lambda: process.poll() is not None, STOP_COMMAND_LIMIT_S):
                process.kill()
                outcome = f"was killed after {STOP_COMMAND_LIMIT_S:g} s"
            if (code := process.wait()) != 0:
                outcome = outcome or f"ended with exit code {code}"
        except (OSError, ValueError) as error:
            outcome = f"cannot be run: {error}"
        finally:
            if log:
                if outcome:
                    log.write(f"\nthe stop command {command!r} {outcome}\n".encode())
                log.close()

    def _log_tail(self) -> str:
        path = self._command.log_path
        return read_from(path, max(self._log_start, size_of(path) - _TAIL_BYTES))

    def _last_line(self) -> str:
        """Return `; its last line: "..."` from the log; "" if it is empty."""
        lines = [line.strip() for line in self._log_tail().splitlines() if line.strip()]
        return f'; its last line: "{masked(lines[-1], 300)}"' if lines else ""


class RunningServer(Protocol):
    """Server in a process of its own. `alive` returns why it ended, None while it runs; `stop` is idempotent."""

    @property
    def url(self) -> str: ...
    async def start(self) -> None: ...
    def alive(self) -> str | None: ...
    def pids(self) -> tuple[int, ...]: ...
    async def stop(self) -> None: ...


def _answers(port: int) -> bool:
    """Return whether a server of this machine accepts connections at a port."""
    with socket.socket() as probe:
        probe.settimeout(PROBE_LIMIT_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class EngineServer:
    """Server of an engine, from before its start until after its end. `engine` is its name in messages."""

    def __init__(self, engine: str, log_path: Path | None) -> None:
        self._engine = engine
        self._log_path = log_path
        self._log_start = 0
        self._server: RunningServer | None = None
        self._ready = self._stopped = False

    def require_new(self, port: int | None = None) -> None:
        """Raise EngineError for a second start, StartFailed if another server answers at its port."""
        if self._server is not None:
            raise EngineError(f"{self._engine} was started already; make a new engine for another start")
        if port is not None and _answers(port):
            raise StartFailed(f"port {port} is in use; name another port, or none for a free one")

    async def start(self, server: RunningServer) -> None:
        """Start a server and wait until it is ready. Raises StartFailed."""
        self._log_start = begun(self._log_path)
        self._server = server
        await server.start()
        self._ready = True

    @property
    def url(self) -> str:
        """Base address. Raises EngineError unless the server runs."""
        if self._server is None or not self._ready or self._stopped:
            raise EngineError(f"{self._engine} is not running; start it first")
        return self._server.url

    def pids(self) -> tuple[int, ...]:
        return self._server.pids() if self._server is not None else ()

    def alive(self) -> str | None:
        """Return why the process is not running, in one sentence; None while it runs."""
        if self._server is None:
            return f"{self._engine} was not started"
        return f"{self._engine} was stopped" if self._stopped else self._server.alive()

    async def stop(self) -> None:
        self._stopped = True
        if self._server is not None:
            await self._server.stop()

    def log(self) -> str:
        """Return the output since the start."""
        return read_from(self._log_path, self._log_start)

    def page(
        self, path: str, body: Mapping[str, Any] | None = None, timeout_s: float = REPLY_LIMIT_S, refusals: bool = False
    ) -> str:
        """Return the server's answer, without a proxy. Raises EngineError, also for a status other than 200.

        With `refusals`, answers with another status are returned too.
        """
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=timeout_s)
        try:
            order = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, order, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise EngineError(f"{self._engine} does not answer {path}: {error}; see its log") from error
        finally:
            connection.close()
        if response.status != 200 and not refusals:
            raise EngineError(f"{self._engine} refuses {path} (status {response.status}): {masked(text, 200)}")
        return text

    def answer(self, path: str, body: Mapping[str, Any] | None = None, **how: Any) -> dict[str, Any]:
        """Return the JSON object of a `page`. Raises EngineError."""
        text = self.page(path, body, **how)
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise EngineError(f"{self._engine} answers {path} with invalid JSON: {error}; see its log") from error
        return found


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def signal_name(number: int) -> str:
    """Return SIGKILL for 9, and `signal 64` for a signal without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ending_of(code: int) -> str:
    """Return how a process ended, given its return code."""
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _members(group: int) -> list[psutil.Process]:
    """Return the processes of a group, which no longer are descendants once their parent has ended."""
    found = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getpgid(pid) == group:
                found.append(psutil.Process(pid))
    return found


async def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a session leader, its group, and its descendants that have left the group."""
    others = list({*_descendants(process.pid), *_members(process.pid)})

    def have_ended() -> bool:
        return process.poll() is not None and not any(map(is_working, others))

    for number, limit_s in ((signal.SIGTERM, TERM_GRACE_S), (signal.SIGKILL, KILL_LIMIT_S)):
        with suppress(ProcessLookupError, PermissionError):  # all have ended (macOS refuses zombies)
            os.killpg(process.pid, number)
        for other in others:
            with suppress(psutil.NoSuchProcess):
                other.send_signal(number)
        await _wait_for(have_ended, limit_s)
        others += [child for child in _descendants(process.pid) if child not in others]


def is_working(process: psutil.Process) -> bool:
    """Return True unless a process has ended. Without a reaper init keeps zombies, but they use nothing."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def _wait_for(condition: Callable[[], bool], limit_s: float) -> bool:
    """Wait until a condition holds; return False if it does not within the limit."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while not condition():
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(0.02)
    return True
