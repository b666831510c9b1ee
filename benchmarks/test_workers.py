"""Two load processes against one, in one run: what they measure is as good, against a server whose times are known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from harness.drivers.stub import StubServer, model_name

ROOT = Path(__file__).parents[1]
FIRST_MS, GAP_MS = 50.0, 20.0
LOADS: dict[str, dict[str, Any]] = {
    "closed": {"users": 64, "requests": 640},
    "open": {"rate": 100, "requests": 800, "arrivals": "constant"},
}


def measured(folder: Path, server: StubServer, workers: int, number: int) -> dict[str, dict[str, float]]:
    """Run both loads with so many processes: per load the errors of TTFT and of gaps, and the client's lags, in ms."""
    scenario = {
        "name": "workers",
        "engines": [
            {
                "engine": "http",
                "url": f"http://127.0.0.1:{server.port}",
                "served_model": model_name(FIRST_MS, GAP_MS),
            }
        ],
        "workload": {"prompt_tokens": 16, "output_tokens": 32},
        "load": [{"kind": "sustained", "name": name, "workers": workers, **load} for name, load in LOADS.items()],
    }
    path = folder / f"{workers}.{number}.yaml"
    path.write_text(json.dumps(scenario))
    command = [
        sys.executable,
        "-P",
        "-m",
        "harness",
        "run",
        str(path),
        "--out",
        f"run{workers}.{number}",
        "--format",
        "json",
        "--wait",
        "10m",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 4), ended.stderr
    run = folder / f"run{workers}.{number}"
    trials = json.loads((run / "manifest.json").read_text())["cells"][0]["trials"]
    return {trial["load"]: errors(run / trial["path"], trial["client"]) for trial in trials}


def errors(folder: Path, client: dict[str, Any]) -> dict[str, float]:
    """Against the server's promise: nothing comes sooner; what comes later is its, the machine's or ours."""
    rows = pq.read_table(folder / "records.parquet", columns=["due_ns", "sent_ns", "first_token_ns", "chunk_ns"])
    first = (rows["first_token_ns"].to_numpy() - rows["due_ns"].to_numpy()) / 1e6 - FIRST_MS
    gaps = np.concatenate([np.diff(chunks) for chunks in rows["chunk_ns"].to_pylist()]) / 1e6 - GAP_MS
    return {
        "ttft_p50": float(np.percentile(np.abs(first), 50)),
        "ttft_p99": float(np.percentile(np.abs(first), 99)),
        "itl_p99": float(np.percentile(np.abs(gaps), 99)),
        "send_lag_p99": float(client["send_lag_p99_ms"]),
        "chunk_lag_p99": float(client["chunk_lag_p99_ms"]),
    }


def test_two_processes_measure_as_well_as_one(benchmark: Any, tmp_path: Path) -> None:
    """At 64 streams, and at 100 requests/s: no figure more than twice that of one process, beyond 2 ms of scatter; of
    each the better of two rounds in turn, because other work on the machine comes and goes.

    Two processes, the server and the canary share two cores here: that is the harder case. Where there are cores for
    all, more processes are better at many streams, not worse at few.
    """
    with StubServer() as server:
        first = measured(tmp_path, server, 1, 1)
        two_first = measured(tmp_path, server, 2, 1)
        one = better(first, measured(tmp_path, server, 1, 2))
        two = better(two_first, benchmark.pedantic(measured, (tmp_path, server, 2, 2), rounds=1))
    lines = [
        f"{load:7} {name:14} one process {one[load][name]:7.3f} ms, two {two[load][name]:7.3f} ms"
        for load in one
        for name in one[load]
    ]
    print("\n\n" + "\n".join(lines))
    worse = [line for line, (a, b) in zip(lines, pairs(one, two), strict=True) if b > 2 * a + 2]
    assert not worse


def better(a: dict[str, dict[str, float]], b: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The smaller of each figure."""
    return {load: {name: min(a[load][name], b[load][name]) for name in a[load]} for load in a}


def pairs(one: dict[str, dict[str, float]], two: dict[str, dict[str, float]]) -> list[tuple[float, float]]:
    """The same figure of both."""
    return [(one[load][name], two[load][name]) for load in one for name in one[load]]
