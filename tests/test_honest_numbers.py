"""Numbers that are easily wrong: what is not ours is not measured, and what differs is not averaged."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from command import manifest, scenario

from engines.process.server import free_port
from harness.errors import UsageError
from harness.scenario.model import Scenario
from harness.scenario.reader import load
from harness.schedule.cells import Cell
from harness.schedule.matrix import expand
from tests.forked import harness, running

pytestmark = pytest.mark.slow

LOAD = [{"kind": "single_user", "requests": 5}]
TINY_SERVER = Path(__file__).parent / "engines" / "tiny_server.py"


@contextlib.contextmanager
def server(*arguments: str) -> Iterator[str]:
    """A server that somebody else runs; its address."""
    port = free_port()
    command = [sys.executable, str(TINY_SERVER), str(port), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "serving\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def summary_of(run: Path) -> pd.DataFrame:
    """The pooled rows of a run's summary."""
    summary = pd.read_csv(run / "summary.csv", keep_default_na=False)
    return summary[summary["repetition"] == "pooled"]


def test_two_servers_are_two_rows_and_what_is_not_ours_has_no_memory(tmp_path: Path) -> None:
    """Two blocks of engine http are not averaged. A server that runs already was not loaded by us, and our own
    process' memory is not its memory.
    """
    with server("--models", "m", "--pause", "0.05") as slow, server("--models", "m", "--pause", "0.001") as fast:
        blocks = [{"engine": "http", "url": slow}, {"engine": "http", "url": fast}]
        path = scenario(tmp_path, engines=blocks, limits=["load_s <= 30"], load=LOAD)
        ended = harness("run", str(path), "--out", "run", "--format", "csv,md", cwd=tmp_path)
    assert ended.code in (4, 6), ended.err
    summary = summary_of(tmp_path / "run")
    assert set(summary["variant"]) == {"engines.0", "engines.1"}
    assert not {"load_s", "load_warm_s", "rss_after_load_bytes", "rss_peak_bytes"} & set(summary["metric"])
    assert "load_s has no value" in ended.out
    e2e = summary[(summary["metric"] == "e2e_ms") & (summary["statistic"] == "min")].set_index("variant")["value"]
    assert float(e2e["engines.0"]) > float(e2e["engines.1"])


def test_an_interrupted_start_is_no_failure(tmp_path: Path) -> None:
    """Ctrl-C while an engine starts ends with 130, soon, and is called an interruption."""
    block = {"engine": "http", "command": "sh -c 'sleep 3600' {port}", "ready": {"path": "/health", "timeout": "3600s"}}
    path = scenario(tmp_path, engines=[block])
    with running("run", str(path), "--out", "run", "--format", "md", cwd=tmp_path) as process:
        assert process.stderr is not None
        while "starting the engine" not in process.stderr.readline():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "failed" not in err
    assert "interrupted before the next trial" in err
    assert manifest(tmp_path / "run")["cells"][0]["status"] == "interrupted"


def test_blocks_that_differ_in_name_keep_it(tmp_path: Path) -> None:
    """Only what could be mistaken for the same gets the place of its block; a doubled level is refused."""
    blocks = [
        {"engine": "simulated", "quantization": ["q8_0", "q4_0"]},
        {"engine": "simulated", "quantization": "q8_0", "variants": {"a": {}}},
        {"engine": "simulated", "quantization": "q8_0"},
    ]
    cells = [cell for cell in expand(load(scenario(tmp_path, engines=blocks))) if isinstance(cell, Cell)]
    assert [cell.variant for cell in cells] == ["engines.0", None, "a", "engines.2"]
    doubled = load(scenario(tmp_path, engines=[{"engine": "simulated", "quantization": ["q8_0", "q8_0"]}]))
    with pytest.raises(UsageError, match="lists simulated, q8_0 2 times"):
        expand(doubled)


def test_what_is_stored_can_be_read_again(tmp_path: Path) -> None:
    """The resolved scenario is itself one, for every workload: the process that measures gets no other."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    workload = {"prompts": "prompts.jsonl", "output_tokens": 4}
    for keys in (
        {"workload": workload},
        {"classes": {"a": {"workload": workload}}, "load": [{"kind": "mixed", "rate": 1, "duration": "5s"}]},
    ):
        found = load(scenario(tmp_path, **keys))
        again = Scenario.model_validate(found.resolved())
        assert (again.resolved(), again.load) == (found.resolved(), found.load)
