"""The port of a master of workers: strangers at it, and the secret that keeps them out."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from command import measured, scenario, wait_until

from harness.drivers.stub import StubServer
from tests.forked import harness
from tests.test_distributed import OPEN, Company, ended, engine

pytestmark = pytest.mark.slow
DEEP = b"\x91" * 100_000
STRANGE: dict[str, list[bytes]] = {
    "no message": [b"\xc1"],
    "nothing": [b""],
    "two parts": [b"a", b"b"],
    "no text": [b"\xd9\x02\xff\xfe"],
    "a deep list": [DEEP],
    "four fields": [msgpack.dumps(("quit", None, "evil", 4))],
    "a wrong date": [msgpack.dumps(("stats", {"__datetime__": 1}, "evil"))],
    "a ping without its time": [msgpack.dumps(("harness_ping", {}, "evil"))],
    "a ping of nobody": [msgpack.dumps(("harness_ping", {"at_ns": 1}, "evil"))],
    "in another's name": [msgpack.dumps(("client_stopped", None, "somebody else"))],
    "a name of a wrong type": [msgpack.dumps(("quit", None, 7))],
    "a word of a wrong type": [msgpack.dumps(({"a": 1}, None, "evil"))],
    "a request for files": [msgpack.dumps(("locustfile", {"version": "2.47"}, "evil"))],
    "spawned users of nobody": [msgpack.dumps(("spawning_complete", 5, "evil"))],
    "a hello of nobody": [msgpack.dumps(("harness_hello", {"host": "evil"}, "evil"))],
    "a sealed message": [b"harness\x01" + bytes(100)],
}


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    """A server that streams at known times."""
    with StubServer() as running_server:
        yield running_server


def send_strange(port: int) -> None:
    """Send every strange message, what is no message at all, and the head of one of a terabyte."""
    context = zmq.Context()
    with context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.IDENTITY, b"evil")
        peer.connect(f"tcp://127.0.0.1:{port}")
        for parts in STRANGE.values():
            peer.send_multipart(parts)
        peer.close(linger=5000)
    context.term()
    for raw in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" + bytes(8) + b"\x7f" + struct.pack(">Q", 1 << 40)):
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(raw)


def listening(port: int) -> bool:
    """Whether somebody listens at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("secret", [{}, {"HARNESS_SECRET": "of-both-sides"}], ids=["open", "sealed"])
def test_strangers_are_dropped_and_counted(
    tmp_path: Path, server: StubServer, secret: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they send: the master hears its worker, the run is complete, and one line tells of the first."""
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    path = scenario(tmp_path, engines=engine(server), load=[OPEN])
    with ExitStack() as stack:
        company = Company(tmp_path, stack)
        master = company.master(path, 1)
        wait_until(lambda: listening(company.port), master)
        send_strange(company.port)
        worker = company.worker()
        said = ended(master)
        assert master.returncode in (0, 4), said  # a busy machine may make it invalid
        assert "its share of 1 trial" in ended(worker)
    assert said.count("a message at the workers' port was dropped") == 1
    (trial,) = company.trials()
    (note,) = [note for note in trial["client"]["notes"] if "came from no worker of this run" in note]
    assert int(note.split()[0]) == len(STRANGE)
    assert len(measured(company.run, trial)) == OPEN["requests"]


SECRETS: list[tuple[dict[str, str], list[str]]] = [
    ({"HARNESS_SECRET": "one"}, ["another", ""]),
    ({}, ["another"]),
]


@pytest.mark.parametrize(("of_master", "of_workers"), SECRETS, ids=["another, or none", "only the worker's"])
def test_sides_without_the_same_secret_do_not_meet(
    tmp_path: Path,
    server: StubServer,
    of_master: dict[str, str],
    of_workers: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each ends with one sentence; the master waits for a right worker, which takes its share."""
    path = scenario(tmp_path, engines=engine(server), load=[OPEN])
    with ExitStack() as stack:
        company = Company(tmp_path, stack)
        for name, value in of_master.items():
            monkeypatch.setenv(name, value)
        master = company.master(path, 1)
        wait_until(lambda: listening(company.port), master)
        wrong = [company.worker(HARNESS_SECRET=secret) for secret in of_workers]
        for one in wrong:
            assert "refuses this worker's HARNESS_SECRET; set the same value on both machines" in ended(one)
            assert one.returncode == 3
        right = company.worker()
        said = ended(master)
        assert master.returncode in (0, 4), said
        assert "its share of 1 trial" in ended(right)
    stored = b"".join(each.read_bytes() for each in company.run.rglob("*") if each.is_file())
    assert all(value.encode() not in stored + said.encode() for value in of_master.values() if value != "one")


REFUSALS: list[tuple[list[Any], str]] = [
    (["worker", "--master-host", "10.0.0.1"], "--master-host 10.0.0.1"),
    (["worker", "--master-host", "127.0.0.1", "--allow-env", "HARNESS_SECRET"], "--allow-env HARNESS_SECRET"),
    (
        ["run", "scenario.yaml", "--driver", "locust", "--expect-workers", "1", "--master-bind-host", "*"],
        "--master-bind-host *",
    ),
]


@pytest.mark.parametrize(("command", "option"), REFUSALS)
def test_other_machines_need_the_secret(tmp_path: Path, command: list[str], option: str) -> None:
    """Without it, one sentence names the option and the variable: 2."""
    scenario(tmp_path)
    done = harness(*command, cwd=tmp_path, env={"HARNESS_SECRET": ""})
    assert done.code == 2
    assert option in done.err
    assert "HARNESS_SECRET" in done.err
    assert len(done.err.splitlines()) == 1
