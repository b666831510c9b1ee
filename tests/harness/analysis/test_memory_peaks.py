"""Memory of several processes counts once what they share; and what a start takes is seen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.analysis.facts import facts_of
from harness.analysis.reading import read
from harness.analysis.samples.memory import SHARED_IN_EACH, SHARED_ONCE, engine_memory, gpu_memory, memory_facts
from harness.analysis.summary import measure, tidy
from harness.records import Sample
from harness.telemetry.sampler import Sampler
from tests.fabricated import FabricatedTrial, S, cell_entry, noisy, trial_entry, value

MIB = 2**20
T0 = 1_000 * S
SHARED_MIB, OWN_MIB = 128, 32
MAPPING = """
import mmap, sys
file = open(sys.argv[1], 'rb')
shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
touched = sum(shared[::4096])
own = bytearray(int(sys.argv[2])); own[::4096] = b'1' * len(own[::4096])
print('mapped', flush=True)
sys.stdin.readline()
"""


def samples_of(*readings: tuple[float, str, str, float]) -> list[Sample]:
    """Readings at these seconds from T0."""
    return [Sample(T0 + round(at_s * S), source, name, float(size)) for at_s, source, name, size in readings]


def trial_with(
    *readings: tuple[float, str, str, float], cell: dict[str, Any] | None = None, **trial: Any
) -> FabricatedTrial:
    """A minute of requests, and these readings."""
    return FabricatedTrial(cell_entry(**(cell or {})), trial_entry(t0_ns=T0, **trial), noisy(1), samples_of(*readings))


@pytest.fixture
def sharing(tmp_path: Path) -> Iterator[list[int]]:
    """Three processes that map the same 128 MiB and hold 32 MiB of their own each."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(SHARED_MIB * MIB))
    command = [sys.executable, "-c", MAPPING, str(path), str(OWN_MIB * MIB)]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"
    yield [process.pid for process in started]
    for process in started:
        process.communicate("\n")


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="PSS is told on Linux only")
def test_what_processes_share_counts_once(sharing: list[int]) -> None:
    """128 MiB shared and three times 32 MiB are 224 MiB and three interpreters; resident memory says 256 MiB more."""
    taken: list[Sample] = []
    sampler = Sampler(taken.append, client_pid=None, gpus=())
    sampler.watch(sharing, None)
    sampler.sample()
    sampler.close()
    made = FabricatedTrial({}, {}, (), taken)
    held = engine_memory(made.samples(), 0.0, float("nan"), before=True)
    assert held is not None
    assert held.source == SHARED_ONCE
    truth = (SHARED_MIB + 3 * OWN_MIB) * MIB
    assert truth <= held.bytes < truth + 3 * 16 * MIB
    (resident,) = [one.value for one in taken if (one.source, one.name) == ("engine", "rss_bytes")]
    assert resident - held.bytes >= 2 * SHARED_MIB * MIB


def test_between_readings_of_pss_resident_memory_says_how_it_grew() -> None:
    """PSS is read seldom: 40 of 100 are counted too often at the first reading, 50 at the second; the peak, 160 nearer
    to the second, is 110, though no reading of PSS is larger than 70.
    """
    made = trial_with(
        (0.0, "engine", "rss_bytes", 100), (0.0, "engine", "pss_bytes", 60),
        (10.0, "engine", "rss_bytes", 140), (30.0, "engine", "rss_bytes", 160),
        (40.0, "engine", "rss_bytes", 120), (40.0, "engine", "pss_bytes", 70),
    )  # fmt: skip
    found = engine_memory(made.samples(), T0, T0 + 60 * S, before=True)
    assert found is not None
    assert (found.bytes, found.source) == (110.0, SHARED_ONCE)


def test_a_reading_before_the_trial_counts_where_there_is_none_in_it() -> None:
    """A start that is not quite over shares other things, and may hold more."""
    starting = [(-0.1, "engine", "rss_bytes", 250), (0.2, "engine", "pss_bytes", 140)]
    made = trial_with(*starting, (0.1, "engine", "rss_bytes", 220), (0.3, "engine", "rss_bytes", 222))
    found = engine_memory(made.samples(), T0, T0 + 60 * S, before=True)
    assert found is not None
    assert found.bytes == 142.0
    alone = engine_memory(trial_with(starting[0]).samples(), T0, T0 + 60 * S, before=True)
    assert alone is not None
    assert alone.bytes == 250.0


def test_the_summary_says_by_which_reading() -> None:
    """PSS where it was read, else resident memory; both are there beside it."""
    without = trial_with((1.0, "engine", "rss_bytes", 100))
    both = trial_with(
        (1.0, "engine", "rss_bytes", 100), (-5.0, "engine", "rss_bytes", 90), (-5.0, "engine", "pss_bytes", 70)
    )
    for made, size, source in ((without, 100.0, SHARED_IN_EACH), (both, 80.0, SHARED_ONCE)):
        summary = tidy(measure(made, read(made), made.samples()))
        row = value(summary, "memory_peak_bytes")
        assert (row["value"], row["source"]) == (size, source)
        assert value(summary, "rss_peak_bytes")["value"] == 100.0
    told = memory_facts(both.cell, read(both), both.samples())
    assert (told["total_bytes"], told["total_source"]) == (
        80.0,
        "largest reading of the memory of its processes, shared pages counted once",
    )


STARTED = {"start": {"began_ns": T0 - 30 * S, "ready_ns": T0 - 20 * S}}


def test_a_start_may_take_more_than_serving() -> None:
    """An engine that reads 16 bits and makes 4 of them: its peak is from its begin until it was ready, not of what ran
    before it or after.
    """
    made = trial_with(
        (-31.0, "engine", "rss_bytes", 9000), (-29.0, "engine", "rss_bytes", 100), (-25.0, "engine", "rss_bytes", 800),
        (-19.0, "engine", "rss_bytes", 5000), (1.0, "engine", "rss_bytes", 250),
        (-25.0, "gpu0", "memory_used_bytes", 70), (-24.0, "gpu0", "engine_memory_bytes", 50),
        (-23.0, "gpu0", "engine_memory_bytes", 70),
        (-1.0, "gpu0", "engine_memory_bytes", 20), (2.0, "gpu0", "engine_memory_bytes", 30),
        **STARTED,
    )  # fmt: skip
    summary = tidy(measure(made, read(made), made.samples()))
    assert value(summary, "load_peak_bytes")["value"] == 800.0
    assert value(summary, "load_gpu_peak_bytes")["value"] == 70.0
    assert value(summary, "gpu_memory_peak_bytes")["value"] == 30.0


def test_a_start_that_was_not_read_has_a_reason() -> None:
    """An older run, and one that was over between two readings."""
    for how in ({}, STARTED):
        made = trial_with((1.0, "engine", "rss_bytes", 250), **how)
        found = facts_of(made.cell, read(made), made.samples())
        summary = tidy(measure(made, read(made), made.samples()))
        assert "load_peak_bytes" not in set(summary["metric"])
        assert found["missing"]["load_peak_bytes"] == "no reading was taken while the engine started"


def test_memory_of_gpus_is_the_engines_where_it_is_told() -> None:
    """Else all that is in use."""
    others = trial_with((1.0, "gpu0", "memory_used_bytes", 70), (2.0, "gpu1", "memory_used_bytes", 10)).samples()
    found = gpu_memory(others, T0, T0 + 60 * S)
    assert found is not None
    assert found.bytes == 80.0
    assert gpu_memory(others, T0 + 3 * S, T0 + 60 * S) is None


def test_an_engine_that_starts_is_what_its_cells_process_has_below_it(
    holding_processes: list[subprocess.Popen[str]],
) -> None:
    """Before it has told its processes they are found all the same, and not the process that starts it; one that starts
    its engine in itself is the engine.
    """
    taken: list[Sample] = []
    children = psutil.Process().children(recursive=True)
    others = sum(child.memory_info().rss for child in children if child.pid != holding_processes[0].pid)
    sampler = Sampler(taken.append, client_pid=None, gpus=())
    sampler.watch_start(os.getpid(), in_process=False)
    sampler.sample()
    below = [one.value for one in taken if (one.source, one.name) == ("engine", "rss_bytes")]
    client = [one.value for one in taken if (one.source, one.name) == ("client", "rss_bytes")]
    assert 100 * MIB < below[0] - others < 100 * MIB + 40 * MIB
    assert len(client) == 1
    taken.clear()
    sampler.watch_start(os.getpid(), in_process=True)
    sampler.sample()
    sampler.close()
    (whole,) = [one.value for one in taken if (one.source, one.name) == ("engine", "rss_bytes")]
    assert whole > below[0] + client[0] / 2
    assert not [one for one in taken if one.source == "client"]


@pytest.fixture
def holding_processes() -> Iterator[list[subprocess.Popen[str]]]:
    """One child that holds 100 MiB."""
    program = "import sys; block = bytearray(100 << 20); block[::4096] = b'1' * 25600; print(1, flush=True); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield [process]
    process.communicate("\n")
