"""Mutation check: change the code of statistics, schedules and dialects a little; some test must notice.

`make mutants` runs it; [tool.mutmut] in pyproject.toml names the files and the tests. A mutant is one change of a
function, in a copy of the source below `mutants/`. A sample with a fixed seed is tried; survivors are printed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KILLED, SURVIVED, NO_TESTS = 1, 0, 33  # mutmut's exit codes of a mutant; other codes are time-outs and crashes


def results() -> dict[str, int | None]:
    """Return the exit code of every mutant by its name; None if it was not tried."""
    found: dict[str, int | None] = {}
    for meta in sorted((ROOT / "mutants").rglob("*.meta")):
        found |= json.loads(meta.read_text())["exit_code_by_key"]
    return found


def mutmut(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run mutmut on the repository."""
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments], cwd=ROOT, text=True, capture_output=True, check=False
    )


def sample(most: int, seed: int) -> list[str]:
    """Write all mutants below `mutants/`, and return the names of some."""
    made = mutmut("run", "none of them")  # fails, as it finds none of that name, when all are written
    names = list(results())
    if not names:
        raise SystemExit(f"no mutants were written:\n{made.stdout[-2000:]}{made.stderr[-2000:]}")
    return sorted(random.Random(seed).sample(names, min(most, len(names))))


def main() -> None:
    """Try a sample of mutants, print the survivors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=400, help="mutants to try")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    names = sample(options.most, options.seed)
    tried = mutmut("run", "--max-children", "2", *names)
    found = results()
    if any(found[name] is None for name in names):
        raise SystemExit(f"not every mutant was tried:\n{tried.stdout[-2000:]}{tried.stderr[-2000:]}")
    words = {KILLED: "killed", SURVIVED: "survived", NO_TESTS: "no tests"}
    outcomes = Counter(words.get(found[name], "other") for name in names)
    counts = ", ".join(f"{count} {what}" for what, count in outcomes.most_common())
    print(f"{len(names)} of {len(found)} mutants: {counts}")
    for name in names:
        if found[name] in (SURVIVED, NO_TESTS):
            print(f"\n{name}\n{mutmut('show', name).stdout}")


if __name__ == "__main__":
    main()
