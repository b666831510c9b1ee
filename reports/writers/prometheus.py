"""Prometheus export: the summary in text format, for a textfile collector or a push gateway.

There is one gauge per metric, in base units: milliseconds of `docs/metrics.md` are seconds here, shares lie between 0
and 1. Only rows that pool all repetitions are exported. Ends of intervals are gauges of their own, `_low` and `_high`;
if only a bound is known, only that one is there. Invalid trials have no results, and `harness_trial_validity` says so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.store.manifest import CellEntry, TrialEntry
from reports.data import KEYS, POOLED, ReportData, keys_of

PREFIX = "harness_"
VALIDITY = {"valid": 0, "warn": 1, "invalid": 2}
OUTCOME = {"pass": 0, "fail": 1, "invalid": 2, "cannot_tell": 3}
_COLUMNS = (
    ("value", "", ""),
    ("low", "_low", "Lower end of the 95 % interval, or a bound from below: "),
    ("high", "_high", "Upper end of the 95 % interval, or a bound from above: "),
)


@dataclass(frozen=True, slots=True)
class Series:
    """A gauge with one set of labels."""

    labels: Mapping[str, str]
    value: float


def write(data: ReportData, file: Path) -> None:
    """Replace the file as a whole, for a collector may read it at any moment. Raises OSError if that fails."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(render(data), encoding="utf-8", newline="\n")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def render(data: ReportData) -> str:
    """Return the text."""
    parts = [*_metrics(data), *_validity(data), *_limits(data), *_run(data)]
    return "".join(line + "\n" for part in parts for line in part)


def name_of(metric: str, unit: str) -> tuple[str, float]:
    """Return (name of the gauge, factor to its unit): times in seconds, everything else as it is."""
    if unit == "ms":
        return f"{PREFIX}{metric.removesuffix('_ms')}_seconds", 1e-3
    if unit == "s":
        return f"{PREFIX}{metric.removesuffix('_s')}_seconds", 1.0
    return f"{PREFIX}{metric}", 1.0


def _metrics(data: ReportData) -> Iterator[list[str]]:
    definitions = {one["name"]: one for one in data.definitions}
    rows = data.summary[data.summary["repetition"] == POOLED].to_dict("records")
    kept = [row for row in rows if data.verdict_of([str(row[key]) for key in KEYS]) != "invalid"]
    by_metric: dict[str, list[dict[Any, Any]]] = {}
    for row in kept:
        by_metric.setdefault(str(row["metric"]), []).append(row)
    for metric, found in by_metric.items():
        unit = str(found[0]["unit"])
        name, factor = name_of(metric, unit)
        about = definitions.get(metric, {}).get("definition", "")
        for column, ending, words in _COLUMNS:
            series = [
                Series(_labels(data, row) | {"class": row["class"], "statistic": row["statistic"]}, value)
                for row in found
                if math.isfinite(value := float(row[column]) * factor)
            ]
            yield _gauge(f"{name}{ending}", f"{words}{about} Unit: {_base(unit)}. In the summary: {metric}.", series)


def _base(unit: str) -> str:
    return "seconds" if unit in ("ms", "s") else "share from 0 to 1" if unit == "share" else unit


def _validity(data: ReportData) -> Iterator[list[str]]:
    series = [
        Series(
            _labels(data, dict(zip(KEYS, keys_of(cell, trial.load), strict=True)))
            | {"repetition": str(cell.repetition)},
            VALIDITY[judged["verdict"]],
        )
        for cell, trial in data.trials()
        if (judged := data.validity_of(cell.id, trial.id))
    ]
    about = "Validity of a trial: 0 valid, 1 warn, 2 invalid. Results of invalid trials are left out."
    yield _gauge(f"{PREFIX}trial_validity", about, series)


def _limits(data: ReportData) -> Iterator[list[str]]:
    series = [
        Series(_labels(data, verdict) | {"limit": verdict["limit"]}, OUTCOME[verdict["outcome"]])
        for verdict in data.verdicts
    ]
    yield _gauge(f"{PREFIX}limit_outcome", "Outcome of a limit: 0 pass, 1 fail, 2 invalid, 3 cannot tell.", series)


def _run(data: ReportData) -> Iterator[list[str]]:
    run = {"run": data.title}
    if data.exit_code is not None:
        yield _gauge(f"{PREFIX}run_exit_code", "The exit code of the run.", [Series(run, data.exit_code)])
    created = data.manifest.created_utc
    if created:
        at_s = datetime.fromisoformat(str(created)).timestamp()
        yield _gauge(f"{PREFIX}run_created_seconds", "When the run began, Unix time.", [Series(run, at_s)])


def _named(cell: CellEntry, trial: TrialEntry) -> dict[str, str]:
    return dict(zip(KEYS, keys_of(cell, trial.load), strict=True))


def _labels(data: ReportData, row: Mapping[Any, Any]) -> dict[str, str]:
    return {"run": data.title} | {key: str(row[key] or "") for key in KEYS}


def _gauge(name: str, about: str, series: Iterable[Series]) -> list[str]:
    """Return the lines of one gauge; none if there is nothing to say."""
    known = {_in_braces(one.labels): one.value for one in series}  # a limit may stand twice in a scenario
    lines = [f"{name}{labels} {value:.12g}" for labels, value in known.items()]
    if not lines:
        return []
    return [
        f"# HELP {name} {about.replace(chr(92), chr(92) * 2).replace(chr(10), ' ')}",
        f"# TYPE {name} gauge",
        *lines,
    ]


def _in_braces(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", " ")
