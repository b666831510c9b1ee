"""Overview: the results of all loads as one table of plain data, from which each writer takes what fits."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import ALL, KEYS, ReportData, keys_of_verdict
from reports.format import MOST_DECIMALS, THIN, amount, between, beyond, grouped, wide
from reports.labels import RESULTS, UNREMARKABLE_RANK, Figure
from reports.names import differing, listed, load_names
from reports.tables.base import TONES, Cell, Rows, by_class, classes, groups, nan, sortable

HEADS = dict(zip(KEYS, ("model", "engine", "quantization", "variant", "load"), strict=True))
MARKS = {"fail": "✗", "invalid": "!", "cannot_tell": "?"}
WIDE, DOUBTED, POOR = "~", "*", "( )"
FOOT = {
    WIDE: "short test, wide interval",
    DOUBTED: "may be off by more than the tolerance",
    POOR: "not reliable",
}
NOT_OF_LOAD = ("users", "asked", "cap", "memory", "gpu_memory", "startup")  # that no poor load makes wrong
PARTS = {"total_tokens_per_s": "output_tokens_per_s"}  # whose caveats a sum shares
BARE = ("value", "p50", "p95")  # of a metric named without a statistic, those that it has
SECONDS_FROM_MS = 1000.0
LEAST_SHOWN, WHOLE_FROM = 1e-3, 100.0


@dataclass(frozen=True, slots=True)
class Line:
    """Results of one load on one configuration.

    Attributes:
        keys: Those of the summary.
        place: Its values of `Overview.heads`, the load last.
        cells: One for each of `Overview.figures`.
        mark: Worst outcome of its limits, or what became of a trial that is not complete.
    """

    keys: tuple[str, ...]
    place: tuple[str, ...]
    cells: tuple[Cell, ...]
    mark: Cell


@dataclass(frozen=True, slots=True)
class Overview:
    """Results of a run.

    Attributes:
        heads: Names of the keys in which configurations differ, and "load".
        figures: Numbers that at least one line has.
        units: Unit of each figure.
        lines: One for each load, and one for each class of its traffic.
        foot: Signs with their meaning, see `foot_of`, and where latencies begin if not all alike.
        chosen: Whether the scenario chose the figures.
    """

    heads: tuple[str, ...]
    figures: tuple[Figure, ...]
    units: tuple[str, ...]
    lines: tuple[Line, ...]
    foot: tuple[tuple[str, str], ...]
    chosen: bool = False


def overview(data: ReportData) -> Overview:
    """Return the results of every trial that was tried; repetitions are pooled."""
    wanted = figures_of(data)
    used = [*(number for number in differing(data) if number < len(KEYS) - 1), len(KEYS) - 1]
    found = list(rows_of(data))
    origins = _origins(data)
    shown = [figure for figure in wanted if any(_has(rows.get(figure.key)) for _, _, _, rows in found)]
    if chosen_columns(data) is None:
        shown = [_ranked(figure, [rows for *_, rows in found]) for figure in shown]
    scales = {over: _scale(over, shown, [rows for *_, rows in found]) for over in {one.over for one in shown}}
    lines, short = [], load_names(data)
    for keys, name, mark, rows in found:
        place = [keys[number] for number in used]
        place[-1] = short.get(keys[-1], keys[-1]) + ("" if name == ALL else f" · {name}")
        cells = (_cell(data, keys, rows.get(figure.key), figure, scales[figure.over]) for figure in shown)
        lines.append(Line(keys, tuple(place), tuple(cells), mark))
    units = tuple(_unit(figure, scales[figure.over], origins) for figure in shown)
    heads = tuple(HEADS[KEYS[number]] for number in used)
    foot = list(FOOT.items())
    if not _one_origin(origins):
        several = len(origins) > 1
        where = "; ".join(f"{listed(names)} {origin}" if several else origin for origin, names in origins.items())
        foot.append(("TTFT, E2E", f"count {where}"))
    return Overview(heads, tuple(shown), units, tuple(lines), tuple(foot), chosen_columns(data) is not None)


def foot_of(found: Overview, cells: Iterable[Cell]) -> list[tuple[str, str]]:
    """Return the lines of the foot, without signs that none of the shown cells bears."""
    texts = [cell.text for cell in cells]
    return [(sign, text) for sign, text in found.foot if sign not in FOOT or any(_bears(one, sign) for one in texts)]


def chosen_columns(data: ReportData) -> list[str] | None:
    """Return the columns that the scenario or the command chose; None for those that fit."""
    chosen = getattr(data.manifest.scenario_keys, "columns", None)
    return [str(one) for one in chosen] if chosen else None


def figures_of(data: ReportData) -> list[Figure]:
    """Return the figures to show, in the order of the choice if there is one."""
    chosen = chosen_columns(data)
    if chosen is None:
        return list(RESULTS)
    shows = {one["name"]: (one["show"], one["unit"]) for one in data.definitions}
    found: dict[tuple[str, str], Figure] = {}
    for number, text in enumerate(chosen, 1):
        metric, _, statistic = text.partition(" ")
        family = [one for one in RESULTS if text in (one.family, one.metric, " ".join(one.key))]
        own = (
            [_figure(metric, one, *shows[metric]) for one in ([statistic] if statistic else BARE)]
            if metric in shows
            else []
        )
        for figure in family or own:
            found.setdefault(figure.key, replace(figure, rank=number))
    return list(found.values())


def _figure(metric: str, statistic: str, show: str, unit: str) -> Figure:
    """Return a figure of a metric that the table does not have by default; its head is that of its metric's family."""
    over = next((one.over for one in RESULTS if one.metric == metric), "")
    over = over or (metric.removesuffix(f"_{unit}") if show == "time" else metric)
    unit = "" if show == "time" else unit
    return Figure("", over, statistic, metric, statistic, show, unit, estimated=statistic != "max")


def computed(data: ReportData, trials: Sequence[tuple[CellEntry, TrialEntry]], rows: Rows) -> Rows:
    """Return numbers that the summary lacks, as rows of it.

    They are users, asked_rps, max_concurrency, total_tokens_per_s and peak_in_flight.
    """
    users = {trial.users for _, trial in trials}
    offered = rows.get(("offered_rps", "value"))
    asked = trials[0][1].rate or (nan(offered["value"]) if offered else math.nan)
    both = [rows.get((f"{kind}_tokens_per_s", "value")) for kind in ("input", "output")]
    peaks = [data.facts_of(cell.id, trial.id).get("peak_in_flight") for cell, trial in trials]
    values = {
        "users": float(next(iter(users)) or math.nan) if len(users) == 1 else math.nan,
        "asked_rps": math.nan if trials[0][1].loop == "closed" else asked,  # nobody asks for a rate there
        "max_concurrency": float(trials[0][1].max_concurrency or math.nan),
        "total_tokens_per_s": sum(nan(row["value"]) if row else math.nan for row in both),
        "peak_in_flight": max((float(one) for one in peaks if one is not None), default=math.nan),
    }
    bare = {"low": math.nan, "high": math.nan, "bound": "point", "n": 1}
    return {(name, "value"): {"value": value, **bare} for name, value in values.items() if math.isfinite(value)}


def rows_of(data: ReportData) -> list[tuple[tuple[str, ...], str, Cell, Rows]]:
    """Return keys, class, mark and numbers of each line: the rows of the summary by (metric, statistic)."""
    known, found = by_class(data), []
    for keys, trials in groups(data).items():
        if all(trial.status in ("pending", "skipped") for _, trial in trials):
            continue
        for name in (ALL, *classes(data, keys)):
            rows = dict(known.get((*keys, name), {}))
            if name == ALL:
                rows |= computed(data, trials, rows)
            found.append((keys, name, _mark(data, keys, trials) if name == ALL else Cell(""), rows))
    return found


def _mark(data: ReportData, keys: tuple[str, ...], trials: Sequence[tuple[CellEntry, TrialEntry]]) -> Cell:
    statuses = {trial.status for _, trial in trials}
    broken = next((status for status in ("failed", "interrupted") if status in statuses), "")
    if broken:
        return Cell(broken, tone="bad")
    outcomes = {one["outcome"] for one in data.verdicts if keys_of_verdict(one) == keys}
    worst = next((kind for kind in MARKS if kind in outcomes), "")
    return Cell(MARKS.get(worst, ""), tone=TONES.get(worst, "bad" if worst else ""))


def _ranked(figure: Figure, rows: Sequence[Rows]) -> Figure:
    """Return a figure with a high rank if it tells nothing: errors where there are none."""
    if figure.family != "errors" or any(nan(one[figure.key]["value"]) > 0 for one in rows if figure.key in one):
        return figure
    return replace(figure, rank=UNREMARKABLE_RANK)


def _has(row: Mapping[str, Any] | None) -> bool:
    return row is not None and any(math.isfinite(nan(row[name])) for name in ("value", _known_end(row)))


def _known_end(row: Mapping[str, Any]) -> str:
    """Return the end that is known of a number without a value: a cost is at most that of the tokens counted."""
    return "high" if row["bound"] == "upper" else "low"


def _scale(over: str, figures: Sequence[Figure], rows: Sequence[Rows]) -> float:
    """Return the divisor of a group of times: they are shown in seconds if most are longer than one."""
    keys = [one.key for one in figures if one.over == over and one.show == "time"]
    values = [nan(one[key]["value"]) for key in keys for one in rows if key in one]
    known = [value for value in values if math.isfinite(value)]
    return SECONDS_FROM_MS if known and median(known) >= SECONDS_FROM_MS else 1.0


def _origins(data: ReportData) -> dict[str, list[str]]:
    """Return the loads by the moment from which their latencies count, in words."""
    found: dict[str, list[str]] = {}
    short = load_names(data)
    for cell, trial in data.trials():
        if origin := data.facts_of(cell.id, trial.id).get("origin"):
            found.setdefault(str(origin), []).append(short.get(trial.load, trial.load))
    return found


def _one_origin(origins: Collection[str]) -> bool:
    """Return whether all latencies count from the same moment; those of conversations do not, nor of several loads."""
    return len(origins) < 2 and not any("," in origin for origin in origins)


def _unit(figure: Figure, scale: float, origins: Collection[str]) -> str:
    if figure.show != "time":
        return figure.unit
    unit = "ms" if scale == 1.0 else "s"
    return f"{unit} ({next(iter(origins))})" if origins and _one_origin(origins) and figure.family == "ttft" else unit


def _cell(data: ReportData, keys: tuple[str, ...], row: Mapping[str, Any] | None, figure: Figure, scale: float) -> Cell:
    """Return a number with its signs, and its interval as detail."""
    if row is None or not _has(row):
        return Cell("")
    value, low, high = (nan(row[name]) / scale for name in ("value", "low", "high"))
    if math.isnan(value):
        sign, value = ("<", high) if _known_end(row) == "high" else (">", low)
        text = f"{sign}{THIN}{_number(value, figure.show)}"
    else:
        roughly = figure.estimated and wide(value, low, high, figure.show, beyond(row))
        text = _number(value, figure.show) + (WIDE if roughly else "")
    level, why = "valid", ""
    if not {figure.family, figure.head} & set(NOT_OF_LOAD):
        level, why = data.doubt_of(keys, PARTS.get(figure.metric, figure.metric))
    text = f"({text})" if level == "invalid" else f"{text}{DOUBTED}" if level == "warn" else text
    tone = {"invalid": "bad", "warn": "doubtful"}.get(level, "")
    return Cell(text, _interval(value, low, high, figure.show), tone=tone, value=sortable(value), why=why)


def _number(value: float, show: str) -> str:
    """Return three digits, so that the order of printed numbers is that of the numbers."""
    if show == "count":
        return f"{value:.0f}"
    if show == "share" and 0.9995 <= value < 1.0:
        return f"99.9{THIN}%"
    if 0 < value < LEAST_SHOWN and show != "share":
        return f"<{amount(LEAST_SHOWN)}"
    return amount(float(f"{value:.3g}") if abs(value) < WHOLE_FROM else value, show=show)


def _interval(value: float, low: float, high: float, show: str) -> str:
    """Return "52.1 to 55.0", with the digits of the value, and more if its ends would look the same."""
    if not math.isfinite(high - low) or low == high:
        return ""
    if show in ("share", "bytes") or not value:
        return between(low, high, show)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    texts = ([grouped(f"{end:.{more}f}") for end in (low, high)] for more in range(digits, MOST_DECIMALS + 1))
    return next((" to ".join(pair) for pair in texts if pair[0] != pair[1]), "")


def _bears(text: str, sign: str) -> bool:
    return text.startswith("(") if sign == POOR else sign in text
