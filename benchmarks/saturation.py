"""Searches for the largest rate on a queue of known truth: `python -m benchmarks.saturation --runs 50`, a few minutes.

Ours beside bisection, as AIPerf and evalscope search. docs/saturation.md has the table.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tests.saturating import TRUE_RATE, bisected, search_of

TRIALS = 6


def ours(seed: int) -> tuple[float, float, float]:
    """Return the lower rate, the middle one, and the seconds of one search."""
    search, seconds = search_of(seed)
    assert search.found is not None
    return search.found.lower, search.found.decisive.value, seconds


def theirs(seed: int, trial_s: float) -> tuple[float, float, float]:
    """Return the same of a bisection, which has one rate."""
    rate = bisected(seed, trial_s, TRIALS)
    return rate, rate, TRIALS * trial_s


def row(name: str, found: NDArray[np.float64]) -> str:
    """Return a line of the table. `found`: planned rate, middle rate and seconds of each run."""
    planned, middle = found[:, 0] / TRUE_RATE, found[:, 1] / TRUE_RATE
    cells = [
        f"{(planned <= 1).mean():.0%}",
        f"{(planned > 1.03).mean():.0%}",
        f"{(planned >= 0.92).mean():.0%}",
        f"{middle.mean() - 1:+.1%}",
        f"{(abs(middle - 1) < 0.05).mean():.0%}",
        f"{found[:, 2].mean():.0f} s",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    kinds = [(f"bisection, trials of {trial_s} s", partial(theirs, trial_s=trial_s)) for trial_s in (30, 60, 300)]
    print("| search | at most the truth | over it by > 3 % | at least 92 % of it | mean error | within 5 % | time |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    with ProcessPoolExecutor(options.processes) as pool:
        for name, search in [("ours", ours), *kinds]:
            print(row(name, np.array(list(pool.map(search, range(options.runs))))), flush=True)


if __name__ == "__main__":
    main()
