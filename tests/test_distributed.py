"""A master and its workers as processes of their own: the whole plan is sent once, whatever happens to a worker."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import (
    LONGEST_WAIT_S,
    ROOT,
    environment,
    manifest,
    measured,
    on_path,
    records,
    rows_on_disk,
    scenario,
    wait_until,
)

from harness.drivers.stub import StubServer, model_name
from harness.store.streams import read_batches
from tests.echoing_server import echoing, left_in
from tests.forked import running
from tests.relay import Relay, reached

pytestmark = pytest.mark.slow
OPEN = {"kind": "sustained", "rate": 40, "arrivals": "constant", "requests": 60, "timeout": "60s"}
CLOSED = {"kind": "sustained", "users": 5, "requests": 40, "timeout": "60s"}
QUICK = ("--format", "json")
ALERT = on_path("alert_workers")


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    """A server that streams at known times."""
    with StubServer() as running_server:
        yield running_server


def engine(server: StubServer, **keys: Any) -> list[dict[str, Any]]:
    """The server as an engine."""
    known = {"url": f"http://127.0.0.1:{server.port}", "served_model": model_name(20, 5)}
    return [{"engine": "http", **known, **keys}]


def free_port() -> int:
    """A port that nobody listens at, and that no connection is given: masters listen again for each trial."""
    for port in random.sample(range(10_000, 30_000), 20):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port from 10,000 to 30,000 is free")


class Company:
    """A master and workers in one folder, ended with the test."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self.port = free_port()
        self.run = folder / "run"

    def master(self, path: Path, workers: int, within: str = "120s") -> subprocess.Popen[str]:
        """Start the run."""
        options = ["--driver", "locust", "--expect-workers", str(workers), "--workers-within", within]
        port = ("--master-bind-port", str(self.port))
        command = ("run", str(path), "--out", "run", *options, *port, *QUICK)
        return self._started(running(*command, cwd=self._folder, env={"KEY": "sk-of-the-master"}))

    def worker(self, *options: str, **env: str) -> subprocess.Popen[str]:
        """Start a worker."""
        command = (
            "worker",
            "--master-host",
            "127.0.0.1",
            "--master-port",
            str(self.port),
            "--within",
            "120s",
            *options,
        )
        return self._started(running(*command, cwd=self._folder, env=env))

    def worker_at_the_door(self) -> subprocess.Popen[str]:
        """Start a worker, and return once it seeks the master, who is not there yet: it will not be long in coming."""
        with socket.create_server(("127.0.0.1", self.port)) as door:
            worker = self.worker()
            door.settimeout(LONGEST_WAIT_S)
            door.accept()[0].close()
        return worker

    def _started(self, process: AbstractContextManager[subprocess.Popen[str]]) -> subprocess.Popen[str]:
        started = self._stack.enter_context(process)
        for pipe in (started.stdout, started.stderr):
            assert pipe is not None
            self._stack.callback(pipe.close)
        return started

    def trials(self) -> list[dict[str, Any]]:
        """What the manifest says of the run's trials."""
        found: list[dict[str, Any]] = manifest(self.run)["cells"][0]["trials"]
        return found


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Company]:
    """Nobody yet."""
    with ExitStack() as stack:
        yield Company(tmp_path, stack)


def ended(process: subprocess.Popen[str]) -> str:
    """What a process said on standard error until it ended."""
    _, err = process.communicate(timeout=180)
    return err


@dataclass(frozen=True)
class Shared:
    """A run of two workers who came after one that could not take part, and what each process said until its end."""

    run: Path
    trials: list[dict[str, Any]]
    master: str
    workers: list[tuple[int, str]]
    without: tuple[int, str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, server: StubServer) -> Iterator[Shared]:
    """Two loads, by a master whose engine needs a key, by a worker that gives none, and by two that do."""
    folder = tmp_path_factory.mktemp("shared")
    path = scenario(folder, engines=engine(server, api_key_env="KEY"), load=[OPEN, CLOSED])
    with ExitStack() as stack:
        company = Company(folder, stack)
        master = company.master(path, 2)
        without = company.worker(KEY="sk-of-the-worker")
        refused = ended(without)
        workers = [company.worker("--allow-env", "KEY", KEY="sk-of-the-worker") for _ in range(2)]
        said = ended(master)
        assert master.returncode in (0, 4), said  # a busy machine may make it invalid
        told = [(ended(worker), worker.returncode) for worker in workers]
        yield Shared(
            company.run, company.trials(), said, [(code, err) for err, code in told], (without.returncode, refused)
        )


def test_two_workers_send_one_plan_in_every_trial(shared: Shared) -> None:
    """Open and closed: each row once, half from each worker, at times on the master's clock; the workers end with 0."""
    opened, closed = shared.trials
    rows = measured(shared.run, opened)
    assert [row["request"] for row in rows] == list(range(OPEN["requests"]))
    assert [row["worker"] for row in rows] == [0, 1] * (OPEN["requests"] // 2)
    assert {row["status"] for row in rows} == {"ok"}
    assert all(row["sent_ns"] >= row["due_ns"] - uncertainty_ns(opened) for row in rows)
    rows = measured(shared.run, closed)
    assert sorted(row["request"] for row in rows) == list(range(CLOSED["requests"]))
    assert all(row["worker"] == row["user"] % 2 for row in rows)
    reports = opened["client"]["workers"]
    assert [report["worker"] for report in reports] == [0, 1]
    assert opened["client"]["send_lag_max_ms"] == max(report["send_lag_max_ms"] for report in reports)
    for code, err in shared.workers:
        assert "its share of 2 trials" in err
        assert code == 0


def test_a_worker_that_does_not_give_its_key_refuses(shared: Shared) -> None:
    """Keys never travel, and a worker gives only what its user allows: it says what was asked and how to allow it, to
    its user and to the master; another takes its place.
    """
    code, err = shared.without
    sentence = "the scenario asks for KEY of this worker's environment; to allow it, add --allow-env KEY"
    assert sentence in err
    assert code == 3
    assert f"a load worker refused: {sentence}" in shared.master
    stored = b"".join(path.read_bytes() for path in shared.run.rglob("*") if path.is_file())
    assert b"sk-of-the" not in stored


def test_no_secret_of_a_worker_reaches_the_run(tmp_path: Path, company: Company) -> None:
    """Its own key, which the server repeats in errors and finish reasons, is masked before the master gets a word."""
    keys = {"KEY": "sk-of-laborer-8Zq4711-xyzw"}
    load = {"kind": "sustained", "users": 4, "requests": 60, "warmup": "0s", "timeout": "5s"}
    with echoing() as url:
        block = {"engine": "http", "url": url, "dialect": "openai-completions", "api_key_env": "KEY"}
        path = scenario(tmp_path, engines=[block], load=[load])
        master = company.master(path, 1)
        worker = company.worker("--allow-env", "KEY", **keys)
        said = [ended(process) for process in (master, worker)]
    (trial,) = company.trials()
    rows = records(company.run, trial)
    assert any("***" in f"{row['error']} {row['finish_reason']}" for row in rows), said
    assert not left_in(company.run, [*keys.values(), "sk-of-the-master"], said)


def uncertainty_ns(trial: dict[str, Any]) -> float:
    """How exactly the clocks are related."""
    known: float = max(report["clock_uncertainty_ms"] for report in trial["client"]["workers"])
    return known * 1e6


def rows_of(run: Path, worker: int) -> int:
    """How many of a worker's records have been stored."""
    batches = [batch for found in run.rglob("records*.arrows") for batch in read_batches(found)]
    return sum(batch.column("worker").to_pylist().count(worker) for batch in batches)


def test_a_worker_killed_in_mid_run_costs_its_share_only(tmp_path: Path, company: Company, server: StubServer) -> None:
    """The others go on; the loss is told at once and in the manifest; every planned request has a row, those it had not
    sent as `not_sent`.
    """
    path = scenario(tmp_path, engines=engine(server), load=[{**OPEN, "requests": 240}])
    master = company.master(path, 2)
    workers = [company.worker(), company.worker()]
    wait_until(lambda: min(rows_of(company.run, worker) for worker in (0, 1)) >= 10, master)
    for process in [*psutil.Process(workers[1].pid).children(recursive=True), workers[1]]:
        process.kill()
    said = ended(master)
    assert master.returncode == 4, said
    assert re.search(r"load worker \d was lost", said)
    (trial,) = company.trials()
    (lost,) = [report["worker"] for report in trial["client"]["workers"] if report["lost"]]
    assert any(f"load worker {lost} was lost" in note for note in trial["client"]["notes"])
    rows = measured(company.run, trial)  # load goes on until all have ended
    assert [row["request"] for row in rows] == list(range(240))
    assert {row["status"] for row in rows if row["worker"] != lost} == {"ok"}
    counted = Counter(row["status"] for row in rows if row["worker"] == lost)
    assert counted["ok"] >= 10
    assert counted["not_sent"] >= 10
    assert set(counted) <= {"ok", "not_sent", "unfinished"}
    unsent_ns = [row["due_ns"] for row in rows if row["status"] == "not_sent"]
    assert all(row["due_ns"] <= min(unsent_ns) for row in rows if row["status"] == "unfinished")
    assert "its share of 1 trial" in ended(next(worker for worker in workers if worker.returncode is None))


def test_a_worker_that_never_comes_is_not_waited_for_long(tmp_path: Path, company: Company, server: StubServer) -> None:
    """The run begins without it when the time is over; its share was not sent; coming later it is dismissed."""
    go_on = tmp_path / "go-on"
    worker = company.worker_at_the_door()
    with Relay(server.port, 10, go_on) as relay:
        path = scenario(tmp_path, engines=engine(server, url=relay.url), load=[OPEN])
        master = company.master(path, 2, within="4s")
        wait_until(reached(go_on).exists, master)
        late = company.worker()
        assert "dismissed this worker" in ended(late)
        assert late.returncode == 3
        go_on.touch()
        said = ended(master)
    assert master.returncode == 4, said
    assert "1 of 2 load workers are ready" in said
    (trial,) = company.trials()
    assert any("did not come in time" in note for note in trial["client"]["notes"])
    rows = measured(company.run, trial)
    assert Counter((row["worker"], row["status"]) for row in rows) == {(0, "ok"): 30, (1, "not_sent"): 30}
    ended(worker)
    assert worker.returncode == 0


def test_workers_end_with_their_master(tmp_path: Path, company: Company, server: StubServer) -> None:
    """A master that vanishes without a word is noticed: one sentence, exit 3."""
    path = scenario(tmp_path, engines=engine(server), load=[{**OPEN, "requests": 1000}])
    master = company.master(path, 1)
    worker = company.worker(**ALERT)
    wait_until(lambda: rows_on_disk(company.run) >= 1, master)
    for process in [*psutil.Process(master.pid).children(recursive=True), master]:
        process.kill()
    assert "has been silent for" in ended(worker)
    assert worker.returncode == 3


def test_ctrl_c_at_the_master_ends_all(tmp_path: Path, company: Company, server: StubServer) -> None:
    """What is in flight is finished, every planned request has a row, and the workers are told that it is over."""
    path = scenario(tmp_path, engines=engine(server), load=[{**OPEN, "requests": 1000}, CLOSED])
    master = company.master(path, 2)
    workers = [company.worker(), company.worker()]
    wait_until(lambda: rows_on_disk(company.run) >= 1, master)
    master.send_signal(signal.SIGINT)
    said = ended(master)
    assert master.returncode == 130, said
    rows = records(company.run, company.trials()[0])
    assert [row["request"] for row in rows] == list(range(1000))
    assert {row["status"] for row in rows} == {"ok", "not_sent"}
    for worker in workers:
        ended(worker)
        assert worker.returncode == 0


def test_ctrl_c_at_a_worker_ends_it(tmp_path: Path, company: Company) -> None:
    """Also while it waits for a master that is not there."""
    worker = company.worker()
    assert worker.stderr is not None
    assert "waiting for the master" in worker.stderr.readline()
    worker.send_signal(signal.SIGINT)
    assert "interrupted" in ended(worker)
    assert worker.returncode == 130


NAMESPACES = """
set -e
export HARNESS_SECRET=of-both-sides
ip link set lo up
unshare -n sleep 600 & far=$!
trap 'kill $far $served' EXIT
own=$(readlink /proc/self/ns/net)
while [ "$(readlink /proc/$far/ns/net)" = "$own" ]; do sleep 0.05; done
ip link add near type veth peer name there
ip link set there netns $far
ip addr add 10.77.0.1/24 dev near; ip link set near up
nsenter -t $far -n ip link set lo up
nsenter -t $far -n ip addr add 10.77.0.2/24 dev there
nsenter -t $far -n ip link set there up
{python} -P {server} 8123 --host 10.77.0.1 & served=$!
{python} -P -m harness run {scenario} --out run --driver locust --expect-workers 1 --master-bind-host 10.77.0.1 \
  --master-bind-port 5557 --workers-within 120s --format json --yes & master=$!
nsenter -t $far -n {python} -P -m harness worker --master-host 10.77.0.1 --within 120s & worker=$!
wait $worker
wait $master || [ $? = 4 ]
"""


def namespaces_missing() -> str | None:
    """Why network namespaces cannot be had here."""
    for program in ("unshare", "ip", "nsenter"):
        if shutil.which(program) is None:
            return f"there is no program `{program}`"
    command = ["unshare", "-n", "sh", "-c", "ip link set lo up && ip link add near type veth peer name there"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"network namespaces are not permitted ({tried.stderr.strip()})" if tried.returncode else None


def test_a_worker_in_another_network_namespace(tmp_path: Path) -> None:
    """A worker that reaches master and server only through a network of its own sends the plan as any other."""
    if why := namespaces_missing():
        pytest.skip(why)
    server = str(ROOT / "tests" / "engines" / "tiny_server.py")
    target = [{"engine": "http", "url": "http://10.77.0.1:8123", "ready": {"path": "/health", "timeout": "120s"}}]
    path = scenario(tmp_path, engines=target, load=[{**OPEN, "requests": 40}])
    script = NAMESPACES
    for name, value in (("python", sys.executable), ("scenario", str(path)), ("server", server)):
        script = script.replace("{" + name + "}", value)
    done = subprocess.run(
        ["unshare", "-n", "bash", "-c", script],
        cwd=tmp_path,
        env=environment(dict(os.environ)),
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    (trial,) = manifest(tmp_path / "run")["cells"][0]["trials"]
    assert sorted(row["request"] for row in records(tmp_path / "run", trial)) == list(range(40))
