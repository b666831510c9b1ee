"""Runs the scorecard: gates of known truth on real servers. docs/compare.md says how to read the tables.

python -m benchmarks.scorecard [--out FOLDER] [--gates N] [--only TEXT] [--list]
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scorecard import table
from benchmarks.scorecard.accuracy import accuracy
from benchmarks.scorecard.arms import STRETCH, Planned, planned
from benchmarks.scorecard.outcome import TPOT, Outcome, load, save
from benchmarks.scorecard.play import GateFailed, play
from benchmarks.scorecard.theirs import doctor_python, doctor_says

RESULTS = "scorecard.json"
OUT = "build/scorecard"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the gates that lack, and print the tables. 1 if a gate or a target was missed, 2 if there is no gate."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the gate in progress ends, too
    options = _options(arguments)
    wanted = [*planned(options.gates, options.only)]
    if not wanted:
        print(f"no arm has such a name: {options.only}; --list shows them", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{one.key}  seed {one.seed}" for one in wanted))
        return 0
    folder = Path(options.out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = doctor_python()
    errors = [str(accuracy(stretch)) for stretch in (1.0, STRETCH)]
    print("\n".join(errors), flush=True)
    outcomes = make(wanted, folder)
    version, doctor = doctor_says(python, outcomes, folder / "inference-doctor")
    targets = table.targets(outcomes)
    parts = [table.verdicts(outcomes), table.noise(outcomes), table.others(outcomes, doctor, version)]
    parts += ["\n".join(f"- {one}" for one in targets), " ".join([table.seconds(outcomes), *errors])]
    print("\n" + "\n\n".join(parts) + f"\n\nGates and results: {folder}")
    return int(len(outcomes) < len(wanted) or any(one.met is False for one in targets))


def make(wanted: Sequence[Planned], folder: Path) -> list[Outcome]:
    """Make the gates that are not stored yet, store each when it ends, and return those that were asked for."""
    stored = load(folder / RESULTS)
    have = {one.key for one in stored}
    for number, one in enumerate(wanted, 1):
        if one.key in have:
            continue
        try:
            made = play(one, folder)
        except GateFailed as error:
            print(f"[{number}/{len(wanted)}] {error}", flush=True)
            continue
        stored.append(made)
        save(stored, folder / RESULTS)
        print(f"[{number}/{len(wanted)}] {_line(made)}", flush=True)
    asked = {one.key for one in wanted}
    return [one for one in stored if one.key in asked]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scorecard", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=OUT, help="folder for gates and results; one that has some goes on")
    parser.add_argument("--gates", type=int, metavar="N", help="gates of each arm at most; default: all")
    parser.add_argument("--only", default="", metavar="TEXT", help="arms with this text in their names")
    parser.add_argument("--list", action="store_true", help="list the gates, make none")
    return parser.parse_args(arguments)


def _line(outcome: Outcome) -> str:
    """Return one line about a gate."""
    words = ", ".join(f"{name} {one.word}" for name, one in outcome.gating.items())
    noise = table.percent(outcome.numbers[TPOT].deviation)
    how = f"{outcome.pairs} pairs, s.d. of TPOT {noise}, {outcome.seconds:.0f} s"
    return f"{outcome.key}: {outcome.word}, exit {outcome.exit_code} ({words}; {how})"


if __name__ == "__main__":
    sys.exit(main())
