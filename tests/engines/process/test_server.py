"""Servers of our own: they come up, their failures are told in a sentence, and nothing of them stays behind."""

from __future__ import annotations

import asyncio
import itertools
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from engines.base import StartFailed
from engines.process import server as server_process
from engines.process.server import EngineServer, ServerCommand, ServerProcess, free_port

pytestmark = pytest.mark.slow

SERVER = f"{sys.executable} {Path(__file__).parents[1].joinpath('tiny_server.py')} {{port}}"


def server_with(arguments: str = "", log: Path | None = None, **settings: Any) -> ServerProcess:
    """A server that has not been started."""
    return ServerProcess(ServerCommand(f"{SERVER} {arguments}", log_path=log, **settings))


def gone(pid: int) -> bool:
    """Return True if no such process is active."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_server_is_ready_when_its_page_says_so(tmp_path: Path) -> None:
    """start() waits through 503s for the 200; the process runs, and stop() ends it."""

    async def body() -> None:
        server = server_with("--unready 3", tmp_path / "log", ready_path="/health")
        await server.start()
        assert server.alive() is None
        (pid,) = server.pids()
        await server.stop()
        await server.stop()
        assert gone(pid)
        assert server.pids() == ()

    asyncio.run(body())


def test_our_processes_send_no_usage_reports(tmp_path: Path) -> None:
    """The switches that turn usage reports off are in a server's environment, unless the scenario says otherwise."""
    names = ("DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY", "VLLM_NO_USAGE_STATS")
    code = f"import os,sys; print([os.environ.get(n) for n in {names!r}]); sys.exit(sys.argv[1] == 0)"
    log = tmp_path / "log"
    command = ServerCommand(shlex.join([sys.executable, "-c", code, "{port}"]), log_path=log, env={"DO_NOT_TRACK": "0"})

    async def body() -> None:
        server = ServerProcess(command)
        with pytest.raises(StartFailed):
            await server.start()
        await server.stop()

    asyncio.run(body())
    assert "['0', '1', '1']" in log.read_text()


def test_without_a_page_an_open_port_is_enough(tmp_path: Path) -> None:
    """A server is ready as soon as it accepts connections."""

    async def body() -> None:
        server = server_with(log=tmp_path / "log")
        await server.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
        assert not reader.at_eof()
        await server.stop()

    asyncio.run(body())


def test_descendants_in_other_sessions_are_ended_too(tmp_path: Path) -> None:
    """A worker that left the server's process group does not survive stop()."""

    async def body() -> list[int]:
        server = server_with("--child", tmp_path / "log", ready_path="/health")
        await server.start()
        pids = list(server.pids())
        await server.stop()
        return pids

    pids = asyncio.run(body())
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_a_server_that_ignores_the_polite_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the grace period comes SIGKILL."""
    monkeypatch.setattr(server_process, "TERM_GRACE_S", 0.1)
    monkeypatch.setattr(server_process, "KILL_LIMIT_S", 60.0)  # a busy machine may take its time over it

    async def body() -> int:
        server = server_with("--deaf", tmp_path / "log", ready_path="/health")
        await server.start()
        pid = server.pids()[0]
        await server.stop()
        return pid

    assert gone(asyncio.run(body()))


def test_a_server_that_ends_is_quoted_by_its_last_line(tmp_path: Path) -> None:
    """StartFailed names the program, the exit code and the last line of this server's log, not of an earlier one's."""
    log = tmp_path / "log"
    log.write_text("something older\n")

    async def body() -> None:
        server = server_with("--die 'CUDA is out of memory'", log)
        try:
            await server.start()
        finally:
            await server.stop()

    with pytest.raises(StartFailed) as caught:
        asyncio.run(body())
    assert str(caught.value) == (
        f'the server {sys.executable!r} ended with exit code 3; its last line: "CUDA is out of memory"'
    )
    assert log.read_text().startswith("something older\n")


def test_a_server_that_is_killed_later_is_noticed(tmp_path: Path) -> None:
    """alive() names the signal."""

    async def body() -> str | None:
        server = server_with(log=tmp_path / "log", ready_path="/health")
        await server.start()
        psutil.Process(server.pids()[0]).send_signal(signal.SIGKILL)
        while server.alive() is None:
            await asyncio.sleep(0.01)
        reason = server.alive()
        await server.stop()
        return reason

    assert asyncio.run(body()) == f'the server {sys.executable!r} was killed by SIGKILL; its last line: "serving"'


def test_what_a_killed_server_leaves_is_ended_politely(tmp_path: Path) -> None:
    """A worker whose server was killed by somebody else gets the polite signal, and stop() waits for its end."""
    log = tmp_path / "log"
    worker = "import signal,sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('done'))); "
    worker += "print('ready', flush=True); signal.pause()"
    code = "import socket,subprocess,sys; server = socket.create_server(('127.0.0.1', int(sys.argv[1]))); "
    code += f"subprocess.run([sys.executable, '-c', {worker!r}])"

    async def body() -> int:
        server = ServerProcess(ServerCommand(shlex.join([sys.executable, "-c", code, "{port}"]), log_path=log))
        await server.start()
        while "ready" not in log.read_text():
            await asyncio.sleep(0.01)
        leader, member = server.pids()
        psutil.Process(leader).kill()
        while server.alive() is None:
            await asyncio.sleep(0.01)
        await server.stop()
        return member

    assert gone(asyncio.run(body()))
    assert "done" in log.read_text()


@pytest.mark.parametrize(
    ("listener", "limit_s", "seen"),
    [("refuses", 60, "status 503"), ("hangs", 0.25, r"no answer within 0\.25 s"), (None, 60, "nothing answered")],
)
def test_a_server_that_is_never_ready_times_out(
    listener: str | None, limit_s: float, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence holds the limit, what was last seen and where."""
    monkeypatch.setattr(server_process, "PROBE_LIMIT_S", limit_s)
    command = shlex.join([sys.executable, "-c", "import signal; signal.pause()", "{port}"])

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def body(taken: socket.socket) -> None:
        answering = await asyncio.start_server(refuse, sock=taken) if listener == "refuses" else None
        where = {"port": taken.getsockname()[1], "ready_path": "/health", "ready_timeout_s": 0.2}
        server = ServerProcess(ServerCommand(command, log_path=tmp_path / "log", **where))
        try:
            await server.start()
        finally:
            await server.stop()
            if answering is not None:
                answering.close()

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if listener == "hangs":
            taken.listen()
        with pytest.raises(StartFailed, match=rf"was not ready after 0\.2 s: {seen} at http://127.*/health$"):
            asyncio.run(body(taken))


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("/no/such/program {port}", "cannot run '/no/such/program': No such file or directory; check `command`"),
        ("serve 'quote {port}", 'the command "serve \'quote {port}" cannot be split: No closing quotation'),
        ("serve {model} {port}", "the command contains {model}, but the scenario names no model; add `model:`"),
        (
            "out/{label.commit}/serve {port}",
            "the command contains {label.commit}, which is not set; add --label commit=...",
        ),
    ],
)
def test_commands_that_cannot_run_are_refused(command: str, sentence: str) -> None:
    """Before anything is started, with one sentence."""
    with pytest.raises(StartFailed) as caught:
        asyncio.run(ServerProcess(ServerCommand(command)).start())
    assert str(caught.value) == sentence


def test_a_taken_port_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When somebody else was faster, the server is started again on another port."""
    monkeypatch.setattr(server_process, "PROBE_LIMIT_S", 0.2)  # whoever has the first one never answers
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = itertools.chain([taken.getsockname()[1]], iter(free_port, 0))
        monkeypatch.setattr(server_process, "free_port", lambda: next(ports))

        async def body() -> int:
            server = server_with(log=tmp_path / "log", ready_path="/health")
            await server.start()
            await server.stop()
            return server.port

        assert asyncio.run(body()) != taken.getsockname()[1]


def test_possible_secrets_are_not_shown() -> None:
    """A command that lands in a message or a log shows neither its environment nor its headers."""
    command = ServerCommand("x", env={"KEY": "secret-1"}, headers={"Authorization": "secret-2"})
    assert "secret" not in repr(command)


def test_the_model_environment_and_stop_command_are_used(tmp_path: Path) -> None:
    """{model}, {port} and labels are filled in without a shell, env is passed on, and `stop` runs after the end."""
    log = tmp_path / "log"
    code = "import os,signal,socket,sys; print(sys.argv[1:], os.environ['COLOUR'], flush=True); "
    code += "server = socket.create_server(('127.0.0.1', int(sys.argv[2]))); signal.pause()"
    command = f'{sys.executable} -c "{code}" {{model}} {{port}} $HOME {{label.commit}}'
    stop = f"{sys.executable} -c \"import sys; print('stopped', sys.argv[1]); sys.exit(1)\" {{port}}"

    labels = {"commit": "a 1"}

    async def body() -> int:
        server = ServerProcess(
            ServerCommand(command, "a model", {"COLOUR": "blue"}, stop=stop, log_path=log, labels=labels)
        )
        await server.start()  # it listens after it has told
        await server.stop()
        return server.port

    port = asyncio.run(body())
    written = log.read_text()
    assert f"['a model', '{port}', '$HOME', 'a 1'] blue" in written
    assert f"stopped {port}" in written
    assert "ended with exit code 1" in written


def test_a_server_dies_with_us(tmp_path: Path) -> None:
    """When the process that started it is killed, the server ends."""
    program = f"""
import asyncio, pathlib, sys
from engines.process.server import ServerCommand, ServerProcess
async def main():
    server = ServerProcess(ServerCommand({SERVER!r}, ready_path="/health", log_path=pathlib.Path(sys.argv[1])))
    await server.start()
    print(server.pids()[0], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True, cwd=root
    ) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([server], timeout=60)
    assert gone(server.pid)


def test_a_port_that_another_server_has_is_refused() -> None:
    """Else that server would be measured, as it is ready at once."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(StartFailed, match=f"port {port} is in use; name another port"):
            EngineServer("vllm-server", None).require_new(port)
    EngineServer("vllm-server", None).require_new(port)
