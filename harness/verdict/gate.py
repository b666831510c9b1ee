"""The gate: the scenario's limits against the summary, and the exit code.

A limit is judged by the value; where only a bound is known it passes or fails if the bound decides, else nobody can
tell. Nor can anybody of a figure of quality whose chunks are too few for an interval: it says nothing of other text. A
metric without a value is "cannot_tell" with the reason, which exits 6: a limit that was not checked has not
held.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import ALL
from harness.analysis.summary import KEYS, POOLED
from harness.errors import ExitCode, first_that_applies
from harness.metrics import QUALITY, SCALAR, find
from harness.scenario.limits import Limit, parse_limit
from harness.verdict.reason import Level

if TYPE_CHECKING:
    import pandas as pd

_OF_THIS_TEXT = ("kl_max",)  # a fact about what was scored, so it has no interval
_OPERATORS = {"<=": operator.le, "<": operator.lt, ">=": operator.ge, ">": operator.gt}


class Outcome(StrEnum):
    """What became of a limit."""

    PASS = "pass"
    FAIL = "fail"
    INVALID = "invalid"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One limit on one row of the results.

    limit: as written.   metric: its registered name.   keys: model, engine, level, variant, load.   NaN: no number.
    """

    limit: str
    metric: str
    keys: tuple[str, ...]
    outcome: Outcome
    value: float
    low: float
    high: float
    n: int
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for reports."""
        numbers = {name: _json_number(getattr(self, name)) for name in ("value", "low", "high")}
        return asdict(self) | dict(zip(KEYS, self.keys, strict=True)) | {"outcome": self.outcome.value} | numbers


@dataclass(frozen=True, slots=True)
class Group:
    """Trials that are one row of the results: same keys, one per repetition. missing: why a metric has no value."""

    keys: tuple[str, ...]
    limits: tuple[str, ...]
    validity: Level
    missing: Mapping[str, str]


def extra_statistics(limits: Sequence[str]) -> set[tuple[str, str]]:
    """The (metric, statistic) pairs that the limits need, for `analysis.summarise`."""
    parsed = [parse_limit(text) for text in limits]
    named = [(find(limit.metric), limit.statistic) for limit in parsed]
    return {(metric.name, statistic) for metric, statistic in named if metric is not None and statistic}


def judge_all(groups: Sequence[Group], summary: pd.DataFrame) -> list[Verdict]:
    """Every limit on every group, in their order; the pooled rows of the summary are judged."""
    told = {metric.name for group in groups for text in group.limits if (metric := find(parse_limit(text).metric))}
    pooled = summary[(summary["repetition"] == POOLED) & summary["metric"].isin(told)]
    index = {
        tuple(row[name] for name in (*KEYS, "class", "metric", "statistic")): row for row in pooled.to_dict("records")
    }
    return [judge(parse_limit(text), group, index) for group in groups for text in group.limits]


def judge(limit: Limit, group: Group, rows: Mapping[tuple[Any, ...], Mapping[Any, Any]]) -> Verdict:
    """One limit on one group. rows: of the summary, by keys, class, metric and statistic."""
    metric = find(limit.metric)
    name = metric.name if metric else limit.metric
    row = rows.get((*group.keys, limit.class_name or ALL, name, limit.statistic or SCALAR))
    if row is None:
        reason = group.missing.get(name) or _why_no_row(limit)
        return _verdict(limit, group, Outcome.CANNOT_TELL, None, f"{limit.metric} has no value: {reason}.")
    if group.validity is Level.INVALID:
        return _verdict(limit, group, Outcome.INVALID, row, "The trial is invalid, so its numbers decide nothing.")
    if name in QUALITY and name not in _OF_THIS_TEXT and _lacks_interval(row):
        few = f"{limit.metric} is {row['value']:.4g} in {int(row['n_eff'])} chunks, too few for an interval"
        return _verdict(limit, group, Outcome.CANNOT_TELL, row, f"{few}; raise `quality.tokens` to tell.")
    outcome = _outcome(limit, row)
    why = group.missing.get(name) if name in QUALITY else None
    return _verdict(limit, group, outcome, row, _sentence(limit, row, outcome, why))


def _lacks_interval(row: Mapping[Any, Any]) -> bool:
    return math.isfinite(row["value"]) and math.isnan(row["low"])


def _why_no_row(limit: Limit) -> str:
    return f"no request of class {limit.class_name} gave one" if limit.class_name else "no request gave one"


def _outcome(limit: Limit, row: Mapping[Any, Any]) -> Outcome:
    holds = _OPERATORS[limit.op]
    if math.isfinite(row["value"]):
        return Outcome.PASS if holds(row["value"], limit.value) else Outcome.FAIL
    best, worst = (row["low"], row["high"]) if limit.op.startswith("<") else (row["high"], row["low"])
    if math.isfinite(worst) and holds(worst, limit.value):
        return Outcome.PASS
    return Outcome.FAIL if math.isfinite(best) and not holds(best, limit.value) else Outcome.CANNOT_TELL


def _sentence(limit: Limit, row: Mapping[Any, Any], outcome: Outcome, why: str | None) -> str:
    """why: no point is known, where there is another reason than too few observations."""
    subject = " ".join(part for part in (limit.metric, limit.statistic) if part)
    unit = "" if row["unit"] == "share" else f" {row['unit']}"
    low, high, n = float(row["low"]), float(row["high"]), int(row["n"])
    if math.isfinite(row["value"]):
        text = f"{subject} is {row['value']:.4g}{unit}"
        if low < high and low <= limit.value <= high:
            ends = f"{low:.4g} to {high:.4g}" if math.isfinite(high) else f"{low:.4g} or more"
            text += f"; the limit lies within its interval, {ends}, so chance may decide"
        return f"{text}."
    text = f"{subject} is known only as {'at least' if row['bound'] == 'lower' else 'at most'} "
    text += f"{low if row['bound'] == 'lower' else high:.4g}{unit} ({n} observations)"
    if outcome is Outcome.CANNOT_TELL:
        text += f": {why}" if why else "; measure for longer to tell"
    return f"{text}."


def _verdict(limit: Limit, group: Group, outcome: Outcome, row: Mapping[Any, Any] | None, sentence: str) -> Verdict:
    metric = find(limit.metric)
    name = metric.name if metric else limit.metric
    value, low, high = (math.nan if row is None else float(row[part]) for part in ("value", "low", "high"))
    n = 0 if row is None else int(row["n"])
    return Verdict(limit.text, name, group.keys, outcome, value, low, high, n, sentence)


def exit_code(verdicts: Sequence[Verdict], validities: Sequence[Level], *, decide: str, failed_cells: int) -> ExitCode:
    """The exit code of a run.

    decide: "all": every limit must hold in every group; "any": all those of one cell at least, under all its loads (a
    choice among levels), and only cells that might be chosen can make the run invalid.   failed_cells: cells and
    trials that could not be run.
    """
    codes = {ExitCode.TRIAL_FAILED} if failed_cells else set()
    if decide == "any" and verdicts:
        return first_that_applies(codes | _codes_of_choice(verdicts))
    if Level.INVALID in validities:
        codes.add(ExitCode.INVALID)
    return first_that_applies(codes | {_CODES[verdict.outcome] for verdict in verdicts})


_CODES = {
    Outcome.PASS: ExitCode.HOLDS,
    Outcome.FAIL: ExitCode.LIMIT_BROKEN,
    Outcome.INVALID: ExitCode.INVALID,
    Outcome.CANNOT_TELL: ExitCode.CANNOT_TELL,
}


def _codes_of_choice(verdicts: Sequence[Verdict]) -> set[ExitCode]:
    """Nothing if some cell passes every limit under all its loads; else what kept the cells from passing."""
    outcomes: dict[tuple[str, ...], set[Outcome]] = {}
    for verdict in verdicts:
        outcomes.setdefault(verdict.keys[:-1], set()).add(verdict.outcome)
    if any(found == {Outcome.PASS} for found in outcomes.values()):
        return set()
    return {_CODES[outcome] for found in outcomes.values() for outcome in found if outcome is not Outcome.PASS}


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None
