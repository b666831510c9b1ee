"""Writers of summary.csv, summary.parquet, decision.csv and summary.json: the numbers for other programs."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store.manifest import METHOD
from reports.data import KEYS, ReportData
from reports.files import replace

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = (
    *(*KEYS, "class", "repetition", "metric", "statistic"),
    *("value", "low", "high", "bound", "n", "n_eff", "unit", "source", "window", "validity"),
)
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last ones are the first four in full width
_NUMBERS = ("value", "low", "high", "bound", "n", "n_eff", "unit", "source", "window")
_FLOATS = ("value", "low", "high", "n_eff")
_NO_TEXTS = (*_FLOATS, "n")
_TEXTS = ("engine", "level", "variant", "loaded_level", "device", "status", "reason", "repetitions", "limits")
_ALWAYS = ("model", *_TEXTS, "front", "beaten_by", "chosen", "quality")


def as_csv(data: ReportData) -> str:
    """Return the tidy summary: one row per metric, statistic, class and repetition; unknown values are empty."""
    found = _with_validity(data)
    texts = {str(name): found[name].map(safe_cell) for name in found if name not in _NO_TEXTS}
    text: str = found.assign(**texts).to_csv(index=False, float_format="%.9g", lineterminator="\n")
    return text


def _with_validity(data: ReportData) -> pd.DataFrame:
    """Return the summary with the validity of each row's metric; empty if nothing was judged."""
    rows = list(data.summary[[*KEYS, "repetition", "metric"]].astype(str).itertuples(index=False, name=None))
    known = {row: _validity(data, row[:-2], *row[-2:]) for row in dict.fromkeys(rows)}
    return data.summary.assign(validity=[known[row] for row in rows])


def _validity(data: ReportData, keys: tuple[str, ...], repetition: str, metric: str) -> str:
    return data.level_of(keys, metric, repetition) if data.verdict_of(keys, repetition) else ""


def decision_as_csv(data: ReportData) -> str:
    """Return the decision table: a row per engine, level and variant of a model.

    Each value has columns for its interval, for its bound ("lower" or "upper" if an end is open) and for invalid ones,
    also under each load. Unknown values are empty; values that no row has are left out. Units as in `summary.csv`.
    """
    lines = [_decision_row(table["model"], row) for table in data.decisions for row in table["rows"]]
    names = list(dict.fromkeys(name for line in lines for name in line))
    used = [name for name in names if name in _ALWAYS or any(line.get(name) not in (None, "") for line in lines)]
    out = io.StringIO()
    writer = csv.DictWriter(out, used, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writerow({name: safe_cell(name) for name in used})
    writer.writerows({name: safe_cell(value) for name, value in line.items()} for line in lines)
    return out.getvalue()


def safe_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: such a text gets an apostrophe in front (OWASP).

    A carriage return becomes a blank: where lines end with a line feed it would end one too, unquoted.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r", " ")
    return f"'{text}" if value.startswith(_FORMULA) and not _is_number(value) else text


def _is_number(text: str) -> bool:
    """Return True for a number of the decision table."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def _decision_row(model: str, row: dict[str, Any]) -> dict[str, Any]:
    found = {"model": model} | {name: row[name] for name in _TEXTS}
    found |= {"front": row["front"], "beaten_by": "; ".join(row["beaten_by"]), "chosen": row["chosen"]}
    found |= {"quality": row["word"]}
    for name, value in row["values"].items():
        found |= _columns(name, value)
    for load, values in row["loads"].items():
        found |= {f"{load} validity": row["validity"].get(load, "")}
        for name, value in values.items():
            found |= _columns(f"{load} {name}", value)
    return found


def _columns(name: str, value: dict[str, Any]) -> dict[str, Any]:
    shown = {key: "" if value[key] is None else f"{value[key]:.9g}" for key in ("value", "low", "high")}
    bound = "" if value["bound"] == "point" else value["bound"]
    ends = {f"{name} low": shown["low"], f"{name} high": shown["high"], f"{name} bound": bound}
    return {name: shown["value"], **ends, f"{name} invalid": "yes" if value["invalid"] else ""}


def as_json(data: ReportData) -> str:
    """Return the summary nested, with the facts and validity of trials, limits and decisions."""
    trials = [
        {
            "cell": cell.id,
            "trial": trial.id,
            "status": trial.status,
            "reason": trial.reason,
            "validity": data.validity_of(cell.id, trial.id),
            "facts": data.facts_of(cell.id, trial.id),
        }
        for cell, trial in data.trials()
    ]
    calibration = data.manifest.provenance.calibration
    document = {
        "title": data.title,
        "status": data.manifest.status,
        "method": METHOD,
        "exit_code": data.exit_code,
        "validity": data.verdict(),
        "calibration": None if calibration is None else calibration.stored(),
        "limits": list(data.verdicts),
        "decisions": list(data.decisions),
        "fits": [{name: one for name, one in fit.items() if name != "curve"} for fit in data.fits],
        "users": list(data.users),
        "results": _results(data),
        "trials": trials,
    }
    return json.dumps(_clean(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _results(data: ReportData) -> list[dict[str, Any]]:
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    names = (*KEYS, "repetition")
    for row in data.summary.to_dict("records"):
        keys = tuple(str(row[name]) for name in names)
        if keys not in found:
            validity = {"validity": data.verdict_of(keys[:-1], keys[-1]), "classes": {}}
            found[keys] = dict(zip(names, keys, strict=True)) | validity
        result = found[keys]
        metrics = result["classes"].setdefault(row["class"], {})
        metrics.setdefault(row["metric"], {})[row["statistic"]] = {name: row[name] for name in _NUMBERS}
    return list(found.values())


def _clean(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by null; "bound" has the open side."""
    if isinstance(value, dict):
        return {str(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.9g}") if math.isfinite(value) else None
    return value.item() if hasattr(value, "item") else value


def schema() -> pa.Schema:
    """Return the columns with their types."""
    import pyarrow as pa

    types = dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(_FLOATS, pa.float64()) | {"n": pa.int64()}
    return pa.schema(list(types.items()))


def write(data: ReportData, file: Path) -> Path:
    """Write summary.parquet, over an earlier one; unknown values are null, an open end of an interval infinite."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(_with_validity(data), schema=schema(), preserve_index=False)
    out = pa.BufferOutputStream()
    pq.write_table(table, out, compression="zstd")
    return replace(file, out.getvalue().to_pybytes())
