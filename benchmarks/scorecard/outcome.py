"""Outcome of a gate, read from its `comparison.json`, and the file that keeps the outcomes of all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

TPOT, TTFT, E2E = "tpot_ms p50", "ttft_ms p50", "e2e_ms mean"
ERRORS = "error_rate value"
REGRESSED, CANNOT_TELL = "regressed", "cannot tell"
FORMAT = 1
VERDICTS = (0, 4, 5, 6)
"""Exit codes of a gate that ended with a verdict."""


@dataclass(frozen=True)
class Number:
    """A number of both sides of a gate.

    Attributes:
        change, low, high: Ratio head / base and the 90 % interval; of errors the difference. None if unknown.
        least_seen: Least change that the gate could see, as a ratio; None if unknown.
        pairs_needed: Pairs that would settle it; None if it is settled, or if nobody knows.
        values: Numbers of each pair of starts, base first; null where unknown.
    """

    word: str
    gates: bool
    ratio: bool
    margin: float
    change: float | None
    low: float | None
    high: float | None
    least_seen: float | None
    pairs_needed: int | None
    doubt: str
    values: list[list[float | None]]

    @property
    def known(self) -> list[tuple[float, float]]:
        """Pairs of which both numbers are known and above zero."""
        return [(base, head) for base, head in self.values if base and head]

    @property
    def deviation(self) -> float:
        """Standard deviation of the logarithm of head / base over the pairs; NaN for fewer than two."""
        steps = [math.log(head / base) for base, head in self.known]
        return stdev(steps) if len(steps) > 1 else math.nan

    @property
    def ratio_of_means(self) -> float:
        """Mean of the head's starts, in means of the base's; NaN without starts."""
        sides = [*zip(*self.known, strict=True)]
        return fmean(sides[1]) / fmean(sides[0]) if sides else math.nan

    @property
    def blind(self) -> bool:
        """Whether a change as large as the margin could not be seen."""
        limit = 1 + self.margin if self.ratio else self.margin
        return self.least_seen is None or self.least_seen > limit


@dataclass(frozen=True)
class Outcome:
    """A gate that ended with a verdict.

    Attributes:
        key: Name of the gate, see `arms.Planned`.
        word: Verdict of the whole.
        numbers: By "metric statistic": every number that was compared.
        seconds: From the command to its end.
    """

    arm: str
    key: str
    seed: int
    word: str
    exit_code: int
    pairs: int
    seconds: float
    numbers: dict[str, Number]

    @property
    def poor(self) -> bool:
        """Whether the data of a gating number is poor."""
        return any(one.doubt for one in self.gating.values())

    @property
    def gating(self) -> dict[str, Number]:
        """Numbers on which the verdict depends."""
        return {name: one for name, one in self.numbers.items() if one.gates}

    @property
    def rightly_open(self) -> bool:
        """Whether `cannot tell` is right: no number without a word could have shown a change of its margin."""
        unsure = [one for one in self.gating.values() if one.word == CANNOT_TELL]
        return self.word == CANNOT_TELL and all(one.blind or one.doubt for one in unsure)

    @property
    def pairs_needed(self) -> int | None:
        """Pairs of starts that would settle the gate; None if it is settled, or nobody knows."""
        return max((one.pairs_needed for one in self.gating.values() if one.pairs_needed), default=None)


def read_outcome(gate: Path, arm: str, key: str, seed: int, exit_code: int, seconds: float) -> Outcome:
    """Read the comparison of a gate. Raises FileNotFoundError if it made none."""
    data = json.loads((gate / "comparison.json").read_text())
    numbers = {f"{row['metric']} {row['statistic']}": _number(row) for row in data["rows"] if row["class"] == "all"}
    return Outcome(arm, key, seed, data["word"], exit_code, data["pairs"], seconds, numbers)


def _number(row: Mapping[str, Any]) -> Number:
    same = ("word", "gates", "margin", "change", "low", "high", "least_seen", "pairs_needed", "doubt")
    values = [list(pair) for pair in row["values"]]
    return Number(ratio=row["scale"] == "ratio", values=values, **{name: row[name] for name in same})


def save(outcomes: Sequence[Outcome], path: Path) -> None:
    """Store the outcomes at once: whoever ends the scorecard leaves the old file or the new one."""
    made = path.with_suffix(".new")
    made.write_text(json.dumps({"format": FORMAT, "gates": [asdict(one) for one in outcomes]}, indent=1))
    os.replace(made, path)


def load(path: Path) -> list[Outcome]:
    """Return the stored outcomes; none without the file. Raises SystemExit for a file of another format."""
    if not path.exists():
        return []
    stored = json.loads(path.read_text())
    if stored.get("format") != FORMAT:
        raise SystemExit(f"{path} is of another version of the scorecard; choose another --out")
    return [
        Outcome(**{**gate, "numbers": {name: Number(**one) for name, one in gate["numbers"].items()}})
        for gate in stored["gates"]
    ]
