"""Counts per time: the most failures of a kind in any stretch of a given length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.analysis.columns import NS_PER_S, Columns
from harness.analysis.rates import judged
from harness.analysis.stats import Bound, Estimate, Floats
from harness.records import FAILED, Status


def failure_times(columns: Columns) -> dict[str, Floats]:
    """Return when the measured requests failed, in ascending order and nanoseconds, by metric name."""
    rows = judged(columns)
    failed = rows.has_status(FAILED)
    ended = np.where(np.isfinite(rows.ended), rows.ended, rows.times["due"])
    kinds = {
        "errors": failed,
        "timeouts": rows.has_status([Status.TIMEOUT]),
        "out_of_memory": failed & rows.out_of_memory,
    }
    return {name: np.sort(ended[flags]) for name, flags in kinds.items()}


def most_in(times: Floats, length_ns: float) -> int:
    """Return the largest number of moments in any half-open stretch of a length; `times` are in ascending order."""
    first = np.searchsorted(times, times - length_ns, side="right")
    return int((np.arange(1, len(times) + 1) - first).max(initial=0))


def most_of_runs(
    runs: Sequence[Mapping[str, Floats]], name: str, per_s: float, measured_s: Sequence[float], n: int
) -> Estimate:
    """Return the largest count of several runs; a longer measurement may show more if one is shorter than `per_s`."""
    most = float(max(most_in(run[name], per_s * NS_PER_S) for run in runs))
    if all(seconds >= per_s for seconds in measured_s):
        return Estimate(most, n=n)
    return Estimate(most, most, np.inf, Bound.LOWER, n)
