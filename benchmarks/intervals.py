"""Coverage of the intervals of quantiles: `python -m benchmarks.intervals --runs 1000`, a few minutes.

Each row is a queue whose truth is known (tests/covered.py). For p50, p95 and p99: the share of the runs whose interval
holds the truth, in brackets those whose interval has one end only, and the same for the interval of independent values.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import fmean

from tests.covered import CELLS, Covered, coverage, of_cell

Row = tuple[dict[float, Covered], dict[float, Covered]]


def row(name: str, runs: int) -> Row:
    """Return the coverage in a cell, by our intervals and by those of independent values."""
    made = of_cell(name, runs)
    return coverage(made), coverage(made, independent=True)


def main() -> None:
    """Print the table, and below it the means over all rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    totals: dict[float, list[Covered]] = defaultdict(list)
    print("| queue, requests in a run | p50 | p95 | p99 | as if independent |\n|---|--:|--:|--:|--:|")
    with ProcessPoolExecutor(options.processes) as pool:
        for name, (ours, naive) in zip(CELLS, pool.map(partial(row, runs=options.runs), CELLS), strict=True):
            cells = [f"{one.holds:.3f} ({one.open:.0%})" for one in ours.values()]
            print(f"| {name} | {' | '.join(cells)} | {' / '.join(f'{one.holds:.2f}' for one in naive.values())} |")
            for p, one in ours.items():
                totals[p].append(one)
    for p, found in totals.items():
        least, mean = min(one.holds for one in found), fmean(one.holds for one in found)
        opened = fmean(one.open for one in found)
        opened_good = sum(one.good_open for one in found) / sum(one.good for one in found)
        print(
            f"p{p * 100:g}: least {least:.3f}, mean {mean:.3f}; one end: {opened:.0%}, of good ones {opened_good:.0%}"
        )


if __name__ == "__main__":
    main()
