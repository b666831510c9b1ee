"""Limits: one row each, with its worst case, those that are violated first."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports.data import ReportData, keys_of_verdict
from reports.format import THIN, UNKNOWN, amount, dotted, grouped
from reports.labels import RESULTS, Figure
from reports.names import namer
from reports.tables import quality
from reports.tables.base import TONES, Cell, Table, judgement, nan, sortable

ORDER = ("fail", "invalid", "cannot_tell", "pass")
SIGNS = {"fail": "✗", "invalid": "!", "cannot_tell": "?", "pass": "✓"}
WORDS = {"completed_rps": "requests/s", "load_warm_s": "warm startup"}
LEAST_S = 0.001
LONGEST_PLACES = 36
_SHAPE = re.compile(r"(?:(\S+)\.)?(\w+)(?: +(\w[\w.]*))? *(<=|>=|<|>) *(.+)")


@dataclass(frozen=True, slots=True)
class LimitRow:
    """Limit of a run.

    Attributes:
        text: As people write it: "TTFT p95 <= 500 ms".
        outcome: The worst.
        worst: Verdict of the worst case; `place` names it, "" for the only one.
        measured: Its number in the limit's unit, with "sure" or "likely".
        others: Sign and names of the other cases, by outcome.
    """

    text: str
    outcome: str
    worst: Mapping[str, Any]
    place: str
    measured: str
    others: tuple[tuple[str, str], ...]

    @property
    def why(self) -> str:
        """Sentence of a limit without a result; "" where the number says it."""
        return str(self.worst["sentence"]) if self.outcome in ("invalid", "cannot_tell") else ""


def rows(data: ReportData) -> list[LimitRow]:
    """Return one row per limit: violated ones first, then those without a result, then the others."""
    units = {one["name"]: (one["show"], one["unit"]) for one in data.definitions}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for verdict in data.verdicts:
        found.setdefault(verdict["limit"], []).append(verdict)
    name = namer(data)
    made = [
        _row(limit, verdicts, units.get(verdicts[0]["metric"], ("number", "")), name)
        for limit, verdicts in found.items()
    ]
    return sorted(made, key=lambda one: ORDER.index(one.outcome))


def _row(limit: str, verdicts: Sequence[Mapping[str, Any]], shown: tuple[str, str], name: Any) -> LimitRow:
    largest = 1 if "<" in limit else -1
    ordered = sorted(verdicts, key=lambda one: (ORDER.index(one["outcome"]), -largest * _worst_number(one, largest)))
    worst, rest = ordered[0], [one for one in verdicts if one is not ordered[0]]
    places = [name(keys_of_verdict(one)).removesuffix(f" · {quality.LOAD}") for one in (worst, *rest)]
    measured = measured_of(worst, shown)
    if all(one["outcome"] == "pass" and not one["value"] for one in ordered) and worst["metric"] == "error_rate":
        measured, rest = f"0 of {sum(one['n'] for one in ordered)}", []
    place = places[0] if rest else ""
    others = tuple(_others(rest, places[1:] if rest else ()))
    return LimitRow(in_words(limit, shown), worst["outcome"], worst, place, measured, others)


def _worst_number(verdict: Mapping[str, Any], largest: int) -> float:
    """Return the number to sort by, of a limit against a variant the multiple; an unknown one is the worst."""
    value = nan(verdict["value"])
    if "*" in verdict["limit"] and verdict.get("bound"):
        value /= verdict["bound"]
    return value if math.isfinite(value) else math.inf * largest


def _others(rest: Sequence[Mapping[str, Any]], places: Sequence[str]) -> Iterator[tuple[str, str]]:
    for kind in ORDER:
        names = list(dict.fromkeys(place for one, place in zip(rest, places, strict=True) if one["outcome"] == kind))
        if names:
            text = ", ".join(names)
            yield kind, text if len(text) <= LONGEST_PLACES else f"{len(names)} others"


def measured_of(verdict: Mapping[str, Any], shown: tuple[str, str]) -> str:
    """Return the number of a verdict in the unit of its limit, with its certainty; "" if there is none."""
    show, unit = shown
    value, low, high = (nan(verdict[name]) for name in ("value", "low", "high"))
    if math.isfinite(value):
        text = _apart(value, nan(verdict.get("bound")), show, unit)
    elif math.isfinite(low):
        text = f">{THIN}{_with_unit(low, show, unit)}"
    elif math.isfinite(high):
        text = f"<{THIN}{_with_unit(high, show, unit)}"
    else:
        return ""
    if verdict["metric"] == "error_rate" and math.isfinite(value):
        text = f"{round(value * verdict['n'])} of {verdict['n']} ({text})"
    words = [verdict["certainty"]] if verdict.get("certainty") else []
    if "*" in verdict["limit"] and verdict.get("bound") is not None:  # a multiple of another variant's number
        words.append(f"limit {_with_unit(verdict['bound'], show, unit)}")
    return f"{text} ({', '.join(words)})" if words else text


def _with_unit(value: float, show: str, unit: str) -> str:
    if unit == "s" and 0 < abs(value) < LEAST_S:
        return f"<{THIN}{LEAST_S:g} s"
    whole = unit == "count" and float(value).is_integer()
    text = f"{value:,.0f}" if whole else amount(value, show=show)
    return (
        f"{text} {unit}" if show in ("time", "number") and unit not in ("count", "ratio") else text.replace(THIN, " ")
    )


def _apart(value: float, bound: float, show: str, unit: str) -> str:
    """Return a number with its unit, and with as many digits as tell it from a bound: "500.3 ms" of 500 ms."""
    text = _with_unit(value, show, unit)
    if math.isnan(bound) or value == bound or text != _with_unit(bound, show, unit):
        return text
    if show == "bytes":
        return f"{value:,.0f} bytes"
    scale, unit = (100.0, "%") if show == "share" else (1.0, "" if unit in ("count", "ratio") else unit)
    written = (_written(float(f"{value * scale:.{digits}g}")) for digits in range(4, 11))
    told = next((one for one in written if one != _written(bound * scale)), "")
    return f"{told} {unit}".rstrip() if told else text


def _bound(value: float, show: str, unit: str) -> str:
    """Return a limit that was written without a unit."""
    if show == "share":
        return f"{_written(value * 100)} %"
    if show == "bytes":
        return _with_unit(value, show, unit)
    return _written(value) if unit in ("count", "ratio") else f"{_written(value)} {unit}"


def _written(value: float) -> str:
    """Return a limit with all of its digits."""
    text = f"{value:.10g}"
    return text if "e" in text else grouped(text).replace(THIN, " ")


def _label(figure: Figure) -> str:
    """Return the head of a figure without statistic and unit: "TTFT", "SLO met", "goodput"."""
    bare = figure.show == "time" or "/" in figure.head
    return figure.over if bare else f"{figure.over} {figure.head}".strip()


def class_of(limit: str) -> str:
    """Return the class of traffic that a limit is on, "" for all requests."""
    found = _SHAPE.fullmatch(limit.strip())
    return (found[1] if found else "") or ""


def statistic_of(limit: str) -> str:
    """Return the statistic that a limit is on, "" for a single value."""
    found = _SHAPE.fullmatch(limit.strip())
    return (found[3] if found else "") or ""


def in_words(limit: str, shown: tuple[str, str]) -> str:
    """Return a limit with the names of the results table, and with its unit: "TTFT p95 <= 500 ms"."""
    found = _SHAPE.fullmatch(limit.strip())
    if found is None:
        return limit
    class_name, metric, statistic, operator, bound = found.groups()
    words = WORDS.get(metric) or next((_label(one) for one in RESULTS if one.metric == metric), metric)
    try:
        bound = _bound(float(bound), *shown)
    except ValueError:
        bound = re.sub(r"^([\d.]+)(?=[A-Za-z%])", r"\1 ", bound)
    subject = " ".join(part for part in (words, statistic) if part)
    return f"{f'{class_name}: ' if class_name else ''}{subject} {operator} {bound}"


def limits(data: ReportData) -> Table:
    """Return one row per limit, with its worst case and the other cases."""
    lines = []
    for row in rows(data):
        others = dotted(f"{SIGNS[kind]} {names}" for kind, names in row.others)
        value = Cell(row.measured or UNKNOWN, value=sortable(nan(row.worst["value"])))
        about = Cell(row.text, about=row.worst["metric"])
        tone = TONES.get(row.outcome, "bad")
        verdict = Cell(judgement(row.outcome).text, tone=tone)
        lines.append((verdict, about, Cell(row.place), value, Cell(others), Cell(row.why)))
    heads = ("verdict", "limit", "worst case", "measured", "other cases", "reason")
    used = [number for number in range(len(heads)) if any(line[number].text for line in lines)]
    shown = [tuple(line[number] for number in used) for line in lines]
    return Table("Limits", tuple(heads[number] for number in used), shown, texts=len(used))
