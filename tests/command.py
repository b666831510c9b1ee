"""The command line as a user runs it: a process of its own, a folder of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from harness.store.streams import read_batches

ROOT = Path(__file__).parents[1]
LONGEST_WAIT_S = 240.0  # for what surely comes
LOOK_EVERY_S = 0.02


def on_path(*names: str) -> dict[str, str]:
    """An environment that has modules and plug-ins of tests/data beside the packages under test."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, *(ROOT / "tests" / "data" / name for name in names))))}


# With this environment a run's cells live in virtual time, where no client is late: only for engines in process.
VIRTUAL_TIME = on_path("virtual_time")
HELD = on_path("held")


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with the packages under test first, and no width of a terminal."""
    ours = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return {**ours, "PYTHONPATH": str(ROOT), **(extra or {})}


@contextlib.contextmanager
def running(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that runs while the test goes on, and not longer."""
    with not_longer_than_the_test(start(*arguments, cwd=cwd, env=env)) as process:
        yield process


@contextlib.contextmanager
def not_longer_than_the_test(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed if the test leaves it running."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()  # its children notice, and end
            process.communicate()


def start(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """A command that was begun."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "harness", *arguments],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def harness(*arguments: str, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 120.0) -> Ended:
    """A command, run to its end."""
    return to_its_end(running(*arguments, cwd=cwd, env=env), timeout_s)


def to_its_end(running: contextlib.AbstractContextManager[subprocess.Popen[str]], timeout_s: float) -> Ended:
    """How a command that was begun ends."""
    with running as process:
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


def told(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """What a running command tells on its standard error, as soon as it does."""
    assert process.stderr is not None
    lines = ""
    while not (found := re.search(pattern, lines)):
        line = process.stderr.readline()
        assert line, lines
        lines += line
    return found


def interrupt(process: subprocess.Popen[str], go_on: Path, times: int = 1) -> None:
    """Ctrl-C to a run whose replies are held until `go_on` exists. When it is heard of, they go on, or the second one
    comes.
    """
    process.send_signal(signal.SIGINT)
    told(process, "stopping: finishing what is in flight")
    if times == 1:
        go_on.touch()
    else:
        process.send_signal(signal.SIGINT)


def wait_until(there: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Until something is so, which comes while a command runs, or after it if none is named."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while not there():
        assert process is None or process.poll() is None, process and process.communicate()
        assert time.monotonic() < deadline, "it never came"
        time.sleep(LOOK_EVERY_S)


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


def measured(run: Path, trial: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of the measured requests: a load by number goes on until these have ended."""
    return [row for row in records(run, trial) if row["phase"] == "measure"]
