"""Real faults against real processes: what was measured is on disk, and the report says what is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from command import environment, manifest, records, rows_on_disk, scenario, wait_until

from tests.forked import harness, running

LLAMA = [{"engine": "llama-server", "quantization": "q8_0", "options": {"n_threads": 1}}]
STEADY = [{"kind": "sustained", "rate": 40, "arrivals": "constant", "duration": "15s", "timeout": "60s"}]
QUICK = ("--format", "md")
SECRET = "sk-very-secret-0123456789"


def trial_child(process: subprocess.Popen[str]) -> psutil.Process | None:
    """The child that drives the load."""
    children = psutil.Process(process.pid).children()
    return next((child for child in children if "harness.run.child" in child.cmdline()), None)


def gone(pids: list[int]) -> bool:
    """Whether none of these processes lives."""
    return not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids)


@pytest.mark.slow
def test_an_engine_killed_in_mid_run_fails_loudly_and_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL to the engine's process: exit 3, the moment and the signal are named, what was measured before is kept
    and every request of the plan has a row.
    """
    path = scenario(tmp_path, model="tiny", engines=LLAMA, load=STEADY)
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(run) >= 10, process)
        (pid,) = manifest(run)["cells"][0]["engine_info"]["pids"]
        os.kill(pid, signal.SIGKILL)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert trial["status"] == "failed"
    assert "SIGKILL" in trial["reason"]
    assert " s into the trial" in trial["reason"]
    measured = [row for row in records(run, trial) if row["phase"] == "measure"]
    assert [row["request"] for row in measured] == list(range(600))
    statuses = Counter(row["status"] for row in measured)
    assert statuses["ok"] > 0
    assert statuses["not_sent"] > 0
    assert "SIGKILL" in (run / "report.md").read_text()


@pytest.mark.slow
def test_a_killed_trial_process_leaves_its_rows_and_no_engine_behind(tmp_path: Path) -> None:
    """SIGKILL to the process that measures: its flushed rows are stored, with one for each other request of the plan;
    its engine ends, exit 3.
    """
    path = scenario(tmp_path, model="tiny", engines=LLAMA, load=STEADY)
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(run) >= 10, process)
        child = trial_child(process)
        assert child is not None
        engine = manifest(run)["cells"][0]["engine_info"]["pids"]
        child.kill()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    (trial,) = manifest(run)["cells"][0]["trials"]
    assert "SIGKILL" in trial["reason"]
    measured = [row for row in records(run, trial) if row["phase"] == "measure"]
    assert [row["request"] for row in measured] == list(range(600))
    assert {"ok", "not_sent"} <= {row["status"] for row in measured} <= {"ok", "not_sent", "unfinished"}
    assert gone(engine)


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_can_still_be_read(tmp_path: Path) -> None:
    """SIGKILL to the run itself: child and engine end by themselves, and `harness report` shows what was stored."""
    path = scenario(tmp_path, model="tiny", engines=LLAMA, load=STEADY)
    run = tmp_path / "run"
    with running("run", str(path), "--out", "run", *QUICK, cwd=tmp_path) as process:
        wait_until(lambda: rows_on_disk(run) >= 10, process)
        below = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert len(below) >= 2
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 120
    while not gone(below):
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.1)
    ended = harness("report", "run", cwd=tmp_path)
    assert ended.code in (3, 4), ended.err
    assert "Traceback" not in ended.err
    assert (run / "report.html").exists()


@pytest.mark.slow
def test_no_secret_reaches_a_file_or_the_screen(tmp_path: Path) -> None:
    """Keys and headers are named in the scenario; their values are in no file of the run and in no output."""
    block = {
        "engine": "http",
        "url": "http://127.0.0.1:9",
        "served_model": "m",
        "api_key_env": "MY_KEY",
        "headers_env": {"X-Tenant": "MY_TENANT"},
        "env": {"SOME_TOKEN": "${MY_KEY}"},
    }
    path = scenario(tmp_path, engines=[block])
    secrets = {"MY_KEY": SECRET, "MY_TENANT": SECRET[::-1]}
    ended = harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=secrets)
    assert ended.code == 3, ended.err
    texts = [ended.out, ended.err]
    texts += [found.read_bytes().decode("latin-1") for found in (tmp_path / "run").rglob("*") if found.is_file()]
    for secret in secrets.values():
        assert not any(secret in text for text in texts)


@pytest.mark.slow
def test_a_second_run_on_the_same_machine_is_refused(tmp_path: Path) -> None:
    """While one run measures, another one is told which, and exits 2; with --wait it takes its turn. One that needs no
    engine of this machine runs, and tells that both disturb each other.
    """
    env = {"HARNESS_CACHE": str(tmp_path / "cache")}
    program = (
        "import sys, time\nfrom harness.run.lock import machine_to_ourselves\n"
        "with machine_to_ourselves('first'):\n    print('held', flush=True)\n    sys.stdin.readline()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-P", "-c", program],
        env=environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with socket.create_server(("127.0.0.1", 0)) as there:  # a server whose port is open need not answer yet
            block = {"engine": "http", "url": f"http://127.0.0.1:{there.getsockname()[1]}", "served_model": "m"}
            path = scenario(tmp_path, engines=[block])
            refused = harness("run", str(path), "--out", "run", *QUICK, cwd=tmp_path, env=env)
        assert refused.code == 2
        assert "first, process" in refused.err
        path = scenario(tmp_path)
        beside = harness("run", str(path), "--out", "beside", *QUICK, cwd=tmp_path, env=env)
        assert beside.code == 0, beside.err
        told = "another run is measuring on this machine (first, process "
        assert told in beside.err
        assert told in (tmp_path / "beside" / "manifest.json").read_text()
    finally:
        holder.communicate("\n")
