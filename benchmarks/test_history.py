"""A year of many series: what it takes to list them, and that it grows with the nights and no faster."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.history.store.folder import Store
from tests.nights import night, row, what

ROOT = Path(__file__).parent.parent
SERIES, NIGHTS = 500, 365
MOST_MIB = 500.0


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    cpu_s: float
    peak_mib: float


def listed(folder: Path) -> Cost:
    """`harness history list` of a store."""
    command = [sys.executable, "-P", "-m", "harness", "history", "list", "--json", "--store", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def test_a_year_of_500_series(tmp_path: Path) -> None:
    """Five times the nights take no more than about five times as long; memory stays below the bound."""
    costs = {}
    for nights in (0, NIGHTS // 5, NIGHTS):
        store = Store.made(tmp_path / str(nights))
        for day in range(max(nights, 1)):
            numbers = (row(100.0 + day + one, what(load=f"load-{one}")) for one in range(SERIES if nights else 1))
            store.add(night(day, *numbers))
        costs[nights] = listed(store.folder)
        size = sum(file.stat().st_size for file in store.folder.rglob("*.parquet"))
        cost = costs[nights]
        print(f"\n{nights:4} nights: CPU {cost.cpu_s:.1f} s, {cost.peak_mib:.0f} MiB, on disk {size / 1e6:.1f} MB")
    start, fifth, whole = (costs[nights].cpu_s for nights in (0, NIGHTS // 5, NIGHTS))
    assert whole - start <= 7 * (fifth - start)
    assert costs[NIGHTS].peak_mib < MOST_MIB
