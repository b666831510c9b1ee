"""Runs the battery: does the verdict of a run agree with the truth? docs/battery.md says how to read the table.

python -m benchmarks.battery [--out FOLDER] [--only REGEX] [--repeat N] [--held-out | --no-held-out] [--list]
"""

from __future__ import annotations

import argparse
import json
import math
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.battery.cases import CASES, Case
from benchmarks.battery.outcome import NONE, Outcome
from benchmarks.battery.play import play
from benchmarks.battery.rates import missed, table
from benchmarks.battery.server import NoCompiler, build


def main() -> int:
    """Run the chosen cases, write `outcomes.json`, print the table. 1 if a target was missed, 2 if nothing can run."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what was started ends, too
    options = _options()
    cases = _chosen(options.only, options.held_out)
    if not cases:
        print(f"no case has such a name: {options.only}; --list shows them", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{_side(case):10}{'sick' if case.expected else 'healthy':9}{case.name}" for case in cases))
        return 0
    folder = Path(options.out or tempfile.mkdtemp(prefix="battery-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        program = build(folder)
    except NoCompiler as error:
        print(error, file=sys.stderr)
        return 2
    runs = [case for _ in range(options.repeat) for case in cases for _ in range(case.runs)]
    outcomes: list[Outcome] = []
    for number, case in enumerate(runs, 1):
        outcomes.append(play(case, program, folder, number))
        print(f"[{number}/{len(runs)}] {_line(outcomes[-1])}", flush=True)
        (folder / "outcomes.json").write_text(_json(outcomes))
    print(f"\n{table(outcomes)}\n\nOutcomes and runs: {folder}")
    failed = [one.case for one in outcomes if one.verdict == NONE]
    return int(bool(failed) or missed(outcomes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.battery", description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="new folder for runs and outcomes.json; default: a temporary one")
    parser.add_argument("--only", default="", metavar="REGEX", help="cases whose name it finds")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="passes; every run has its own seed")
    parser.add_argument(
        "--held-out", action=argparse.BooleanOptionalAction, help="only the cases held out; no: the others"
    )
    parser.add_argument("--list", action="store_true", help="list the cases, run none")
    return parser.parse_args()


def _chosen(only: str, held_out: bool | None) -> Sequence[Case]:
    return [case for case in CASES if re.search(only, case.name) and held_out in (None, case.held_out)]


def _side(case: Case) -> str:
    return "held out" if case.held_out else "in sample"


def _json(outcomes: Sequence[Outcome]) -> str:
    """Return all outcomes; numbers that are unknown or infinite are null."""

    def known(items: Sequence[tuple[str, object]]) -> dict[str, object]:
        return {name: None if isinstance(it, float) and not math.isfinite(it) else it for name, it in items}

    return json.dumps([asdict(one, dict_factory=known) for one in outcomes], indent=1, allow_nan=False)


def _line(outcome: Outcome) -> str:
    """Return one line about a run: what it said, and what was wrong."""
    codes = ", ".join(reason["code"] + "!" * (reason["level"] == "invalid") for reason in outcome.reasons)
    wrong = ", ".join(
        f"{key} {number.shown:.4g} for {number.truth.high:.4g}"
        for key, number in outcome.numbers.items()
        if number.wrong and number.truth is not None
    )
    truth = outcome.problem or (f"wrong: {wrong}" if wrong else "right" if outcome.has_truth else "no truth")
    right = ""
    if outcome.sick:
        right = ", right doubt first" if outcome.right_first else ", right doubt missing"
        right = ", harmless" if outcome.harmless else right
    return f"{outcome.case}: {outcome.verdict} ({codes or 'no doubt'}), exit {outcome.exit_code}{right}; {truth}"


if __name__ == "__main__":
    sys.exit(main())
