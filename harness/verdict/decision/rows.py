"""Rows of a decision table: what is known of each configuration of a model, its repetitions together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from harness.analysis.columns import ALL
from harness.analysis.samples.machine import LOAD_PEAKS
from harness.analysis.stats import t_interval
from harness.analysis.summary import KEYS, POOLED, Measures
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
from harness.verdict.limits.gate import OF_ANY_LOAD, Group, Verdict
from harness.verdict.quality import word
from harness.verdict.reason import Level, Reason, Validity

if TYPE_CHECKING:
    import pandas as pd

RowKey = tuple[str, str, str, str]
PER_USER, ALL_USERS = "output_tokens_per_s_per_user", "output_tokens_per_s"
PEAKS = ("memory_peak_bytes", "rss_peak_bytes", "gpu_memory_peak_bytes", *LOAD_PEAKS)
UNDER_LOAD = {
    ALL_USERS: (ALL_USERS, SCALAR),
    PER_USER: (PER_USER, "p50"),
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
WORST_FIRST = ("fail", "invalid", "cannot_tell", "pass")
_STATUSES = ("failed", "interrupted", "running", "pending", "skipped")
_BY_ENGINE = {
    "weight_bytes": ("bytes", "the engine does not say how large its weights are"),
    "weights_in_memory_bytes": ("bytes", "the engine does not say"),
    "kv_bytes_per_token": ("bytes", "the engine does not say what a token takes in its KV cache"),
    "parameters": ("parameters", "the engine does not say how many parameters the model has"),
}


@dataclass(frozen=True, slots=True)
class Value:
    """A number of a row.

    Attributes:
        value: NaN if unknown; then `low` or `high` may be a bound.
        low: End of the 95 % interval as `high`; NaN if open or unknown.
        reason: Why it is unknown or invalid, or a remark on it.
        invalid: Whether a doubt makes it invalid: it is shown in brackets and compared with nothing.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    bound: str = "point"
    n: int = 0
    unit: str = ""
    source: str = ""
    reason: str = ""
    invalid: bool = False

    @property
    def comparable(self) -> bool:
        """Whether there is a number that other rows may be compared with."""
        return not math.isnan(self.value) and not self.invalid

    @property
    def shown(self) -> bool:
        """Whether there is a number, or a bound."""
        return not (math.isnan(self.value) and self.bound == "point")

    @property
    def ends(self) -> tuple[float, float]:
        """Ends of the interval, or twice the value without one; the open end of a bound is infinite."""
        if math.isnan(self.value):
            return (self.low, math.inf) if self.bound == "lower" else (math.nan, math.nan)
        low, high = (self.value if math.isnan(end) else end for end in (self.low, self.high))
        return low, high

    def as_dict(self) -> dict[str, Any]:
        """JSON-able, for reports."""
        return {name: None if one != one else one for name, one in asdict(self).items()}


def unknown(reason: str, unit: str = "") -> Value:
    """Return no number, and why."""
    return Value(unit=unit, reason=reason)


@dataclass
class Row:
    """Configuration with its measured values.

    Attributes:
        key: Model, engine, level, variant.
        cells: Of the manifest, by repetition.
        validity: Judgement of each load, the doubts of all repetitions together.
        missing: Why a metric has no value, by load.
        plans: Plan of each load in each repetition.
        speeds: Median speed of one user under each load in each repetition, where it is valid.
        measures: What was measured under each load in each repetition, for comparisons request by request.
        reference_level: Level as which the reference of its quality was loaded.
        kv_used: Peak bytes in use of its KV cache.
        pages: Kinds of server whose metrics pages were read.
        verdicts: Of its limits under all its loads.
        front: Whether it is Pareto-optimal; None if unknown.
    """

    key: RowKey
    cells: list[CellEntry]
    validity: dict[str, Validity] = field(default_factory=dict)
    missing: dict[str, Mapping[str, str]] = field(default_factory=dict)
    plans: dict[str, dict[int, str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    loads: dict[str, dict[str, Value]] = field(default_factory=dict)
    speeds: dict[str, dict[str, float]] = field(default_factory=dict)
    measures: dict[str, dict[str, Measures]] = field(default_factory=dict)
    word: str = ""
    reference_level: str | None = None
    label: str = ""
    kv_used: float | None = None
    pages: set[str] = field(default_factory=set)
    verdicts: list[Verdict] = field(default_factory=list)
    front: bool | None = None

    @property
    def status(self) -> str:
        """The worst status of its cells."""
        found = {cell.status for cell in self.cells}
        return next((status for status in _STATUSES if status in found), "complete")

    @property
    def reason(self) -> str:
        """Why it is not complete."""
        broken = [cell for cell in self.cells if cell.status == self.status]
        return broken[0].reason or "" if self.status != "complete" else ""

    @property
    def info(self) -> EngineEntry:
        """Return the engine's report of itself."""
        return next((cell.engine_info for cell in self.cells if not cell.engine_info.is_empty), EngineEntry())

    @property
    def seconds(self) -> float:
        """Mean time of a repetition: of its start and its trials."""
        trials = [(trial.begun_ns, trial.ended_ns) for cell in self.cells for trial in cell.trials]
        starts = [(cell.start.began_ns, cell.start.ready_ns) for cell in self.cells]
        return sum(end - begin for begin, end in trials + starts if begin and end) / 1e9 / len(self.cells)

    @property
    def memory_name(self) -> str:
        """Name of the peak that was read: of GPUs if the engine uses them, else of its processes."""
        device = self.info.device
        used = self.values["gpu_memory_peak_bytes"].shown and (device is None or not device.startswith("cpu"))
        own = "memory_peak_bytes" if "memory_peak_bytes" in self.values else "rss_peak_bytes"
        return "gpu_memory_peak_bytes" if used else own

    @property
    def outcome(self) -> str:
        """Worst outcome of its limits; "" without limits."""
        return min((str(one.outcome) for one in self.verdicts), key=WORST_FIRST.index, default="")

    @property
    def stopped(self) -> tuple[str, str] | None:
        """Cause and reason if it cannot be chosen whatever its limits."""
        if not self.plans or self.status in ("skipped", "failed"):
            status = self.status if self.status != "complete" else "no load"
            return "stopped", f"{self.status}: {self.reason}" if self.reason else status
        for load, judged in self.validity.items():
            limits = tuple(one.limit for one in self.verdicts if one.keys[-1] == load)
            if failure := Group((*self.key, load), limits, judged, {}).load_failed:
                return "invalid", f"the load {load} was not the planned one: {failure.sentence}"
        return None

    def points(self, load: str, name: str) -> Value:
        """A value under a load."""
        return self.loads.get(load, {}).get(name) or unknown(self.reason or "this load was not measured")


def name_rows(rows: Sequence[Row]) -> None:
    """Label the rows of a model: engine, level and variant, the engine left out where they all have the same."""
    same = len({row.key[1] for row in rows}) == 1
    for row in rows:
        told = row.key[2:] if same and any(row.key[2:]) else row.key[1:]
        row.label = " · ".join(part for part in told if part)


def rows_of(
    manifest: Manifest,
    summary: pd.DataFrame,
    validity: Mapping[tuple[str, str], Validity],
    verdicts: Iterable[Verdict],
    facts: Mapping[tuple[str, str], Mapping[str, Any]],
    measures: Iterable[Measures] = (),
) -> list[Row]:
    """Return every row of a run in the order of its cells, skipped and failed ones too."""
    found: dict[RowKey, Row] = {}
    for cell in manifest.cells:
        row = found.setdefault(cell.keys, Row(cell.keys, []))
        row.cells.append(cell)
        for trial in cell.trials:
            _add_trial(row, cell, trial, validity, facts)
    index = _index(summary)
    for verdict in verdicts:
        model, engine, level, variant, _ = verdict.keys
        found[model, engine, level, variant].verdicts.append(verdict)
    for one in measures:
        model, engine, level, variant, load = one.keys
        if one.class_name == ALL:
            found[model, engine, level, variant].measures.setdefault(load, {})[str(one.repetition)] = one
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
        before = row.validity.get(load)
        others = () if before is None else (*before.reasons, *before.notes)
        row.validity[load] = validity[key].with_more(others) if others else validity[key]
    if key in facts:
        row.missing.setdefault(load, facts[key]["missing"])
        used = (facts[key].get("memory") or {}).get("kv_used_bytes")
        row.kv_used = row.kv_used if used is None else max(used, row.kv_used or 0.0)
        pages = (facts[key].get("server") or {}).get("pages") or ()
        row.pages |= {kind for page in pages for kind in str(page.get("kind") or "").split("+")}


def _index(summary: pd.DataFrame) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the rows for all classes together, by keys, repetition, metric and statistic."""
    shown = {metric for metric, _ in UNDER_LOAD.values()} | {*QUALITY}
    own = summary[(summary["class"] == ALL) & summary["metric"].isin(shown)]
    names = (*KEYS, "repetition", "metric", "statistic")
    return {tuple(str(row[name]) for name in names): row for row in own.to_dict("records")}  # type: ignore[misc]


def _fill(row: Row, index: Mapping[tuple[str, ...], Mapping[str, Any]]) -> None:
    for load in row.kinds:
        row.loads[load] = {name: _under_load(row, index, load, *metric) for name, metric in UNDER_LOAD.items()}
        row.speeds[load] = {} if row.loads[load][PER_USER].invalid else _speeds(row, index, load)
    row.values |= _of_engine(row)
    row.values |= {name: _of_starts(row, name) for name in START}
    row.values |= {name: _peak(row, name) for name in PEAKS}
    row.values |= {name: _quality(row, index, name) for name in QUALITY}
    if is_full(row.reference_level) and row.values["kl_mean"].shown:
        row.word = word(row.values["kl_mean"].ends, row.values["top1_agreement"].ends)


def _under_load(
    row: Row, index: Mapping[tuple[str, ...], Mapping[str, Any]], load: str, metric: str, statistic: str
) -> Value:
    found = index.get((*row.key, load, POOLED, metric, statistic))
    if found is None:
        why = row.missing.get(load, {}).get(metric) or row.reason or "no request gave one"
        return unknown(why, METRICS[metric].unit if metric in METRICS else "")
    value, doubt = _of_summary(found), _doubt(row.validity.get(load), metric)
    return value if doubt is None else replace(value, reason=doubt.sentence, invalid=True)


def _doubt(judged: Validity | None, metric: str) -> Reason | None:
    """Return the doubt that makes a metric invalid: one about it, or that the load was not the planned one."""
    doubts = [one for one in judged.reasons if one.level is Level.INVALID] if judged else []
    own = (one for one in doubts if metric in one.metrics)
    of_load = (one for one in doubts if one.is_of_load and metric not in OF_ANY_LOAD)
    return next(own, next(of_load, None))


def _of_summary(found: Mapping[str, Any]) -> Value:
    value, low, high = (_finite(float(found[name])) for name in ("value", "low", "high"))
    reason = "only a bound is known: some requests never got that far" if math.isnan(value) else ""
    return Value(
        value, low, high, str(found["bound"]), int(found["n"]), str(found["unit"]), str(found["source"]), reason
    )


def _speeds(row: Row, index: Mapping[tuple[str, ...], Mapping[str, Any]], load: str) -> dict[str, float]:
    repetitions = dict.fromkeys(str(cell.repetition) for cell in row.cells)
    found = {one: index.get((*row.key, load, one, *UNDER_LOAD[PER_USER])) for one in repetitions}
    return {one: float(of["value"]) for one, of in found.items() if of is not None and math.isfinite(of["value"])}


def _of_engine(row: Row) -> dict[str, Value]:
    info, silent = row.info, row.reason or "the engine says nothing of itself"
    sizes = {name: getattr(info, name, None) or math.nan for name in _BY_ENGINE}
    sizes["weights_in_memory_bytes"] = info.memory.get("weights") or math.nan
    found = {
        name: unknown(silent if info.is_empty else why, unit)
        if math.isnan(sizes[name])
        else Value(float(sizes[name]), unit=unit, source="engine")
        for name, (unit, why) in _BY_ENGINE.items()
    }
    return found | {"bits_per_weight": _bits(info.level or row.key[2], found)}


def _bits(level: str, told: Mapping[str, Value]) -> Value:
    """Return the bits of a weight by the files, or by memory if that is nearer to the number in the level's name.

    Levels may be made while loading, and memory may hold copies in another layout.
    """
    parameters, on_disk, in_memory = (told[name] for name in ("parameters", "weight_bytes", "weights_in_memory_bytes"))
    sizes = {"weight files": on_disk, "weights in memory": in_memory}
    found = {source: size.value * 8 / parameters.value for source, size in sizes.items()}
    known = [source for source, number in found.items() if math.isfinite(number)]
    if not known:
        return unknown(parameters.reason or on_disk.reason, "bits")
    source = min(known, key=lambda one: abs(found[one] - bits(level))) if bits(level) else known[0]
    return Value(found[source], unit="bits", source=source)


def _of_starts(row: Row, name: str) -> Value:
    """Return the mean over the starts; a cell has one, or one for each of its trials."""
    unit = METRICS[name].unit
    starts = [start for cell in row.cells for start in _starts(cell)]
    values = [float(value) for start in starts if (value := getattr(start, name)) is not None]
    if not values:
        notes = [start.load_note for start in starts if start.load_note and name == "load_warm_s"]
        return unknown(notes[0] if notes else row.reason or "it was not measured at the start", unit)
    found = t_interval(values)
    reason = _why_not_cold(starts) if name == "load_s" else ""
    low = found.low if math.isnan(found.low) else max(0.0, found.low)
    return Value(found.value, low, found.high, n=len(values), unit=unit, source="start", reason=reason)


def _why_not_cold(starts: Sequence[StartEntry]) -> str:
    """Return "" if each start was cold, or has no weight files."""
    warm = [start for start in starts if not start.load_cold]
    if not warm:
        return ""
    shares = [start.load_dropped_share for start in warm if start.load_dropped_share is not None]
    if not shares:
        return "the system does not tell whether the weight files left the file cache: perhaps not cold"
    return f"{1 - min(shares):.0%} of the weight files stayed in the file cache: perhaps not cold"


def _starts(cell: CellEntry) -> Sequence[StartEntry]:
    """Return each start of a cell once."""
    of_trials: list[StartEntry] = []
    for trial in cell.trials:
        if trial.start is not None and not trial.start.is_empty and trial.start not in of_trials:
            of_trials.append(trial.start)
    return of_trials or [start for start in (cell.start,) if not start.is_empty]


def _peak(row: Row, name: str) -> Value:
    """Return the largest over all loads."""
    found = [values[name] for values in row.loads.values()]
    seen = [one for one in found if not math.isnan(one.value)]
    if not seen:
        return found[0] if found else unknown(row.reason or "nothing was measured", "bytes")
    return max(seen, key=lambda one: one.value)


def _quality(row: Row, index: Mapping[tuple[str, ...], Mapping[str, Any]], name: str) -> Value:
    found = index.get((*row.key, QUALITY_LOAD, POOLED, name, SCALAR))
    scored = [cell for cell in row.cells if cell.quality is not None]
    why = why_missing(scored[0])[name] if scored else row.reason or "quality was not measured"
    if found is None:
        return unknown(why, METRICS[name].unit)
    value = _of_summary(found)
    return replace(value, reason=why) if math.isnan(value.value) else value


def quality_facts(rows: Sequence[Row]) -> QualityEntry:
    """Return how the first scored cell was scored; without one, the first entry of any cell."""
    told = [cell.quality for row in rows for cell in row.cells if cell.quality is not None]
    return next(iter([one for one in told if one.reference is not None] or told), QualityEntry())


def reference_level(told: QualityEntry, cells: Iterable[CellEntry]) -> str | None:
    """Return the level as which the reference was loaded; older runs have it in the cell of the reference only."""
    named = told.reference or NamedReference()
    if told.reference_level or named.level:
        return told.reference_level or named.level
    same = [cell for cell in cells if named.is_of(cell)]
    return next((cell.engine_info.level for cell in same if not cell.engine_info.is_empty), None)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan
