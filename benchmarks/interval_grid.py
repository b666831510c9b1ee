"""Coverage of intervals over a grid of queues: `make intervals`, about ten minutes of processor time.

First-come queues of 1, 4 and 32 servers at four loads, services of three spreads, and closed loops of 1 to 64 users;
runs of 100 to 5,000 requests. It names each cell whose intervals hold the truth in clearly fewer than 0.90 of the runs.
With `--before FILE`, the table of an earlier commit, it also says by how much intervals became wider.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from harness.analysis.stats import Bound, Estimate
from tests import many_queues
from tests.covered import covered, estimates
from tests.many_queues import Queued

LEAST, CHANCE = 0.90, 0.025
LENGTHS = (100, 200, 450, 1000, 2000, 5000)
KEYS = ["system", "requests", "level"]
OPEN = [(servers, load, cv) for servers in (1, 4, 32) for load in (0.5, 0.7, 0.85, 0.95) for cv in (0.3, 0.8, 2.0)]
Loop = Callable[[np.random.Generator, int, int, int], Queued]
CLOSED: dict[str, Loop] = {
    "no queue": lambda rng, runs, n, users: many_queues.closed_loop(rng, runs, n, users, None),
    "half as many slots": lambda rng, runs, n, users: many_queues.closed_loop(rng, runs, n, users, -(-users // 2)),
    "busy machine": lambda rng, runs, n, users: many_queues.busy_machine(rng, runs, n, users),
    "lockstep": lambda rng, runs, n, users: many_queues.lockstep(rng, runs, users, n // users),
    "batching": lambda rng, runs, n, users: many_queues.batching_users(rng, runs, n, users),
}
USERS = (1, 4, 8, 16, 64)
CLOSED_LENGTHS = (96, 450, 1000)
Row = dict[str, float | int | str]


def of_servers(cell: tuple[int, float, float], runs: int) -> list[Row]:
    """Return the rows of an open loop: to the first token and to the end, at each length."""
    servers, load, cv = cell
    rng = np.random.default_rng([15, servers, round(100 * load), round(10 * cv)])
    found: list[Row] = []
    for whole, made in many_queues.long_queues(rng, runs, max(LENGTHS), servers, load, cv):
        name = f"{servers} servers at {load}, cv {cv:g}, {'to the end' if whole else 'first token'}"
        for n in LENGTHS:
            found += rows(name, made.shortened(n))
    return found


def of_users(cell: tuple[str, int], runs: int) -> list[Row]:
    """Return the rows of a closed loop, at each length."""
    kind, users = cell
    rng = np.random.default_rng([15, users])
    lengths = [n for n in CLOSED_LENGTHS if n >= users]
    return [row for n in lengths for row in rows(f"{users} users, {kind}", CLOSED[kind](rng, runs, n, users))]


def rows(system: str, made: Queued) -> Iterator[Row]:
    """Yield a row for each level: coverage, share of open intervals, and the median width over the truth."""
    every = list(estimates(made))
    for p, truth in made.truth.items():
        found = [one[p] for one in every]
        summed = covered(found, truth)
        yield {
            "system": system,
            "requests": made.latency.shape[1],
            "level": p,
            "runs": len(found),
            "holds": summed.holds,
            "open": summed.open,
            "width": float(np.median([_width(one) for one in found])) / truth,
        }


def _width(one: Estimate) -> float:
    return one.high - one.low if one.bound is Bound.POINT else np.inf


def clearly_fewer(row: pd.Series) -> bool:
    """Return whether so few intervals hold by chance in fewer than one of forty tries, at a coverage of LEAST."""
    from scipy.special import bdtr

    return bool(bdtr(round(row["holds"] * row["runs"]), int(row["runs"]), LEAST) < CHANCE)


def summary(table: pd.DataFrame, before: pd.DataFrame | None) -> Iterator[str]:
    """Yield lines about each level, and one for each cell that fails."""
    for level, own in table.groupby("level"):
        bad = own[own.apply(clearly_fewer, axis=1)]
        line = f"p{100 * float(str(level)):g}: {len(own)} cells, least {own['holds'].min():.3f}, {len(bad)} fail"
        line += f"; one end in {own['open'].mean():.0%} of the runs"
        if before is not None:
            both = own.merge(before, on=KEYS, suffixes=("", "_before"))
            held = both[(both["holds_before"] >= LEAST) & np.isfinite(both["width_before"])]
            ratio = held["width"] / held["width_before"]
            line += f"; of {len(held)} cells that held, {(ratio > 1.15).mean():.0%} are over 15 % wider"
        yield line
        for row in bad.to_dict("records"):
            yield f"  {row['system']}, {row['requests']:,}: {row['holds']:.3f}"


def main() -> None:
    """Write the table, and print what fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/intervals.csv"))
    parser.add_argument("--before", type=Path)
    options = parser.parse_args()
    closed = [(kind, users) for kind in CLOSED for users in USERS]
    with ProcessPoolExecutor(options.processes) as pool:
        parts = [
            *pool.map(partial(of_servers, runs=options.runs), OPEN),
            *pool.map(partial(of_users, runs=options.runs), closed),
        ]
    table = pd.DataFrame([row for part in parts for row in part])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False)
    print("\n".join(summary(table, None if options.before is None else pd.read_csv(options.before))))


if __name__ == "__main__":
    main()
