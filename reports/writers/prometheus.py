"""Prometheus export: the summary in text format, for a textfile collector or a push gateway.

There is one gauge per metric, in base units: milliseconds of `docs/metrics.md` are seconds here, shares lie between 0
and 1. Only rows that pool all repetitions are exported. A number that is unknown is NaN, so that a series does not come
and go from night to night. Ends of intervals are gauges of their own, `_low` and `_high`; an open end has none.
`harness_metric_validity` says how far each number can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from reports.data import KEYS, POOLED, ReportData, keys_of
from reports.files import replace

PREFIX = "harness_"
VALIDITY = {"valid": 0, "warn": 1, "invalid": 2}
OUTCOME = {"pass": 0, "fail": 1, "invalid": 2, "cannot_tell": 3}
_COLUMNS = (
    ("value", "", ""),
    ("low", "_low", "Lower end of the 95 % interval, or a bound from below: "),
    ("high", "_high", "Upper end of the 95 % interval, or a bound from above: "),
)


def write(data: ReportData, file: Path) -> None:
    """Replace the file as a whole, since a collector may read it at any moment. Raises OSError if that fails."""
    replace(file, render(data))


def render(data: ReportData) -> str:
    """Return the text of all gauges."""
    parts = [*_metrics(data), *_validity_of_metrics(data), *_validity(data), *_limits(data), *_run(data)]
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
    by_metric: dict[str, list[dict[Any, Any]]] = {}
    for row in data.summary[data.summary["repetition"] == POOLED].to_dict("records"):
        by_metric.setdefault(str(row["metric"]), []).append(row)
    for metric, found in by_metric.items():
        unit = str(found[0]["unit"])
        name, factor = name_of(metric, unit)
        base = {"ms": "seconds", "s": "seconds", "share": "share from 0 to 1"}.get(unit, unit)
        about = f"{definitions.get(metric, {}).get('definition', '')} Unit: {base}. In the summary: {metric}."
        for column, ending, words in _COLUMNS:
            series = [
                (_labels(data, row) | {"class": row["class"], "statistic": row["statistic"]}, value)
                for row in found
                if math.isfinite(value := float(row[column]) * factor) or column == "value"
            ]
            yield _gauge(f"{name}{ending}", f"{words}{about}", series)


def _validity_of_metrics(data: ReportData) -> Iterator[list[str]]:
    pooled = data.summary[data.summary["repetition"] == POOLED]
    series = []
    for row in pooled[[*KEYS, "metric", "unit"]].drop_duplicates().to_dict("records"):
        keys = [str(row[key] or "") for key in KEYS]
        if data.verdict_of(keys):
            name, _ = name_of(str(row["metric"]), str(row["unit"]))
            series.append((_labels(data, row) | {"metric": name}, VALIDITY[data.level_of(keys, str(row["metric"]))]))
    about = "Validity of a gauge under a load: 0 valid, 1 may be off by more than the tolerance, 2 not reliable."
    yield _gauge(f"{PREFIX}metric_validity", about, series)


def _validity(data: ReportData) -> Iterator[list[str]]:
    series = []
    for cell, trial in data.trials():
        if judged := data.validity_of(cell.id, trial.id):
            keys = dict(zip(KEYS, keys_of(cell, trial.load), strict=True))
            series.append((_labels(data, keys) | {"repetition": str(cell.repetition)}, VALIDITY[judged["verdict"]]))
    yield _gauge(f"{PREFIX}trial_validity", "Validity of a trial: 0 valid, 1 warn, 2 invalid.", series)


def _limits(data: ReportData) -> Iterator[list[str]]:
    series = [
        (_labels(data, verdict) | {"limit": verdict["limit"]}, OUTCOME[verdict["outcome"]]) for verdict in data.verdicts
    ]
    yield _gauge(f"{PREFIX}limit_outcome", "Outcome of a limit: 0 pass, 1 fail, 2 invalid, 3 cannot tell.", series)


def _run(data: ReportData) -> Iterator[list[str]]:
    run = {"run": data.title}
    if data.exit_code is not None:
        yield _gauge(f"{PREFIX}run_exit_code", "The exit code of the run.", [(run, data.exit_code)])
    if data.manifest.created_utc:
        at_s = datetime.fromisoformat(str(data.manifest.created_utc)).timestamp()
        yield _gauge(f"{PREFIX}run_created_seconds", "When the run began, Unix time.", [(run, at_s)])


def _labels(data: ReportData, row: Mapping[Any, Any]) -> dict[str, str]:
    return {"run": data.title} | {key: str(row[key] or "") for key in KEYS}


def _gauge(name: str, about: str, series: Iterable[tuple[Mapping[str, str], float]]) -> list[str]:
    """Return the lines of one gauge from (labels, value); no lines without values."""
    known: dict[str, float] = {}  # a limit may stand twice in a scenario
    for labels, value in series:
        known[",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())] = value
    if not known:
        return []
    help_text = about.replace("\\", "\\\\").replace("\n", " ")
    lines = [f"{name}{{{braced}}} {_number(value)}" for braced, value in known.items()]
    return [f"# HELP {name} {help_text}", f"# TYPE {name} gauge", *lines]


def _number(value: float) -> str:
    return f"{value:.12g}" if math.isfinite(value) else "NaN"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", " ")
