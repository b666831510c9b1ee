"""`python -m benchmarks.otava`: our change points against those of apache-otava, which has an environment of its own.

Policies are switched off: no spike filter, parts of one night, no least magnitude. Otava's spread is that of a sample
here (ddof=1), as in our test; the last column counts the same without that repair.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from harness.history.detector.changes import change_points

SERIES, WINDOW = 200, 50
PYTHON = "HARNESS_OTAVA_PYTHON"
THEIRS = """
import inspect, json, sys
import numpy as np
from otava import analysis
job = json.load(sys.stdin)
std = np.std
def found():
    how = {"window_len": job["window"], "max_pvalue": job["p"]}
    points = [analysis.compute_change_points(list(x), **how)[0] for x in job["series"]]
    return [[int(c.index) for c in one] for one in points]
plain = found()
analysis.np.std = lambda x: std(x, ddof=1)
source = inspect.getsource(analysis.merge)
assert "recompute(weakest_cp_index + 1)" in source
source = source.replace("recompute(weakest_cp_index)", "recompute(weakest_cp_index - 1)")
exec(source.replace("recompute(weakest_cp_index + 1)", "recompute(weakest_cp_index)"), vars(analysis))
json.dump({"plain": plain, "repaired": found()}, sys.stdout)
"""


def random_series(seed: int = 0) -> list[list[float]]:
    """Return series of 30 to 200 nights: normal, autocorrelated or heavy-tailed noise, with none to four steps."""
    rng = np.random.default_rng(seed)
    series = []
    for number in range(SERIES):
        n = int(rng.integers(30, 201))
        noise = rng.standard_t(3, n) if number % 3 == 2 else rng.normal(size=n)
        if number % 3 == 1:
            for night in range(1, n):
                noise[night] += 0.5 * noise[night - 1]
        for _ in range(number % 5):
            noise[int(rng.integers(1, n)) :] += rng.normal(0, 3)
        series.append((100 + noise).tolist())
    return series


def otava_says(python: str, series: list[list[float]], p: float) -> dict[str, list[list[int]]]:
    """Return Otava's change points of each series: as it is ("plain"), and with the spread of a sample."""
    job = json.dumps({"series": series, "p": p, "window": WINDOW})
    ended = subprocess.run([python, "-c", THEIRS], input=job, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"apache-otava does not run in {python}; `make otava` installs it\n{ended.stderr[-2000:]}")
    found: dict[str, list[list[int]]] = json.loads(ended.stdout)
    return found


def main() -> int:
    """Print how many of the series have the same change points; return 1 unless all have."""
    python = os.environ.get(PYTHON) or str(Path(".venv-otava/bin/python"))
    series, worst = random_series(), SERIES
    print(f"{'p':>8} {'same points':>12} {'points':>7} {'same with ddof=0':>17}")
    for p in (1e-2, 1e-3, 1e-4):
        theirs = otava_says(python, series, p)
        ours = [[one.index for one in change_points(np.array(x), p, WINDOW, least=1, whole=True)] for x in series]
        same = sum(a == b for a, b in zip(ours, theirs["repaired"], strict=True))
        plain = sum(a == b for a, b in zip(ours, theirs["plain"], strict=True))
        print(f"{p:>8g} {same:>8}/{SERIES} {sum(map(len, ours)):>7} {plain:>13}/{SERIES}")
        worst = min(worst, same)
    return 0 if worst == SERIES else 1


if __name__ == "__main__":
    sys.exit(main())
