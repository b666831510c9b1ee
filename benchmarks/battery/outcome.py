"""Outcome of a run: its verdict, its first doubt, and its shown numbers beside the truth."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.battery.cases import LATE, Case
from benchmarks.battery.truth import LOAD, Truth, floor, tolerance, truth_of
from harness.errors import HarnessError
from harness.store.run import Run
from harness.verdict.reason import Level

VALID, INVALID = Level.VALID.value, Level.INVALID.value
NONE = "none"
EFFECT_SLACK = 0.01
QUIET_CORES = 0.05
P95 = "ttft_ms p95"


@dataclass(frozen=True)
class Number:
    """A shown number, its interval and its truth; NaN where it is not shown, or not known."""

    shown: float
    low: float = math.nan
    high: float = math.nan
    truth: Truth | None = None
    wrong: bool = False

    @property
    def interval_open(self) -> bool:
        """Whether an end of the interval is unknown."""
        return not (math.isfinite(self.low) and math.isfinite(self.high))


@dataclass
class Outcome:
    """What a run said, and whether that was so.

    Attributes:
        late: The sickness is a late load generator, which may or may not have an effect.
        verdict: Data quality by its stored name; `none` if the run left none.
        first: Code of the first doubt, or of the only note that the case expects; "" without any.
        effects: By "metric statistic": whether the truth lies within the stated ends.
        foreign_cores: CPU used by others, and stolen, in cores.
        problem: Why there is no truth; "" if there is one.
    """

    case: str
    sick: bool
    held_out: bool
    late: bool = False
    right_first: bool = False
    verdict: str = NONE
    first: str = ""
    exit_code: int | None = None
    reasons: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    numbers: dict[str, Number] = field(default_factory=dict)
    effects: dict[str, bool] = field(default_factory=dict)
    foreign_cores: float = math.nan
    seconds: float = math.nan
    problem: str = ""

    @property
    def wrong(self) -> list[str]:
        """The numbers that are off by more than the tolerance."""
        return [key for key, number in self.numbers.items() if number.wrong]

    @property
    def has_truth(self) -> bool:
        """Whether any shown number could be compared."""
        return any(number.truth is not None and not math.isnan(number.shown) for number in self.numbers.values())

    @property
    def harmless(self) -> bool:
        """Whether a load generator that was made late moved no number, so that nothing deserves a doubt."""
        return self.late and self.has_truth and not self.wrong

    @property
    def quiet(self) -> bool:
        """Whether the machine had nothing else to do."""
        return self.foreign_cores < QUIET_CORES

    def unnamed(self) -> list[str]:
        """Return the wrong numbers whose metric no doubt names; the load is named by the code `client_slow`."""
        named = {metric for reason in self.reasons for metric in reason["metrics"]}
        named |= {LOAD.split()[0] for reason in self.reasons if reason["code"] == "client_slow"}
        return [key for key in self.wrong if key.split()[0] not in named]


def outcome_of(case: Case, folder: Path, log: Path | None) -> Outcome:
    """Read what the run in a folder says, and compare it with the server's log."""
    found = Outcome(case.name, bool(case.expected), case.held_out, case.expected == LATE)
    try:
        summary = json.loads((folder / "summary.json").read_text())
        rows = _summary_rows(folder / "summary.csv")
        run = Run.open(folder)
    except (OSError, ValueError, HarnessError) as error:
        found.problem = f"no results: {error}"
        return found
    _read_verdict(found, case, summary)
    try:
        truths = truth_of(case, run, log, next(iter(rows.values()))["window"] if rows else "")
    except ValueError as error:
        found.problem = str(error)
        truths = {}
    found.numbers = _numbers(case, rows, truths)
    found.effects = _effects(found.reasons, truths)
    return found


def _read_verdict(found: Outcome, case: Case, summary: dict[str, Any]) -> None:
    validity = summary["trials"][0]["validity"] or {}
    found.verdict = str(validity.get("verdict", NONE))
    found.reasons, found.notes = validity.get("reasons", []), validity.get("notes", [])
    codes = [reason["code"] for reason in found.reasons]
    if not codes:
        codes = [note["code"] for note in found.notes if note["code"] in case.expected]
    found.first = codes[0] if codes else ""
    found.right_first = found.first in case.expected


def _summary_rows(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of all classes and repetitions together by "metric statistic"."""
    with path.open(newline="") as stored:
        rows = csv.DictReader(stored)
        return {
            f"{row['metric']} {row['statistic']}": row
            for row in rows
            if (row["class"], row["repetition"]) == ("all", "pooled")
        }


def _numbers(case: Case, rows: dict[str, dict[str, str]], truths: dict[str, Truth]) -> dict[str, Number]:
    found = {}
    for key in dict.fromkeys((P95, *truths)):
        truth = truths.get(key)
        if key == LOAD:
            ends = (float(case.users or 0), math.nan, math.nan)
        elif key in rows:
            ends = (_number(rows[key]["value"]), _number(rows[key]["low"]), _number(rows[key]["high"]))
        else:
            continue
        wrong = truth is not None and truth.off_by(ends[0]) > tolerance(key, truth.high)
        found[key] = Number(*ends, truth, bool(wrong))
    return found


def _effects(reasons: list[dict[str, Any]], truths: dict[str, Truth]) -> dict[str, bool]:
    """Return whether the truth lies within the ends that doubts state, to within 1 % or 1 ms."""
    found = {}
    for reason in reasons:
        for effect in reason["effects"]:
            key = f"{effect['metric']} {effect['statistic']}"
            if key not in truths:
                continue
            low, high, truth = effect["low"], effect["high"], truths[key]
            slack = max(EFFECT_SLACK * truth.high, floor(key))
            below = low is not None and truth.high < low - slack
            above = high is not None and truth.low > high + slack
            found[f"{reason['code']} {key}"] = not (below or above)
    return found


def _number(text: str) -> float:
    return float(text) if text else math.nan
