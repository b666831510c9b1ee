"""Names: the shortest texts that tell the trials of a run apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from reports.data import KEYS, ReportData, keys_of, place
from reports.format import dotted, joined

MOST_NAMES = 4
_OF_A_SWEEP = re.compile(
    r"(sustained|mixed)-(?P<what>rate|users)-(?P<number>[0-9.]+)(-cap-(?P<cap>\d+))?"
    r"(-prompt-(?P<prompt>\d+))?(-output-(?P<output>\d+))?"
)


def differing(data: ReportData) -> list[int]:
    """Return the numbers of the keys (model, engine, level, variant, load) in which trials of the run differ."""
    known = {keys_of(cell, trial.load) for cell, trial in data.trials()}
    return [number for number in range(len(KEYS)) if len({keys[number] for keys in known}) > 1]


def load_names(data: ReportData) -> dict[str, str]:
    """Return a short name of each load named after its rate or users: "4/s, cap 16", "8 users, prompt 512"."""
    names = list(dict.fromkeys(trial.load for _, trial in data.trials()))
    short = {name: _short(name) for name in names}
    return short if len(set(short.values())) == len(names) else dict(zip(names, names, strict=True))


def _short(name: str) -> str:
    found = _OF_A_SWEEP.fullmatch(name)
    if found is None:
        return name
    number = found["number"]
    shown = f"{number} user{'s' * (number != '1')}" if found["what"] == "users" else f"{number}/s"
    return shown + "".join(f", {word} {found[word]}" for word in ("cap", "prompt", "output") if found[word])


def namer(data: ReportData) -> Callable[[Sequence[str]], str]:
    """Return a function that gives each trial the shortest name unique within the run."""
    used, short = differing(data) or [len(KEYS) - 1], load_names(data)

    def name(keys: Sequence[str]) -> str:
        shown = (*keys[:-1], short.get(keys[-1], keys[-1]))
        return dotted(shown[number] for number in used) or place(keys)

    return name


def noun(data: ReportData) -> str:
    """Return the word for a row of the results: a load, or a trial where there are several configurations.

    With repetitions, a row has several trials.
    """
    if all(number == len(KEYS) - 1 for number in differing(data)):
        return "load"
    return "row" if any(cell.repetition > 1 for cell in data.manifest.cells) else "trial"


def listed(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """Return each name once; of many the first few."""
    known = [name for name in dict.fromkeys(names) if name]
    return joined(known) if len(known) <= most else f"{', '.join(known[:most])} and {len(known) - most} more"


def ended(text: str) -> str:
    """Return a sentence with its point."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."
