"""What taking readings costs, and that it does not change what is measured: < 0.5 % of a core at ten readings a second,
and an engine that is as fast with them as without.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engines
from engines.base import EngineSpec, ModelReference, ServedEngine
from harness.drivers.base import DriveSettings
from harness.drivers.drive import drive
from harness.records import Record, Status
from tests.plans import exact_schedule

INTERVAL_S = 0.1
LIMIT = 0.005
TICKS = 150
CHILDREN = 4
PAIRS = 48
TIMEOUT_NS = 60_000_000_000
TREE = """
import subprocess, sys, threading
children = [subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE) for _ in range({children})]
exec(sys.argv[1].replace("sys.stdin.readline()", ""))
print("up", flush=True)
sys.stdin.readline()
for child in children:
    child.communicate(b"x")
"""
HOLDS = """
import sys, threading
block = bytearray(100 << 20)
block[::4096] = b"1" * len(range(0, len(block), 4096))
threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(8)]
[thread.start() for thread in threads]
sys.stdin.readline()
"""


@pytest.fixture
def engine_like() -> Iterator[int]:
    """A process with four children, each with nine threads and 100 MB: about what a served engine looks like."""
    code = TREE.format(children=CHILDREN)
    process = subprocess.Popen(
        [sys.executable, "-c", code, HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield process.pid
    process.communicate("\n")


class SamplerProcess:
    """Readings of a process and its descendants, from another process, switched on and off."""

    def __init__(self, pid: int, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.sampler_process", str(INTERVAL_S), str(pid)]
        root = Path(__file__).parent.parent
        self._process = subprocess.Popen(
            [*command, str(folder / "samples.arrows")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        )  # fmt: skip
        assert self._answer() == "ready\n"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def on(self) -> None:
        """Begin."""
        self._say("on\n")

    def off(self) -> dict[str, Any]:
        """End; what it cost."""
        self._say("off\n")
        told: dict[str, Any] = json.loads(self._answer())
        return told

    def end(self) -> None:
        """No more."""
        self._process.communicate("")
        assert self._process.returncode == 0


@pytest.mark.slow
def test_readings_cost_little(engine_like: int, tmp_path: Path) -> None:
    """Processor time of the thread that takes and stores them / time, over many ticks of one run."""
    sampler = SamplerProcess(engine_like, tmp_path)
    sampler.on()
    time.sleep(TICKS * INTERVAL_S)
    told = sampler.off()
    sampler.end()
    print(
        f"\nreadings of {CHILDREN + 1} processes at {1 / INTERVAL_S:g} Hz: {told['cpu_share']:.2%} of a core, "
        f"{told['ms_per_tick']:.2f} ms a tick, {told['late_ticks']} of {told['ticks']} late"
    )
    assert told["ticks"] > TICKS * 0.8
    assert told["cpu_share"] < LIMIT


@pytest.mark.slow
def test_an_engine_is_as_fast_while_it_is_read(tmp_path: Path) -> None:
    """Tokens per second of the embedded server, one request after the other, with readings and without, in turns
    (ABBA): the median of the pairs is within what they scatter, or below 1 %.
    """
    effects, told = asyncio.run(effect_on_an_engine(tmp_path))
    middle = float(np.median(effects))
    # of the median of n normal values: 1.2533 sigma / sqrt(n); sigma from the quartiles, which outliers do not move
    sigma = float(np.subtract(*np.quantile(effects, [0.75, 0.25]))) / 1.349
    noise = 3 * 1.2533 * sigma / len(effects) ** 0.5
    print(
        f"\nembedded server, tiny: {middle:+.2%} time with readings (median of {len(effects)} pairs, noise "
        f"+-{noise:.2%}); the readings took {np.median([one['cpu_share'] for one in told]):.2%} of a core"
    )
    assert abs(middle) < max(noise, 0.01)


async def effect_on_an_engine(folder: Path) -> tuple[list[float], list[dict[str, Any]]]:
    """Per pair the time with readings over that without, minus 1; and what the readings cost in each."""
    log = folder / "log.txt"
    engine = engines.create(EngineSpec("llama-server", ModelReference("tiny"), None, {"n_threads": 1}, log_path=log))
    assert isinstance(engine, ServedEngine)
    engine.prepare()
    sampler: SamplerProcess | None = None
    try:
        info = await engine.start()
        sampler = SamplerProcess(info.pids[0], folder)
        await seconds(engine)
        effects, told = [], []
        for pair in range(PAIRS):
            times = {}
            for read in (True, False) if pair % 2 else (False, True):
                if read:
                    sampler.on()
                times[read] = await seconds(engine)
                if read:
                    told.append(sampler.off())
            effects.append(times[True] / times[False] - 1)
        return effects, told
    finally:
        if sampler is not None:
            sampler.end()
        await engine.stop()


async def seconds(engine: ServedEngine, requests: int = 5, tokens: int = 64) -> float:
    """From the first request sent to the last token, for requests one after the other."""
    records: list[Record] = []
    schedule = exact_schedule(tokens, prompt_tokens=32, kind="single_user", requests=requests)
    await drive(schedule, engine.endpoint(), DriveSettings(TIMEOUT_NS, TIMEOUT_NS), records.append)
    assert {record.status for record in records} == {Status.OK}
    return sum((record.done_ns or 0) - (record.sent_ns or 0) for record in records) / 1e9
