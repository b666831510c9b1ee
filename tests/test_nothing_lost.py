"""Whoever is killed, and whenever: each planned request has a row, and what was measured is on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import environment, manifest, on_path, records, rows_on_disk, running, scenario, told, wait_until

from harness.drivers.stub import StubServer, model_name

pytestmark = pytest.mark.slow
QUICK = ("--format", "json")
OPEN = {"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 400, "timeout": "100s"}
USERS = {"kind": "sustained", "users": 4, "requests": 400, "timeout": "100s"}
SLOW_PLANS = on_path("slow_plans")


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    """A server that streams at known times."""
    with StubServer() as running_server:
        yield running_server


def held(**options: Any) -> list[dict[str, Any]]:
    """An engine that answers ten requests and then no more."""
    return [{"engine": "simulated", "options": {"ttft_ms": 20, "tpot_ms": 1, "hang_after_requests": 11, **options}}]


def engines(server: StubServer) -> list[dict[str, Any]]:
    """The server as an engine."""
    url = f"http://127.0.0.1:{server.port}"
    return [{"engine": "http", "url": url, "served_model": model_name(20, 2)}]


def below(process: Any, module: str) -> psutil.Process:
    """The process of a run in which a module of ours runs, once there is one."""
    found: list[psutil.Process] = []

    def look() -> bool:
        children = psutil.Process(process.pid).children(recursive=True)
        found.extend(child for child in children if module in child.cmdline())
        return bool(found)

    wait_until(look, process)
    return found[0]


def ended(process: Any, run: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The only trial of a run that ends with 3 and no traceback, and its measured rows."""
    _, err = process.communicate(timeout=200)
    assert process.returncode == 3, err
    assert "Traceback" not in err
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert trial["status"] == "failed"
    assert "SIGKILL" in trial["reason"]
    return trial, [row for row in records(run, trial) if row["phase"] == "measure"]


@pytest.mark.parametrize("load", [OPEN, USERS], ids=["rate", "users"])
def test_the_trials_process_is_killed(tmp_path: Path, load: dict[str, Any]) -> None:
    """What was answered is kept though nothing came after it; the rest is unfinished, or was never sent."""
    path, run = scenario(tmp_path, engines=held(), load=[load]), tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(run) >= 10, process)
        below(process, "harness.run.child").kill()
        trial, rows = ended(process, run)
    statuses = Counter(row["status"] for row in rows)
    assert statuses["ok"] == 10
    assert statuses["unfinished"] == 4 if load is USERS else statuses["unfinished"] > 0
    assert statuses["ok"] + statuses["unfinished"] + statuses["not_sent"] == 400
    assert len({row["request"] for row in rows}) == 400
    assert trial["planned"]["measure"] == 400


def test_the_trials_process_is_killed_while_it_plans(tmp_path: Path) -> None:
    """None of its requests was sent; what the plan is, is known all the same."""
    path, run = scenario(tmp_path, load=[OPEN]), tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=SLOW_PLANS) as process:
        wait_until((tmp_path / "planning").exists, process)
        below(process, "harness.run.child").kill()
        (tmp_path / "planning").unlink()
        trial, rows = ended(process, run)
    assert trial["reason"].startswith("while its plan was made")
    assert [row["request"] for row in rows] == list(range(400))
    assert {row["status"] for row in rows} == {"not_sent"}
    assert trial["plan_hash"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_is_stopped_while_it_plans(tmp_path: Path, number: int) -> None:
    """It ends at once, however long the plan takes; the trial was interrupted before it began."""
    path, run = scenario(tmp_path, load=[OPEN]), tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=SLOW_PLANS) as process:
        wait_until((tmp_path / "planning").exists, process)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert manifest(run)["status"] == "interrupted"
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert trial["status"] == "interrupted"
    assert trial["reason"] == "the run was interrupted before it"


def test_the_run_is_killed_while_a_process_plans(tmp_path: Path) -> None:
    """Its child ends by itself, and does not plan on for nobody."""
    path = scenario(tmp_path, load=[OPEN])
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=SLOW_PLANS) as process:
        wait_until((tmp_path / "planning").exists, process)
        child = below(process, "harness.run.child")
        process.kill()
        process.communicate()
        assert not psutil.wait_procs([child], timeout=60)[1]


@pytest.mark.parametrize("way", ["locust", "workers"])
def test_a_load_process_is_killed_while_it_plans(tmp_path: Path, server: StubServer, way: str) -> None:
    """Locust's, or a worker of ours: no request was sent, and each has its row."""
    more = {"driver": "locust"} if way == "locust" else {"workers": 2}
    path, run = scenario(tmp_path, engines=engines(server), load=[OPEN | more]), tmp_path / "run"
    module = "harness.drivers.locust.process" if way == "locust" else "harness.drivers.workers.worker"
    env = SLOW_PLANS | {"SLOW_PLANS_OF": module}
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=env) as process:
        wait_until((tmp_path / "planning").exists, process)
        below(process, module).kill()
        _, rows = ended(process, run)
    assert [row["request"] for row in rows] == list(range(400))
    assert {row["status"] for row in rows} == {"not_sent"}


def test_locusts_process_is_killed(tmp_path: Path, server: StubServer) -> None:
    """What it had measured is kept, and the rest of the plan has its rows."""
    path = scenario(tmp_path, engines=engines(server), load=[OPEN | {"driver": "locust"}])
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(run) >= 10, process)
        below(process, "harness.drivers.locust.process").kill()
        _, rows = ended(process, run)
    assert [row["request"] for row in rows] == list(range(400))
    statuses = Counter(row["status"] for row in rows)
    assert statuses["ok"] >= 10
    assert statuses["not_sent"] > 0


def test_open_files_run_out(tmp_path: Path, server: StubServer) -> None:
    """Each request that finds none is a row that says so; the trial ends in order, and is invalid for that reason."""
    load = {"kind": "sustained", "users": 100, "requests": 300, "timeout": "20s"}
    path, run = scenario(tmp_path, engines=engines(server), load=[load]), tmp_path / "run"
    few = 'ulimit -n 64; exec "$@"'
    command = [sys.executable, "-P", "-m", "harness", "run", str(path), "--out", "run", *QUICK]
    done = subprocess.run(
        ["sh", "-c", few, "sh", *command], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 4, done.stderr
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert trial["status"] == "complete"
    rows = [row for row in records(run, trial) if row["phase"] == "measure"]
    assert len(rows) == 300
    assert {row["status"] for row in rows} == {"ok", "connection_error"}
    errors = {row["error"] for row in rows if row["status"] != "ok"}
    assert errors == {
        "no connection can be opened: Too many open files: `ulimit -n` lets this process have 64, all are in use"
    }


def test_a_closed_terminal_ends_a_run_in_order(tmp_path: Path) -> None:
    """SIGHUP is as Ctrl-C: everything planned has its row, and the report is written."""
    path, run = scenario(tmp_path, engines=held(), load=[OPEN | {"timeout": "2s"}]), tmp_path / "run"
    with running("run", str(path), "--out", "run", "--format", "md", cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(run) >= 10, process)
        process.send_signal(signal.SIGHUP)
        told(process, "stopping")
        _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert len(records(run, trial)) == 400
    assert "interrupted" in (run / "report.md").read_text()
