"""Histograms as text, for the terminal and report.md: buckets of equal ratio, with counts, shares and bars."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from reports.data import ReportData, place
from reports.format import amount
from reports.labels import LATENCIES
from reports.tables.base import groups

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("ttft_ms", "e2e_ms")
WIDTH = 60
_NUMBERS = 34
NEVER = "never ended"


def of_run(data: ReportData) -> Iterator[tuple[str, list[str]]]:
    """Yield a title and the lines of a histogram of TTFT and of E2E for each load, its repetitions together."""
    for keys in groups(data):
        for metric in METRICS if keys in data.pooled else ():
            frame = data.pooled[keys]["histogram"]
            own = frame[frame["metric"] == metric]
            if len(own):
                poor = " (data: poor)" if data.poor_because(keys, metric) else ""
                yield f"{LATENCIES[metric]}: {place(keys)}, {keys[-1]}{poor}", lines_of(own)


def lines_of(frame: pd.DataFrame) -> list[str]:
    """Return a head and a line for each bucket, at most WIDTH wide; frame: from_ms, until_ms, n."""
    total, most = int(frame["n"].sum()), int(frame["n"].max())
    found = [f"{'ms':>17} {'#':>7} {'%':>6}"]
    for row in frame.to_dict("records"):
        n, low, high = int(row["n"]), row["from_ms"], row["until_ms"]
        bucket = f"{_short(low)} to {_short(high)}" if math.isfinite(high) else NEVER
        bar = "#" * max(round((WIDTH - _NUMBERS) * n / most), min(1, n))
        found.append(f"{bucket:>17} {n:>7} {n / total * 100:>6.1f} {bar}".rstrip())
    return found


def _short(value: float) -> str:
    return amount(value) if 0.1 <= value < 1e5 else f"{value:.1e}"
