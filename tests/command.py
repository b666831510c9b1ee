"""The command line as a user runs it: a process of its own, a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from harness.streams import read_batches

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with the packages under test first."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **(extra or {})}


@contextlib.contextmanager
def running(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while the test goes on, and not longer."""
    process = start(*arguments, cwd=cwd, env=env)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()  # its children notice, and end
            process.communicate()


def start(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A command that was begun."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness.cli", *arguments],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def harness(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 120.0) -> Ended:
    """A command, run to its end."""
    process = start(*arguments, cwd=cwd, env=env)
    out, err = process.communicate(timeout=timeout_s)
    return Ended(process.returncode, out, err)


def scenario(folder: Path, **keys: Any) -> Path:
    """A scenario file that runs in two seconds on the simulated engine; `keys` replace its keys."""
    content: dict[str, Any] = {
        "name": "t",
        "engines": [{"engine": "simulated", "options": {"ttft_ms": 60, "tpot_ms": 1}}],
        "workload": {"prompt_tokens": 8, "output_tokens": 4},
        "load": [{"kind": "single_user", "requests": 20, "timeout": "5s"}],
        "telemetry": {"interval": "100ms"},
    }
    path = folder / "scenario.yaml"
    path.write_text(json.dumps(content | keys))  # JSON is YAML
    return path


def manifest(run: Path) -> dict[str, Any]:
    """A run's manifest."""
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return found


def rows_on_disk(run: Path) -> int:
    """How many records of trials that still run have been stored."""
    return sum(batch.num_rows for found in run.rglob("records*.arrows") for batch in read_batches(found))


def records(run: Path, trial: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a trial, in the order of the plan."""
    rows = pq.read_table(run / trial["path"] / "records.parquet").to_pylist()
    return sorted(rows, key=lambda row: row["request"])
