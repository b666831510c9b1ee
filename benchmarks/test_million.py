"""Very many requests in one run: what reports on them cost, as ratios between sizes.

200,000 requests of 128 chunks by default; `HARNESS_MILLION=1 make bench` takes 1,000,000, and makes a real run of as
many small ones.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import million
from benchmarks.fabricate import fabricate
from harness.records import record_schema
from harness.store.run import record_writer
from harness.store.streams import to_parquet
from tests.plans import schedule_of

ROOT = Path(__file__).parent.parent
WHOLE = bool(os.environ.get("HARNESS_MILLION"))
REQUESTS = 1_000_000 if WHOLE else 200_000
CHUNKS = 128
_TABLE: list[str] = []


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall_s: float
    cpu_s: float
    peak_mib: float


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Prints what was measured at the end."""
    yield
    print("\n\n" + "\n".join(_TABLE))


def report(folder: Path) -> Cost:
    """`harness report` on a stored run."""
    command = [sys.executable, "-P", "-m", "harness", "report", str(folder)]
    began_s = time.monotonic()
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    cost = Cost(time.monotonic() - began_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
    _TABLE.append(
        f"report on {folder.name:>9} requests: {cost.wall_s:.1f} s, CPU {cost.cpu_s:.1f} s, {cost.peak_mib:.0f} MiB"
    )
    return cost


def test_a_report_takes_time_and_memory_in_proportion(tmp_path: Path) -> None:
    """Four times the requests: at most five times the processor time beyond the start, at most 1 KiB more each."""
    none, few, many = (report(fabricate(tmp_path / str(n), n, CHUNKS)) for n in (4_000, REQUESTS // 4, REQUESTS))
    assert many.cpu_s - none.cpu_s <= 5 * (few.cpu_s - none.cpu_s)
    assert (many.peak_mib - few.peak_mib) * 2**20 <= 1024 * (REQUESTS - REQUESTS // 4)
    assert (tmp_path / str(REQUESTS) / "report.html").stat().st_size <= 3 * 2**20
    if WHOLE:
        _TABLE.append(f"{'':26} target 20 s {'met' if many.wall_s <= 20 else 'missed'}")


def test_classes_cost_a_second_count_and_no_more(tmp_path: Path) -> None:
    """Two classes are counted apart and together in one pass."""
    one = report(fabricate(tmp_path / "1-class", REQUESTS // 4, CHUNKS))
    two = report(fabricate(tmp_path / "2-classes", REQUESTS // 4, CHUNKS, classes=("chat", "batch")))
    assert two.cpu_s <= 2.5 * one.cpu_s


def test_a_plan_of_a_million_requests_is_a_few_arrays() -> None:
    """A tenth as many take no less than a fortieth of the time; the numbers of a row take at most 64 bytes."""
    taken = {}
    for count in (100_000, 1_000_000):
        began_s = time.process_time()
        schedule = schedule_of(kind="sustained", rate=1000, arrivals="poisson", requests=count, warmup="0s")
        taken[count] = time.process_time() - began_s
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began_s = time.process_time()
    for i in range(0, 1_000_000, 10):
        schedule.request(i)
    texts_s = time.process_time() - began_s
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    _TABLE.append(
        f"plan of 1,000,000 requests: {taken[1_000_000]:.2f} s; 100,000 prompts: {texts_s:.1f} s, {grown_mib:.0f} MiB"
    )
    assert taken[1_000_000] <= 40 * taken[100_000] + 0.1
    assert grown_mib <= 16


def test_closing_a_trial_needs_the_memory_of_a_row_group(tmp_path: Path) -> None:
    """Records on their way from stream to Parquet pass by in groups."""
    from tests.fabricated import streamed

    peaks = []
    for count in (2_000, 20_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        with record_writer(folder) as writer:
            for i in range(count):
                writer.add(streamed(i, i * 1.0, tokens=CHUNKS))
        assert to_parquet([folder / "records.arrows"], folder / "records.parquet", record_schema()) == count
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    _TABLE.append(f"closing 20,000 records of {CHUNKS} chunks: {peaks[1] - peaks[0]:.0f} MiB more than 2,000")
    assert peaks[1] - peaks[0] <= 400


@pytest.mark.skipif(not WHOLE, reason="takes a quarter of an hour; HARNESS_MILLION=1 runs it")
def test_a_real_run_of_a_million_requests(tmp_path: Path) -> None:
    """The process that sends holds at most 300 MiB, whatever the number."""
    found = million.run(tmp_path, REQUESTS, tokens=4, users=256)
    _TABLE.append(f"{REQUESTS} requests: {found['wall_s']:.0f} s, client {found['client_mib']:.0f} MiB")
    assert found["client_mib"] <= 300
