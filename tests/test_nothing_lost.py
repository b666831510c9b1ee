"""Whoever is killed, and whenever: each planned request has a row, and what was measured is on disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import environment, manifest, measured, on_path, records, rows_on_disk, scenario, told, wait_until

from harness.drivers.stub import StubServer, model_name
from tests.forked import running

pytestmark = pytest.mark.slow
QUICK = ("--format", "json")
OPEN = {"kind": "sustained", "rate": 20, "arrivals": "constant", "requests": 400, "timeout": "100s"}
USERS = {"kind": "sustained", "users": 4, "requests": 400, "timeout": "100s"}
CHILD = "harness.run.child"
SLOW_PLANS = on_path("slow_cells")


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
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                found.extend([child] if module in child.cmdline() else [])
        return bool(found)

    wait_until(look, process)
    return found[0]


@dataclass(frozen=True)
class Death:
    """How a process of a cell is killed. planned: requests of the load, another number in each cell."""

    module: str
    planned: int
    engine: dict[str, Any]
    load: dict[str, Any]
    plans: bool = False  # while it plans; otherwise once ten rows are on disk

    def block(self, name: str) -> dict[str, Any]:
        """The cell."""
        return {**self.engine, "variants": {name: {}}, "load": [{**self.load, "requests": self.planned}]}


def deaths(server: StubServer) -> dict[str, Death]:
    """By name, in the order of the cells."""
    (silent,), (serving,), (simulated,) = held(), engines(server), [{"engine": "simulated"}]
    child, locust, worker = CHILD, "harness.drivers.locust.process", "harness.drivers.workers.worker"
    return {
        "rate": Death(child, 301, silent, OPEN),
        "users": Death(child, 302, silent, USERS),
        "planning": Death(child, 303, simulated, OPEN, plans=True),
        "locust planning": Death(locust, 304, serving, OPEN | {"driver": "locust"}, plans=True),
        "worker planning": Death(worker, 305, serving, OPEN | {"workers": 2}, plans=True),
        "locust": Death(locust, 306, serving, OPEN | {"driver": "locust"}),
    }


class Killed:
    """A run in each of whose cells a process was killed."""

    def __init__(self, run: Path, names: list[str]) -> None:
        self._run = run
        self._cells = dict(zip(names, manifest(run)["cells"], strict=True))

    def trial(self, name: str) -> dict[str, Any]:
        """The only trial of a cell, which failed for that reason."""
        trial: dict[str, Any]
        (trial,) = self._cells[name]["trials"]
        assert trial["status"] == "failed"
        assert "SIGKILL" in trial["reason"]
        return trial

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Its measured rows."""
        return measured(self._run, self.trial(name))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, server: StubServer) -> Killed:
    """It goes on after each death, and ends with 3 and no traceback."""
    folder = tmp_path_factory.mktemp("killed")
    cells = deaths(server)
    path, run = scenario(folder, engines=[cell.block(name) for name, cell in cells.items()]), folder / "run"
    slow = ",".join(f"{cell.module}={cell.planned}" for cell in cells.values() if cell.plans)
    env = SLOW_PLANS | {"SLOW_PLANS_OF": slow}
    with running("run", str(path), "--out", "run", *QUICK, cwd=folder, env=env) as process:
        for number, cell in enumerate(cells.values()):
            planning = folder / f"planning-{cell.planned}"
            there = planning.exists if cell.plans else partial(ten_rows, run / "cells", number)
            wait_until(there, process)
            below(process, cell.module).kill()
            planning.unlink(missing_ok=True)
        _, err = process.communicate(timeout=200)
    assert process.returncode == 3, err
    assert "Traceback" not in err
    return Killed(run, list(cells))


def ten_rows(cells: Path, number: int) -> bool:
    """Whether a cell has stored as many."""
    return sum(rows_on_disk(cell) for cell in cells.glob(f"{number:03d}-*")) >= 10


@pytest.mark.parametrize(("name", "planned"), [("rate", 301), ("users", 302)])
def test_the_trials_process_is_killed(killed: Killed, name: str, planned: int) -> None:
    """What was answered is kept though nothing came after it; the rest is unfinished, or was never sent."""
    rows = killed.rows(name)
    statuses = Counter(row["status"] for row in rows)
    assert statuses["ok"] == 10
    assert statuses["unfinished"] == 4 if name == "users" else statuses["unfinished"] > 0
    assert statuses["ok"] + statuses["unfinished"] + statuses["not_sent"] == planned
    assert len({row["request"] for row in rows}) == planned
    assert killed.trial(name)["planned"]["measure"] == planned


def test_the_trials_process_is_killed_while_it_plans(killed: Killed) -> None:
    """None of its requests was sent; what the plan is, is known all the same."""
    trial, rows = killed.trial("planning"), killed.rows("planning")
    assert trial["reason"].startswith("while its plan was made")
    assert [row["request"] for row in rows] == list(range(303))
    assert {row["status"] for row in rows} == {"not_sent"}
    assert trial["plan_hash"]


@pytest.mark.parametrize(("name", "planned"), [("locust planning", 304), ("worker planning", 305)])
def test_a_load_process_is_killed_while_it_plans(killed: Killed, name: str, planned: int) -> None:
    """Locust's, or a worker of ours: no request was sent, and each has its row."""
    rows = killed.rows(name)
    assert [row["request"] for row in rows] == list(range(planned))
    assert {row["status"] for row in rows} == {"not_sent"}


def test_locusts_process_is_killed(killed: Killed) -> None:
    """What it had measured is kept, and the rest of the plan has its rows."""
    rows = killed.rows("locust")
    assert [row["request"] for row in rows] == list(range(306))
    statuses = Counter(row["status"] for row in rows)
    assert statuses["ok"] >= 10
    assert statuses["not_sent"] > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_run_is_stopped_while_it_plans(tmp_path: Path, number: int) -> None:
    """It ends at once, however long the plan takes; the trial was interrupted before it began."""
    path, run = scenario(tmp_path, load=[OPEN]), tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=SLOW_PLANS) as process:
        wait_until((tmp_path / "planning-400").exists, process)
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
        wait_until((tmp_path / "planning-400").exists, process)
        child = below(process, CHILD)
        process.kill()
        process.communicate()
        assert not psutil.wait_procs([child], timeout=60)[1]


def test_open_files_run_out(tmp_path: Path, server: StubServer) -> None:
    """Each request that finds none is a row that says so; the trial ends in order, and is invalid for that reason."""
    load = {"kind": "sustained", "users": 100, "requests": 150, "timeout": "20s"}
    path, run = scenario(tmp_path, engines=engines(server), load=[load]), tmp_path / "run"
    few = 'ulimit -n 64; exec "$@"'
    command = [sys.executable, "-P", "-m", "harness", "run", str(path), "--out", "run", *QUICK]
    done = subprocess.run(
        ["sh", "-c", few, "sh", *command], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 4, done.stderr
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert trial["status"] == "complete"
    rows = measured(run, trial)
    assert len(rows) == 150
    assert {row["status"] for row in rows} == {"ok", "connection_error"}
    errors = {row["error"] for row in rows if row["status"] != "ok"}
    assert errors == {
        "no connection can be opened: Too many open files: `ulimit -n` lets this process have 64, all are in use"
    }


def test_a_closed_terminal_ends_a_run_in_order(tmp_path: Path) -> None:
    """SIGHUP is as Ctrl-C: everything planned has its row, and the report is written."""
    path, run = scenario(tmp_path, engines=held(), load=[OPEN | {"rate": 40, "timeout": "500ms"}]), tmp_path / "run"
    with running("run", str(path), "--out", "run", "--format", "md", cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(run) >= 10, process)
        process.send_signal(signal.SIGHUP)
        told(process, "stopping")
        _, err = process.communicate(timeout=200)
    assert process.returncode == 130, err
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert len(records(run, trial)) == 400
    assert "interrupted" in (run / "report.md").read_text()
