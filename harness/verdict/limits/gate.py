"""The gate: the scenario's limits against the numbers, and the exit code.

The value decides, and the 95 % interval says how surely (docs/adr/0022). A limit reads "invalid" only for a doubt about
its own metric, or if the load was not the planned one. A limit that nobody could check has not held: "cannot_tell".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import ALL
from harness.analysis.summary import KEYS, PEAKS, POOLED, Measures
from harness.errors import ExitCode, first_that_applies
from harness.metrics import METRICS, QUALITY, RATE_OF_COST, SCALAR, START_AND_MEMORY, find
from harness.scenario.limits import Limit, parse_limit
from harness.verdict.limits import against
from harness.verdict.limits.held import LIKELY, Held, Outcome
from harness.verdict.limits.words import on_value, shown, subject, unit_of, value_or_end
from harness.verdict.load import judges_errors
from harness.verdict.reason import Level, Reason, Validity

if TYPE_CHECKING:
    import pandas as pd

_ERRORS = ("error_rate", *(metric.name for metric in METRICS.values() if metric.per_time))
OF_ANY_LOAD = frozenset({*_ERRORS, *QUALITY, *(metric.name for metric in START_AND_MEMORY)})
"""Metrics that are true whatever the load was."""
_OF_THIS_TEXT = ("kl_max",)  # a fact about what was scored, so it has no interval
_ONE_OR_ALL = ("class", "repetition", "metric", "statistic")
Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement of a limit on a row of the results.

    Attributes:
        limit: As written.
        metric: Registered name.
        keys: Model, engine, level, variant, load.
        value: Value, as low and high those of the summary; NaN: no number.
        certainty: "sure" if the whole 95 % interval is on the value's side, "likely" if not, "" without an interval.
        bound: Number that it was held against, in the metric's unit.
        of_base: Whether it is about the variant that the limit refers to: it counts in a choice alone.
    """

    limit: str
    metric: str
    keys: Keys
    outcome: Outcome
    value: float
    low: float
    high: float
    n: int
    sentence: str
    certainty: str = ""
    bound: float = math.nan
    of_base: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for reports, which get none of a base."""
        numbers = {name: _json_number(getattr(self, name)) for name in ("value", "low", "high", "bound")}
        whole = {name: one for name, one in asdict(self).items() if name != "of_base"}
        return whole | dict(zip(KEYS, self.keys, strict=True)) | {"outcome": self.outcome.value} | numbers


@dataclass(frozen=True, slots=True)
class Group:
    """Trials that are one row of the results: same keys, one per repetition.

    Attributes:
        validity: Judgement of all repetitions together.
        missing: Why a metric has no value.
    """

    keys: Keys
    limits: tuple[str, ...]
    validity: Validity
    missing: Mapping[str, str]

    @property
    def load_failed(self) -> Reason | None:
        """Return why the load was not the planned one, None if it was. A limit on errors judges these instead."""
        judged = judges_errors(self.limits)
        for one in self.validity.reasons:
            if one.is_of_load and not (one.code == "errors" and judged):
                return one
        return None


@dataclass(frozen=True, slots=True)
class Board:
    """Numbers that limits are judged by.

    Attributes:
        rows: Rows of the summary by their keys, class, repetition, metric and statistic.
        groups: All groups by their keys.
        measures: What trials measured, by their keys and class, a trial for each repetition.
        strict: Whether only a sure verdict counts.
    """

    rows: Mapping[tuple[Any, ...], Mapping[Any, Any]]
    groups: Mapping[Keys, Group] = field(default_factory=dict)
    measures: Mapping[tuple[Keys, str], Mapping[int, Measures]] = field(default_factory=dict)
    strict: bool = False

    def row(self, keys: Keys, limit: Limit, repetition: str = POOLED) -> Mapping[Any, Any] | None:
        return self.rows.get((*keys, limit.class_name or ALL, repetition, name_of(limit), limit.statistic or SCALAR))


def name_of(limit: Limit) -> str:
    """Return the registered name of a limit's metric."""
    metric = find(limit.metric)
    return metric.name if metric else limit.metric


def extra_statistics(limits: Sequence[str]) -> set[tuple[str, str]]:
    """The (metric, statistic) pairs that the limits need, for `analysis.summarise`."""
    return {(name_of(limit), limit.statistic) for limit in map(parse_limit, limits) if limit.statistic}


def judge_all(
    groups: Sequence[Group], summary: pd.DataFrame, measures: Sequence[Measures] = (), *, strict: bool = False
) -> list[Verdict]:
    """Every limit on every group, in their order."""
    limits = {text: parse_limit(text) for group in groups for text in group.limits}
    told = summary[summary["metric"].isin({name_of(limit) for limit in limits.values()})]
    rows = {tuple(row[name] for name in (*KEYS, *_ONE_OR_ALL)): row for row in told.to_dict("records")}
    trials: dict[tuple[Keys, str], dict[int, Measures]] = {}
    for one in measures:
        trials.setdefault((one.keys, one.class_name), {})[one.repetition] = one
    board = Board(rows, {group.keys: group for group in groups}, trials, strict)
    judged = [(limits[text], group) for group in groups for text in group.limits]
    return [judge(limit, group, board) for limit, group in judged]


def _is_of_base(limit: Limit, group: Group) -> bool:
    return limit.base is not None and against.base_keys(group.keys, limit.base) == group.keys


def judge(limit: Limit, group: Group, board: Board) -> Verdict:
    """Return the verdict on a limit for one group."""
    row, name = board.row(group.keys, limit), name_of(limit)
    if row is None:
        why = group.missing.get(name) or _why_no_row(limit)
        return _without_number(limit, group, f"{limit.metric} has no value: {why}.")
    if (reason := _spoilt(limit, group)) is not None:
        return _verdict(limit, group, row, Outcome.INVALID, _invalid(limit, row, reason))
    if limit.base is not None:
        return _against(limit, group, row, board)
    held = Held(limit.op, limit.value, *_numbers(row), exact=_is_fact(limit))
    why_bound = group.missing.get(name) if name in QUALITY else None
    sentence = on_value(limit, held, int(row["n"]), why_bound, strict=board.strict)
    return _verdict(limit, group, row, _outcome(held, board), sentence, held.certainty, limit.value)


def _against(limit: Limit, group: Group, row: Mapping[Any, Any], board: Board) -> Verdict:
    """Return the verdict on a limit against a variant."""
    keys = against.base_keys(group.keys, str(limit.base))
    base, base_row = board.groups.get(keys), board.row(keys, limit)
    if base_row is None:
        why = (base and base.missing.get(name_of(limit))) or _why_no_row(limit)
        return _verdict(limit, group, row, Outcome.CANNOT_TELL, f"{limit.base} has no {subject(limit)}: {why}.")
    if base is not None and (reason := _spoilt(limit, base)) is not None:
        return _verdict(limit, group, row, Outcome.INVALID, f"{limit.base}: {_invalid(limit, base_row, reason)}")
    bound = limit.value * float(base_row["value"])
    value = value_or_end(*_numbers(row), unit_of(limit))
    if _is_of_base(limit, group):
        outcome = Held(limit.op, limit.value, 1.0).outcome
        return _verdict(limit, group, row, outcome, f"{subject(limit)} is {value}, 1.00 * itself.", bound=bound)
    if base_row["value"] == 0:
        held = Held(limit.op, bound, *_numbers(row), exact=_is_fact(limit))
        sentence = f"{subject(limit)} is {value}, and 0 in {limit.base}: there is no ratio."
        return _verdict(limit, group, row, _outcome(held, board), sentence, held.certainty, bound)
    starts = _repetitions(limit, (group.keys, keys), board)
    trials = _common(limit, (group.keys, keys), board)
    found = against.ratio_to(name_of(limit), limit, (row, base_row), starts, trials)
    held = Held(limit.op, limit.value, found.value, found.low, found.high, _is_fact(limit))
    sentence = against.in_words(limit, value, held, len(starts), strict=board.strict)
    return _verdict(limit, group, row, _outcome(held, board), sentence, held.certainty, bound)


def _repetitions(limit: Limit, both: tuple[Keys, Keys], board: Board) -> list[tuple[float, float]]:
    """Return the values of both rows in each repetition that has them."""
    numbers = dict.fromkeys(key[len(KEYS) + 1] for key in board.rows if key[: len(KEYS)] == both[0])
    found = ([board.row(keys, limit, number) for keys in both] for number in numbers if number != POOLED)
    return [(float(own["value"]), float(base["value"])) for own, base in found if own is not None and base is not None]


def _common(limit: Limit, both: tuple[Keys, Keys], board: Board) -> list[tuple[Measures, Measures]]:
    own, base = (board.measures.get((keys, limit.class_name or ALL), {}) for keys in both)
    return [(own[number], base[number]) for number in own if number in base]


def _outcome(held: Held, board: Board) -> Outcome:
    return Outcome.CANNOT_TELL if board.strict and held.certainty == LIKELY else held.outcome


def _is_fact(limit: Limit) -> bool:
    """Return whether a number without an interval is a fact about the run, and not an estimate."""
    metric = find(limit.metric)
    if metric is None or limit.statistic in ("max", "min") or metric.name in _OF_THIS_TEXT:
        return True
    return metric.unit == "count" or metric.name in PEAKS or metric in START_AND_MEMORY


def _spoilt(limit: Limit, group: Group) -> Reason | None:
    """Return the doubt that makes a metric invalid, None if there is none."""
    name = name_of(limit)
    own = (
        one
        for one in group.validity.reasons
        if one.level is Level.INVALID and RATE_OF_COST.get(name, name) in one.metrics
    )
    return next(own, None if name in OF_ANY_LOAD else group.load_failed)


def _invalid(limit: Limit, row: Mapping[Any, Any], reason: Reason) -> str:
    number = f" ({shown(float(row['value']), unit_of(limit))})" if math.isfinite(row["value"]) else ""
    return f"{subject(limit)}{number} is invalid: {reason.sentence}"


def _why_no_row(limit: Limit) -> str:
    return f"no request of class {limit.class_name} gave one" if limit.class_name else "no request gave one"


def _without_number(limit: Limit, group: Group, sentence: str) -> Verdict:
    unknown = {"value": math.nan, "low": math.nan, "high": math.nan, "n": 0}
    return _verdict(limit, group, unknown, Outcome.CANNOT_TELL, sentence)


def _numbers(row: Mapping[Any, Any]) -> tuple[float, float, float]:
    return float(row["value"]), float(row["low"]), float(row["high"])


def _verdict(
    limit: Limit,
    group: Group,
    row: Mapping[Any, Any],
    outcome: Outcome,
    sentence: str,
    certainty: str = "",
    bound: float = math.nan,
) -> Verdict:
    numbers = (*_numbers(row), int(row["n"]))
    about = (limit.text, name_of(limit), group.keys, outcome, *numbers, sentence, certainty, bound)
    return Verdict(*about, of_base=_is_of_base(limit, group))


def open_limits(verdicts: Iterable[Verdict]) -> dict[Keys, list[Reason]]:
    """Return a note for each limit that the value decides and the interval does not, by the keys of its row."""
    found: dict[Keys, list[Reason]] = {}
    for one in verdicts:
        if one.certainty == LIKELY:
            advice = "Measure for longer, or repeat, to be sure."
            note = Reason("limit_open", Level.VALID, f"`{one.limit}`: {one.sentence}", advice, (one.metric,))
            found.setdefault(one.keys, []).append(note)
    return found


def exit_code(
    verdicts: Sequence[Verdict], failed_loads: Collection[Keys], *, decide: str, failed_cells: int
) -> ExitCode:
    """Return the exit code of a run.

    Args:
        failed_loads: Keys of the rows whose load was not the planned one.
        decide: "all": every limit must hold in every group. "any": all those of one cell, under all its loads (a choice
            among levels); only cells that might be chosen can then make the run invalid.
        failed_cells: Number of cells and trials that could not be run.
    """
    codes = {ExitCode.TRIAL_FAILED} if failed_cells else set()
    if decide == "any" and verdicts:
        return first_that_applies(codes | _codes_of_choice(verdicts, failed_loads))
    if failed_loads:
        codes.add(ExitCode.INVALID)
    return first_that_applies(codes | {_CODES[verdict.outcome] for verdict in verdicts if not verdict.of_base})


_CODES = {
    Outcome.PASS: ExitCode.HOLDS,
    Outcome.FAIL: ExitCode.LIMIT_BROKEN,
    Outcome.INVALID: ExitCode.INVALID,
    Outcome.CANNOT_TELL: ExitCode.CANNOT_TELL,
}


def _codes_of_choice(verdicts: Sequence[Verdict], failed_loads: Collection[Keys]) -> set[ExitCode]:
    """Return nothing if some cell passes every limit under all its loads; else what kept the cells from passing."""
    cells: dict[Keys, set[ExitCode]] = {}
    for verdict in verdicts:
        cells.setdefault(verdict.keys[:-1], set()).add(_CODES[verdict.outcome])
    for keys in failed_loads:
        if keys[:-1] in cells:
            cells[keys[:-1]].add(ExitCode.INVALID)
    if any(codes == {ExitCode.HOLDS} for codes in cells.values()):
        return set()
    return {code for codes in cells.values() for code in codes} - {ExitCode.HOLDS}


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None
