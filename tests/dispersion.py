"""How dispersed arrivals are."""

from __future__ import annotations

import numpy as np

from harness.schedule.arrivals import NS_PER_S, Int64


def index_of_dispersion(due_ns: Int64, window_s: float) -> float:
    """Variance over mean of the counts in windows of `window_s`: 1 for Poisson; NaN below two windows."""
    windows = int((due_ns[-1] - due_ns[0]) // (window_s * NS_PER_S)) if len(due_ns) else 0
    if windows < 2:
        return float("nan")
    bin_of = (due_ns - due_ns[0]) // int(window_s * NS_PER_S)
    counts = np.bincount(bin_of, minlength=windows)[:windows]
    return float(counts.var(ddof=1) / counts.mean())
