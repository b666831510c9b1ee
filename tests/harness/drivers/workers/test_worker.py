"""A load process: its share, and its end when its trial is gone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.drivers.base import Control, DriveReport, DriveSettings, Part
from harness.drivers.stub import StubServer, model_name
from harness.drivers.workers import worker
from harness.drivers.workers.part import PartSpec, cell_of
from harness.drivers.workers.worker import Order
from harness.processes import module_command, own_packages_first
from harness.scenario.model import Scenario
from harness.schedule.requests import Shard, build
from harness.store.run import record_stream, recorded_in


@pytest.mark.slow
def test_it_ends_with_its_trial_and_keeps_its_rows(tmp_path: Path) -> None:
    """Both pipes closed while requests are in flight: it ends by itself, with a row for every request of its share."""
    with StubServer() as server:
        engine = {"engine": "http", "url": f"http://127.0.0.1:{server.port}", "served_model": model_name(60_000, 1)}
        load = {"kind": "sustained", "rate": 20, "requests": 400, "timeout": "100s"}
        workload = {"prompt_tokens": 8, "output_tokens": 4}
        resolved = Scenario.model_validate({"engines": [engine], "workload": workload, "load": [load]}).resolved()
        part = PartSpec(resolved, 0, 0, "", DriveSettings(10**11), server.endpoint(60_000, 1))
        plan = cell_of(part).trials[0]
        part = replace(part, plan_hash=build(plan.load, plan.workload, plan.seed).plan_hash)
        process = subprocess.Popen(
            module_command("harness.drivers.workers.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=own_packages_first(os.environ),
            text=True,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(asdict(Order(part, str(tmp_path), 1, 2))) + "\n")
            process.stdin.flush()
            while '"ready"' not in (line := process.stdout.readline()):
                assert line, "it ended"
            process.stdin.write(f"begin {json.dumps({'t0_ns': time.monotonic_ns()})}\n")
            process.stdin.close()
            process.stdout.close()
            process.wait(120)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0
    assert set(recorded_in([record_stream(tmp_path, "1")])) == set(range(1, 400, 2))


def test_load_processes_share_the_memory_of_their_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each knows how many there are."""
    parts: list[Part] = []

    async def note(schedule: Any, endpoint: Any, settings: Any, sink: Any, control: Control, part: Part) -> DriveReport:
        parts.append(part)
        return DriveReport(t0_ns=0, planned=None)

    monkeypatch.setattr(worker, "drive", note)
    whole = SimpleNamespace(endpoint=lambda headers: None, settings=None)
    order = SimpleNamespace(index=1, of=4, headers={}, part=whole)
    sender: Any = SimpleNamespace(order=order, control=Control(), post=None, begun=None, schedule=None, keep=None)
    asyncio.run(worker.send_share(sender))
    assert [(one.shard, one.processes) for one in parts] == [(Shard(1, 4), 4)]
