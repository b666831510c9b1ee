"""The rows of a decision table: what is known of each engine, level and variant of a model, its repetitions together.

A value is {value, low, high, bound, n, unit, source, reason}: None where it is unknown, and then `reason` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import ALL
from harness.analysis.samples.machine import LOAD_PEAKS
from harness.analysis.stats import t_interval
from harness.analysis.summary import KEYS, POOLED
from harness.metrics import METRICS, SCALAR
from harness.quality.figures import LOAD as QUALITY_LOAD
from harness.quality.summary import why_missing
from harness.schedule.cells import bits, is_full
from harness.store.manifest import (
    CellEntry,
    EngineEntry,
    Manifest,
    NamedReference,
    QualityEntry,
    StartEntry,
    TrialEntry,
)
from harness.verdict.quality import word
from harness.verdict.reason import Level, Validity, worst

if TYPE_CHECKING:
    import pandas as pd

Value = dict[str, Any]
RowKey = tuple[str, str, str, str]
PEAKS = ("memory_peak_bytes", "rss_peak_bytes", "gpu_memory_peak_bytes", *LOAD_PEAKS)
UNDER_LOAD = {
    "output_tokens_per_s": ("output_tokens_per_s", SCALAR),
    "output_tokens_per_s_per_user": ("output_tokens_per_s_per_user", "p50"),
    "completed_rps": ("completed_rps", SCALAR),
    "ttft_p95_ms": ("ttft_ms", "p95"),
    "tpot_p95_ms": ("tpot_ms", "p95"),
    "e2e_p95_ms": ("e2e_ms", "p95"),
    "e2e_mean_ms": ("e2e_ms", "mean"),
    "error_rate": ("error_rate", SCALAR),
    "attainment": ("attainment", SCALAR),
    "mean_concurrency": ("mean_concurrency", SCALAR),
    **{name: (name, SCALAR) for name in PEAKS},
}
QUALITY = ("kl_mean", "kl_bound", "top1_agreement", "ppl_ratio")
START = ("load_s", "load_warm_s", "first_request_ms", "rss_after_load_bytes")
_STATUSES = ("failed", "interrupted", "running", "pending", "skipped")
_WHY_UNKNOWN = {
    "parameters": "the engine does not say how many parameters the model has",
    "weight_bytes": "the engine does not say how large its weights are",
    "kv_bytes_per_token": "the engine does not say what a token takes in its KV cache",
    "level": "the engine does not say which level it loaded",
}


@dataclass
class Row:
    """What is known of one row. key: model, engine, level, variant.   cells: of the manifest, by repetition.

    validity: of each load, the worst of its repetitions.   missing: why a metric has no value, by load.
    plans: the plan of each load in each repetition.   kinds: of each load.   loads: values under each load.
    speeds: one user's median speed under each load in each repetition.   word: for the quality, "" where unknown.
    reference_level: as which the reference of its quality was loaded.   label: its name among the rows of its model.
    kv_used: bytes of its KV cache that were in use at most.   pages: the kinds of server whose pages were read.
    """

    key: RowKey
    cells: list[CellEntry]
    validity: dict[str, Level] = field(default_factory=dict)
    missing: dict[str, Mapping[str, str]] = field(default_factory=dict)
    plans: dict[str, dict[int, str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    loads: dict[str, dict[str, Value]] = field(default_factory=dict)
    speeds: dict[str, dict[str, float]] = field(default_factory=dict)
    word: str = ""
    reference_level: str | None = None
    label: str = ""
    kv_used: float | None = None
    pages: set[str] = field(default_factory=set)

    @property
    def status(self) -> str:
        """ "complete", or what became of the cell of it that came off worst."""
        found = {cell.status for cell in self.cells}
        return next((status for status in _STATUSES if status in found), "complete")

    @property
    def reason(self) -> str:
        """Why it is not complete."""
        broken = [cell for cell in self.cells if cell.status == self.status]
        return broken[0].reason or "" if self.status != "complete" else ""

    @property
    def info(self) -> EngineEntry:
        """What the engine said of itself."""
        return next((cell.engine_info for cell in self.cells if not cell.engine_info.is_empty), EngineEntry())

    def points(self, load: str, name: str) -> Value:
        """A value under a load."""
        return self.loads.get(load, {}).get(name) or unknown(self.reason or "this load was not measured")


def name_rows(rows: Sequence[Row]) -> None:
    """Label the rows of a model: engine, level and variant, the engine left out where they all have the same."""
    same = len({row.key[1] for row in rows}) == 1
    for row in rows:
        told = row.key[2:] if same and any(row.key[2:]) else row.key[1:]
        row.label = " · ".join(part for part in told if part)


def known(value: float, low: float = math.nan, high: float = math.nan, **about: Any) -> Value:
    """A value; n, unit, source and reason may be told."""
    numbers = {"value": value, "low": _finite(low), "high": _finite(high), "bound": "point"}
    return numbers | {"n": 0, "unit": "", "source": "", "reason": ""} | about


def unknown(reason: str, unit: str = "") -> Value:
    """No value, and why."""
    return known(math.nan, unit=unit, reason=reason) | {"value": None}


def rows_of(
    manifest: Manifest,
    summary: pd.DataFrame,
    validity: Mapping[tuple[str, str], Validity],
    facts: Mapping[tuple[str, str], Mapping[str, Any]],
) -> list[Row]:
    """Every row of a run in the order of its cells; skipped and failed ones too."""
    found: dict[RowKey, Row] = {}
    for cell in manifest.cells:
        row = found.setdefault(cell.keys, Row(cell.keys, []))
        row.cells.append(cell)
        for trial in cell.trials:
            _add_trial(row, cell, trial, validity, facts)
    index = _index(summary)
    for row in found.values():
        row.reference_level = reference_level(quality_facts([row]), manifest.cells)
        _fill(row, index)
    return list(found.values())


def _add_trial(
    row: Row,
    cell: CellEntry,
    trial: TrialEntry,
    validity: Mapping[tuple[str, str], Validity],
    facts: Mapping[tuple[str, str], Mapping[str, Any]],
) -> None:
    load, key = trial.load, (cell.id, trial.id)
    row.kinds[load] = trial.kind
    if trial.plan_hash:
        row.plans.setdefault(load, {})[cell.repetition] = trial.plan_hash
    if key in validity:
        row.validity[load] = worst(validity[key].verdict, row.validity.get(load, Level.VALID))
    if key in facts:
        row.missing.setdefault(load, facts[key]["missing"])
        used = (facts[key].get("memory") or {}).get("kv_used_bytes")
        row.kv_used = row.kv_used if used is None else max(used, row.kv_used or 0.0)
        pages = (facts[key].get("server") or {}).get("pages") or ()
        row.pages |= {kind for page in pages for kind in str(page.get("kind") or "").split("+")}


def _index(summary: pd.DataFrame) -> dict[tuple[str, ...], dict[str, Any]]:
    """The rows for all classes together, by keys, repetition, metric and statistic."""
    shown = {metric for metric, _ in UNDER_LOAD.values()} | {*QUALITY}
    own = summary[(summary["class"] == ALL) & summary["metric"].isin(shown)]
    names = (*KEYS, "repetition", "metric", "statistic")
    return {tuple(str(row[name]) for name in names): row for row in own.to_dict("records")}  # type: ignore[misc]


def _fill(row: Row, index: Mapping[tuple[str, ...], Mapping[str, Any]]) -> None:
    for load in dict.fromkeys(row.kinds):
        invalid = row.validity.get(load) is Level.INVALID
        row.loads[load] = {
            name: unknown(row.reason or f"its trial {load} is invalid")
            if invalid and name not in LOAD_PEAKS
            else _measured(row, index, load, metric, statistic)
            for name, (metric, statistic) in UNDER_LOAD.items()
        }
        row.speeds[load] = {} if invalid else _speeds(row, index, load)
    row.values |= _of_engine(row)
    row.values |= {name: _of_starts(row, name) for name in START}
    row.values |= {name: _peak(row, name) for name in PEAKS}
    row.values |= {name: _quality(row, index, name) for name in QUALITY}
    if is_full(row.reference_level) and is_known(row.values["kl_mean"]):
        row.word = word(_ends(row.values["kl_mean"]), _ends(row.values["top1_agreement"]))


def _measured(
    row: Row, index: Mapping[tuple[str, ...], Mapping[str, Any]], load: str, metric: str, statistic: str
) -> Value:
    found = index.get((*row.key, load, POOLED, metric, statistic))
    if found is not None:
        return _of_summary(found)
    why = row.missing.get(load, {}).get(metric) or row.reason or "no request gave one"
    return unknown(why, METRICS[metric].unit if metric in METRICS else "")


def _of_summary(found: Mapping[str, Any]) -> Value:
    value = _finite(float(found["value"]))
    low, high = _finite(float(found["low"])), _finite(float(found["high"]))
    about = {"n": int(found["n"]), "unit": str(found["unit"]), "source": str(found["source"])}
    reason = "" if value is not None else "only a bound is known: some requests never got that far"
    return {"value": value, "low": low, "high": high, "bound": str(found["bound"]), "reason": reason} | about


def _speeds(row: Row, index: Mapping[tuple[str, ...], Mapping[str, Any]], load: str) -> dict[str, float]:
    """The median speed of one user in each repetition."""
    metric, statistic = UNDER_LOAD["output_tokens_per_s_per_user"]
    found = {}
    for repetition in dict.fromkeys(str(cell.repetition) for cell in row.cells):
        one = index.get((*row.key, load, repetition, metric, statistic))
        if one is not None and math.isfinite(one["value"]):
            found[repetition] = float(one["value"])
    return found


def _of_engine(row: Row) -> dict[str, Value]:
    info = row.info
    nothing = row.reason or "the engine says nothing of itself"
    if info.is_empty:
        names = ("bits_per_weight", "weight_bytes", "weights_in_memory_bytes", "kv_bytes_per_token", "parameters")
        return {name: unknown(nothing) for name in names}
    in_memory, size, parameters = info.memory.get("weights"), info.weight_bytes, info.parameters
    found = {
        "weight_bytes": _told("weight_bytes", size, "bytes"),
        "parameters": _told("parameters", parameters, "parameters"),
        "kv_bytes_per_token": _told("kv_bytes_per_token", info.kv_bytes_per_token, "bytes"),
        "weights_in_memory_bytes": known(in_memory, unit="bytes", source="engine")
        if in_memory
        else unknown("the engine does not say", "bytes"),
    }
    return found | {"bits_per_weight": _bits(info.level or row.key[2], size, in_memory, parameters)}


def _bits(level: str, on_disk: float | None, in_memory: float | None, parameters: float | None) -> Value:
    """Bits of a weight, from the files, or from memory where those are nearer to what the level's name says: levels may
    be made while loading, and memory may hold copies laid out anew.
    """
    if not parameters:
        return unknown(_WHY_UNKNOWN["parameters"], "bits")
    sizes = {"weight files": on_disk, "weights in memory": in_memory}
    found = {source: size * 8 / parameters for source, size in sizes.items() if size}
    if not found:
        return unknown(_WHY_UNKNOWN["weight_bytes"], "bits")
    named = bits(level)
    source = min(found, key=lambda one: abs(found[one] - named)) if named else next(iter(found))
    return known(found[source], unit="bits", source=source)


def _told(name: str, value: float | None, unit: str) -> Value:
    return known(float(value), unit=unit, source="engine") if value else unknown(_WHY_UNKNOWN[name], unit)


def _of_starts(row: Row, name: str) -> Value:
    """The mean over the starts, of which a cell has one, or one for each of its trials."""
    unit = METRICS[name].unit
    starts = [start for cell in row.cells for start in _starts(cell)]
    values = [float(value) for start in starts if (value := getattr(start, name)) is not None]
    if not values:
        notes = [start.load_note for start in starts if start.load_note and name == "load_warm_s"]
        return unknown(notes[0] if notes else row.reason or "it was not measured at the start", unit)
    found = t_interval(values)
    reason = _why_not_cold(starts) if name == "load_s" else ""
    low = max(0.0, found.low) if math.isfinite(found.low) else found.low
    return known(found.value, low, found.high, n=len(values), unit=unit, source="start", reason=reason)


def _why_not_cold(starts: Sequence[StartEntry]) -> str:
    """Empty where each start was cold, or has no weight files."""
    warm = [start for start in starts if not start.load_cold]
    if not warm:
        return ""
    shares = [start.load_dropped_share for start in warm if start.load_dropped_share is not None]
    if not shares:
        return "the system does not tell whether the weight files left the file cache: perhaps not cold"
    return f"{1 - min(shares):.0%} of the weight files stayed in the file cache: perhaps not cold"


def _starts(cell: CellEntry) -> Sequence[StartEntry]:
    """Each start of a cell once."""
    of_trials: list[StartEntry] = []
    for trial in cell.trials:
        if trial.start is not None and not trial.start.is_empty and trial.start not in of_trials:
            of_trials.append(trial.start)
    return of_trials or [start for start in (cell.start,) if not start.is_empty]


def _peak(row: Row, name: str) -> Value:
    """The largest over all loads; where one of them is invalid only a bound, for it may have been the largest. What a
    start took has nothing to do with that.
    """
    found = [values[name] for values in row.loads.values()]
    seen = [one for one in found if one["value"] is not None]
    spoiled = [load for load, level in row.validity.items() if level is Level.INVALID]
    if not seen:
        return found[0] if found else unknown(row.reason or "nothing was measured", "bytes")
    largest = max(seen, key=lambda one: float(one["value"]))
    if not spoiled or name in LOAD_PEAKS:
        return largest
    why = f"at least: the trial {spoiled[0]} is invalid"
    return largest | {"value": None, "low": largest["value"], "bound": "lower", "reason": why}


def _quality(row: Row, index: Mapping[tuple[str, ...], Mapping[str, Any]], name: str) -> Value:
    found = index.get((*row.key, QUALITY_LOAD, POOLED, name, SCALAR))
    scored = [cell for cell in row.cells if cell.quality is not None]
    why = why_missing(scored[0])[name] if scored else row.reason or "quality was not measured"
    if found is None:
        return unknown(why, METRICS[name].unit)
    value = _of_summary(found)
    return value | {"reason": why} if value["value"] is None else value


def _ends(value: Value) -> tuple[float, float]:
    """Of its interval, or twice the value; of a bound the other end is infinite."""
    if value["value"] is None and value["bound"] == "lower":
        return value["low"], math.inf
    low, high = (value["value"] if value[end] is None else value[end] for end in ("low", "high"))
    return (math.nan, math.nan) if low is None else (low, high)


def is_known(value: Value) -> bool:
    """Whether there is a number, or a bound."""
    return value["value"] is not None or value["bound"] != "point"


def quality_facts(rows: Sequence[Row]) -> QualityEntry:
    """What the first cell that was scored says of how; where none was, the first of which anything is told."""
    told = [cell.quality for row in rows for cell in row.cells if cell.quality is not None]
    return next(iter([one for one in told if one.reference is not None] or told), QualityEntry())


def reference_level(told: QualityEntry, cells: Iterable[CellEntry]) -> str | None:
    """As which the reference was loaded. told: of a cell's quality; before it held the level, that of the cell which
    is the reference.
    """
    named = told.reference or NamedReference()
    if told.reference_level or named.level:
        return told.reference_level or named.level
    same = [cell for cell in cells if named.is_of(cell)]
    return next((cell.engine_info.level for cell in same if not cell.engine_info.is_empty), None)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
