"""A real run of very many small requests against the stub, through `harness run`: time, and memory of each process.

`python -m benchmarks.million --requests 1000000 --tokens 4`
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.truth import build_stub

ROOT = Path(__file__).parent.parent
SAMPLED_EVERY_S = 0.5


def run(folder: Path, requests: int, tokens: int, users: int) -> dict[str, float]:
    """One run; seconds, requests/s, peaks in MiB of the process that sends (client) and of `harness run` (parent)."""
    log = folder / "log"
    command = [str(build_stub(folder)), "0", "0", str(tokens), str(log)]
    stub = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert stub.stdout is not None
        with stub.stdout:
            port = int(stub.stdout.readline())
        scenario = folder / "scenario.yaml"
        scenario.write_text(json.dumps(_scenario(port, requests, tokens, users)))
        began_s = time.monotonic()
        arguments = ["run", str(scenario), "--out", str(folder / "run"), "--format", "html"]
        found = _watched(arguments)
        found["wall_s"] = time.monotonic() - began_s
    finally:
        stub.send_signal(signal.SIGKILL)  # its log is not wanted
        stub.wait(30)
    return found


def report(run_folder: Path) -> dict[str, float]:
    """`harness report` on a stored run: seconds and peak in MiB."""
    began_s = time.monotonic()
    found = _watched(["report", str(run_folder), "--format", "html"])
    return {"wall_s": time.monotonic() - began_s, "peak_mib": found["parent_mib"]}


def _scenario(port: int, requests: int, tokens: int, users: int) -> dict[str, Any]:
    return {
        "name": "million",
        "engines": [{"engine": "http", "url": f"http://127.0.0.1:{port}"}],
        "workload": {"prompt_tokens": 8, "output_tokens": tokens},
        "load": [{"kind": "sustained", "users": users, "requests": requests, "warmup": "0s"}],
    }


def _watched(arguments: list[str]) -> dict[str, float]:
    """Run the program, and look at the most memory that it and the process that sends have held."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "harness", *arguments]
    program = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    peaks = {"parent_mib": 0.0, "client_mib": 0.0}
    while program.poll() is None:
        for name, processes in (("parent_mib", [program.pid]), ("client_mib", _children(program.pid))):
            peaks[name] = max([peaks[name], *(_peak_mib(process) for process in processes)])
        time.sleep(SAMPLED_EVERY_S)
    return peaks | {"exit_code": float(program.returncode)}


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _peak_mib(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=4)
    parser.add_argument("--users", type=int, default=256)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        print("run", {k: round(v, 1) for k, v in run(folder, given.requests, given.tokens, given.users).items()})
        print("report", {k: round(v, 1) for k, v in report(folder / "run").items()})
