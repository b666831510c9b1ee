"""Several load processes that share one plan: the same load whatever their number, and nothing lost when one dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import interrupt, manifest, records, scenario, wait_until

from harness.drivers.base import Control
from harness.drivers.stub import StubServer, model_name
from harness.drivers.workers import count
from harness.run.child import CellSpec, Orders, run_cell
from harness.scenario.reader import load as read_scenario
from harness.schedule.cells import Cell
from harness.schedule.matrix import cell_at
from harness.store.run import record_streams
from harness.store.streams import read_batches
from tests.forked import harness, running
from tests.relay import Relay, reached

pytestmark = pytest.mark.slow
OPEN = {"kind": "sustained", "rate": 100, "warmup": "200ms", "requests": 40, "timeout": "10s"}
OPEN_FOR_A_TIME = {"kind": "sustained", "rate": 100, "warmup": "200ms", "duration": "400ms", "timeout": "10s"}
CLOSED = {"kind": "sustained", "users": 6, "requests": 40, "timeout": "10s", "think_time": "5ms"}
SESSIONS = {"kind": "sessions", "rate": 40, "sessions": 12, "turns": 3, "think_time": "10ms", "timeout": "10s"}
LOADS = [OPEN, OPEN_FOR_A_TIME, CLOSED, SESSIONS]
PROCESSES = (1, 2)  # how any number divides a plan: tests/harness/drivers/test_shards.py
LONG = {"kind": "sustained", "rate": 30, "duration": "60s", "arrivals": "constant", "timeout": "200s"}
SHORTER = LONG | {"rate": 50, "duration": "6s"}
PLANNED = ("request", "class", "session", "turn", "user", "phase", "after", "think_ns", "requested_prompt_tokens",
           "requested_output_tokens")  # fmt: skip
DUE = {"open": ["due_ns"], "closed": []}
QUICK = ("--format", "json")


@pytest.fixture(scope="module")
def server() -> Iterator[StubServer]:
    """A server that streams at known times."""
    with StubServer() as running_server:
        yield running_server


def engines(url: str) -> list[dict[str, Any]]:
    """The server as an engine."""
    return [{"engine": "http", "url": url, "served_model": model_name(20, 2)}]


def url_of(server: StubServer) -> str:
    """Where it listens."""
    return f"http://127.0.0.1:{server.port}"


def load_processes(process: Any) -> list[psutil.Process]:
    """The load processes of a run that is going on."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [child for child in below if "harness.drivers.workers.worker" in child.cmdline()]


def still_there(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of them that do not end by themselves."""
    return psutil.wait_procs(processes, timeout=60)[1]


def who_stored(run: Path) -> int:
    """How many load processes have records on disk."""
    return sum(any(batch.num_rows for batch in read_batches(found)) for found in run.rglob("records-*.arrows"))


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory, server: StubServer) -> Path:
    """A run of all loads by 1 and by 2 processes, a cell each: a load's seed follows from its place in its cell."""
    folder = tmp_path_factory.mktemp("load")
    blocks = [
        {**block, "variants": {f"{workers} processes": {}}, "load": [{**load, "workers": workers} for load in LOADS]}
        for workers in PROCESSES
        for block in engines(url_of(server))
    ]
    ended = harness("run", str(scenario(folder, engines=blocks)), "--out", "run", *QUICK, cwd=folder)
    assert ended.code in (0, 4), ended.err  # a busy machine may make it invalid
    return folder / "run"


@pytest.mark.parametrize("index", range(len(LOADS)), ids=["open", "timed", "closed", "sessions"])
def test_the_load_is_the_same_whatever_the_number_of_processes(shared_run: Path, index: int) -> None:
    """The same plan hash and the same multiset of requests, due times and lengths from 1 and from 2 processes. Of users
    with a number of requests in common, who is faster sends more: what they sent is the same as far as both came.
    """
    found = []
    for workers, cell in zip(PROCESSES, manifest(shared_run)["cells"], strict=True):
        trial = cell["trials"][index]
        rows = [row for row in records(shared_run, trial) if row["phase"] != "cooldown"]
        assert trial["status"] == "complete"
        assert trial["workers"] == workers
        assert {row["status"] for row in rows} == {"ok"}
        assert {row["worker"] for row in rows} == set(range(workers))
        reports = trial["client"]["workers"]
        assert [one["worker"] for one in reports] == (list(range(workers)) if workers > 1 else [])
        if workers > 1:
            assert sum(one["recorded"] for one in reports) == trial["client"]["recorded"]
            assert {one["t0_ns"] for one in reports} == {trial["client"]["t0_ns"]}
            assert not list((shared_run / trial["path"]).rglob("*.arrows"))
        planned = trial["planned"]
        if planned["measure"] is not None:
            assert sum(row["phase"] == "measure" for row in rows) == planned["measure"]
        sent = {row["request"]: [row[name] for name in (*PLANNED, *DUE[row["loop"]])] for row in rows}
        assert len(sent) == len(rows)
        found.append((trial["plan_hash"], planned, sent))
    (*first, sent), (*other, others) = found
    assert first == other
    both = sent.keys() & others.keys()
    assert {request: sent[request] for request in both} == {request: others[request] for request in both}
    if LOADS[index] is CLOSED:
        assert len(sent) == len(others) == CLOSED["requests"]
        assert all(row[PLANNED.index("after")] in {None, *done} for done in (sent, others) for row in done.values())
    else:
        assert both == sent.keys() == others.keys()


def test_a_load_process_that_dies_is_told_of_and_the_others_go_on(tmp_path: Path, server: StubServer) -> None:
    """SIGKILL to one of two: every planned request has one row, the other's are complete, exit 4: invalid."""
    path = scenario(tmp_path, engines=engines(url_of(server)), load=[{**SHORTER, "workers": 2}])
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: who_stored(run), process)
        load_processes(process)[1].kill()
        out, err = process.communicate(timeout=200)
    assert process.returncode == 4, out + err
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert trial["status"] == "complete"
    assert [bool(one["lost"]) for one in trial["client"]["workers"]].count(True) == 1
    assert any("SIGKILL" in note for note in trial["client"]["notes"])
    rows = [row for row in records(run, trial) if row["phase"] == "measure"]
    assert [row["request"] for row in rows] == list(range(300))
    (dead,) = [one["worker"] for one in trial["client"]["workers"] if one["lost"]]
    statuses = Counter((row["worker"], row["status"]) for row in rows)
    assert statuses[1 - dead, "ok"] == 150
    assert statuses[dead, "not_sent"] > 0
    assert {row["error"] for row in rows if row["status"] in ("not_sent", "unfinished")} == {"its load worker died"}
    assert "load process" in (run / "summary.json").read_text()


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_ends_all_load_processes_and_accounts_for_every_row(
    tmp_path: Path, server: StubServer, times: int
) -> None:
    """Once: what is in flight is finished. Twice: it is cut off. Exit 130, a row for every planned request, no process
    left behind.
    """
    run, go_on = tmp_path / "run", tmp_path / "go-on"
    with Relay(server.port, 20, go_on) as relay:
        path = scenario(tmp_path, engines=engines(relay.url), load=[{**LONG, "workers": 2}])
        with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
            wait_until(reached(go_on).exists, process)
            workers = load_processes(process)
            interrupt(process, go_on, times)
            out, err = process.communicate(timeout=200)
    assert process.returncode == 130, out + err
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert trial["status"] == "interrupted"
    rows = records(run, trial)
    assert [row["request"] for row in rows if row["phase"] == "measure"] == list(range(30 * 60))
    statuses = Counter(row["status"] for row in rows)
    assert statuses["ok"]
    assert statuses["not_sent"]
    assert bool(statuses["unfinished"]) == (times == 2)
    assert len(workers) == 2
    assert still_there(workers) == []


def test_a_killed_trial_leaves_no_load_process_and_keeps_its_rows(tmp_path: Path, server: StubServer) -> None:
    """SIGKILL to the trial's process: the load processes end by themselves, their records are kept, exit 3."""
    path = scenario(tmp_path, engines=engines(url_of(server)), load=[{**LONG, "workers": 2}])
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: who_stored(run) == 2, process)
        workers = load_processes(process)
        workers[0].parent().kill()  # type: ignore[union-attr]
        out, err = process.communicate(timeout=200)
    assert process.returncode == 3, out + err
    assert still_there(workers) == []
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert {row["worker"] for row in records(run, trial)} == {0, 1}
    assert not list(run.rglob("*.arrows"))


def test_a_warm_up_that_was_read_late_begins_again_with_more_processes(
    tmp_path: Path, server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any share counts as late here. The first try leaves a note, and no row."""
    monkeypatch.setattr(count, "LATE_SHARE", -1.0)
    monkeypatch.setattr(count, "usable_cores", lambda: 3)
    load = {"kind": "sustained", "users": 6, "warmup": "1s", "duration": "1s", "timeout": "10s"}
    whole = read_scenario(scenario(tmp_path, engines=engines(url_of(server)), load=[load]))
    folder = tmp_path / "trial"
    folder.mkdir()
    spec, events = CellSpec(whole.resolved(), 0, str(tmp_path), [(0, str(folder))]), list[dict[str, Any]]()
    cell = cell_at(whole, 0)
    assert isinstance(cell, Cell)
    asyncio.run(run_cell(cell, whole, spec, events.append, Orders(Control())))
    begun = [event["workers"] for event in events if event["event"] == "trial_begun"]
    assert begun == [1, 2]
    (ended,) = (event for event in events if event["event"] == "trial_ended")
    assert ended["status"] == "complete"
    note = "of the first tokens of the warm-up late: it began again with 2"
    assert [note in one for one in ended["client"]["notes"]] == [True]
    rows = [row for stream in record_streams(folder) for batch in read_batches(stream) for row in batch.to_pylist()]
    assert {row["worker"] for row in rows} == {0, 1}
    assert len({row["request"] for row in rows}) == len(rows) == ended["client"]["recorded"]
    assert {row["phase"] for row in rows} >= {"warmup", "measure"}
