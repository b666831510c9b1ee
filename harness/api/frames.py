"""Data frames of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.analysis.columns import NS_PER_MS, NS_PER_S, Columns
from harness.analysis.latencies import of_each
from harness.analysis.reading import read
from harness.store.run import Run
from reports.data import ALL, KEYS, keys_of
from reports.labels import DATA
from reports.tables.overview import figures_of, rows_of

if TYPE_CHECKING:
    from harness.store.manifest import CellEntry, TrialEntry
    from reports.data import ReportData


def wide(data: ReportData) -> pd.DataFrame:
    """Return one row for each configuration and load (see `RunResult.summary`)."""
    rows = [
        {**_named(keys), "data": DATA.get(data.verdict_of(keys), ""), **_numbers(data, numbers)}
        for keys, class_name, _, numbers in rows_of(data)
        if class_name == ALL
    ]
    found = pd.DataFrame(rows, columns=None if rows else [*map(_name, KEYS)])
    return found.drop(columns=[name for name in found if found[name].isin(["", np.nan]).all()])


def _name(key: str) -> str:
    return "quantization" if key == "level" else key


def _named(keys: Sequence[str]) -> dict[str, str]:
    return {_name(key): value for key, value in zip(KEYS, keys, strict=True)}


def _numbers(data: ReportData, rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> dict[str, float]:
    """Return the numbers of the results table, or those that `columns` chooses, with the ends of their intervals."""
    found: dict[str, float] = {}
    for figure in figures_of(data):
        row = rows.get(figure.key, {})
        metric, statistic = figure.key
        name = metric if statistic == "value" else f"{metric}_{statistic}"
        found[name] = row.get("value", np.nan)
        if figure.estimated:
            found |= {f"{name}_{end}": row.get(end, np.nan) for end in ("low", "high")}
    return found


def limits(data: ReportData) -> pd.DataFrame:
    """Return one row for each limit and load (see `RunResult.limits`)."""
    names = (*KEYS, "limit", "outcome", "certainty", "value", "low", "high", "sentence")
    found = pd.DataFrame([{name: one[name] for name in names} for one in data.verdicts], columns=list(names))
    return found.rename(columns=_name)


def caveats(data: ReportData) -> pd.DataFrame:
    """Return one row for each caveat of a trial (see `RunResult.caveats`)."""
    names = (*map(_name, KEYS), "repetition", "code", "level", "finding", "advice")
    return pd.DataFrame(list(_caveats(data)), columns=list(names))


def _caveats(data: ReportData) -> Iterator[dict[str, Any]]:
    for cell, trial in data.trials():
        where = {**_named(keys_of(cell, trial.load)), "repetition": cell.repetition}
        for one in (data.validity_of(cell.id, trial.id) or {}).get("reasons", ()):
            what = {"code": one["code"], "finding": one["sentence"], "advice": one["advice"]}
            yield {**where, "level": DATA[one["level"]], **what}


def requests(run: Path) -> pd.DataFrame:
    """Return one row for each request of a stored run (see `RunResult.requests`)."""
    frames = [_requests(one.cell, one.trial, read(one).columns) for one in Run.open(run).trials()]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _requests(cell: CellEntry, trial: TrialEntry, columns: Columns) -> pd.DataFrame:
    """Return the requests of a trial in due order.

    lag_ms: from due, or from the end of the reply before, to sent, without held_ms: the wait for a place under a cap.
    """
    times, counts = columns.times, columns.counts
    return pd.DataFrame(
        {
            **{name: value for name, value in _named(keys_of(cell, trial.load)).items() if value},
            "rate": np.nan if trial.rate is None else float(trial.rate),
            "users": np.nan if trial.users is None else float(trial.users),
            "repetition": cell.repetition,
            "request": columns.request,
            "phase": columns.phase,
            "class": columns.class_name,
            "status": columns.status,
            "due_s": times["due"] / NS_PER_S,
            **of_each(columns),
            "lag_ms": (times["sent"] - times["due"] - np.nan_to_num(times["held"])) / NS_PER_MS,
            "held_ms": times["held"] / NS_PER_MS,
            "prompt_tokens": counts["prompt_tokens"],
            "output_tokens": counts["output_tokens"],
        }
    )
