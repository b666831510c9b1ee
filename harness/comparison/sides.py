"""Sides of a comparison: what a stored run measured, configuration by configuration and load by load."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from harness.analysis.paired import OfRequests
from harness.analysis.stats import Measured
from harness.analysis.summary import KEYS, POOLED, Measures
from harness.comparison import kept
from harness.comparison.cache_audit import Audit
from harness.comparison.measured import BY_REQUEST, Figure, Finding, Measurement, Start
from harness.comparison.quality import Scored, scores_of
from harness.metrics import METRICS
from harness.results import Results, derive
from harness.scenario.margins import Scale, scale_of
from harness.store.manifest import CellEntry, Manifest, TrialEntry
from harness.store.run import Run, TrialData
from harness.verdict.limits.against import of_requests

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Origin:
    """Load generator of another project, whose file a side is.

    Attributes:
        version: None if the file does not say.
        notes: Sentences on what its numbers mean, where that is not what they mean here.
        values_only: Whether a load of it has no rows of requests.
        from_sent: Whether its latencies count from sending.
    """

    tool: str
    version: str | None = None
    notes: tuple[str, ...] = ()
    values_only: bool = False
    from_sent: bool = True


@dataclass(frozen=True, slots=True)
class Side:
    """Stored run, or the result file of another tool, as one side.

    Attributes:
        name: As it was asked for.
        distributions: Latencies of each measurement by its keys, see `analysis.series.curves`; none for joined runs.
        times: Latencies over time, alike, see `analysis.series.time`.
        origin: The other tool; None for a run of our own.
        quality: Scores by model, engine, level and variant.
        audits: What its cache audit found; none without one.
        left_out: Sentences on what not all of its runs measured.
    """

    name: str
    path: Path
    manifest: Manifest
    measurements: tuple[Measurement, ...]
    distributions: Mapping[tuple[str, ...], pd.DataFrame] = field(default_factory=dict)
    times: Mapping[tuple[str, ...], pd.DataFrame] = field(default_factory=dict)
    origin: Origin | None = None
    quality: Mapping[tuple[str, ...], Scored] = field(default_factory=dict)
    audits: tuple[Audit, ...] = ()
    left_out: tuple[str, ...] = ()


def read_side(name: str, path: Path, statistics: Collection[tuple[str, str]] = (), *, pictures: bool = True) -> Side:
    """Read a stored run. Raises RunUnreadable if it cannot be read.

    Args:
        statistics: Further (metric, statistic) pairs that a margin asks for, such as ("ttft_ms", "p99.9").
        pictures: Whether distributions and times are needed; without them, what was derived before may serve.
    """
    run = Run.open(path)
    quality, key, trials = scores_of(run.manifest, path), kept.identity(run), run.trials()
    if not pictures and (found := kept.load(run, key, statistics)) is not None:
        return Side(name, path, run.manifest, found, quality=quality)
    results = derive(run.manifest, trials, path, statistics, pictures=pictures)
    measurements = tuple(_measurements(results, {metric for metric, _ in statistics}))
    if is_whole(results, trials):
        kept.save(run, key, measurements)
    curves = {keys: frames["distribution"] for keys, frames in results.pooled.items()}
    times: dict[tuple[str, ...], pd.DataFrame] = {
        (*cell.keys, trial.load): results.series[cell.id, trial.id]["latency_bins"]
        for cell, trial in run.manifest.trials()
        if (cell.id, trial.id) in results.series
    }
    return Side(name, path, run.manifest, measurements, curves, times, quality=quality)


def keep(run: Run, results: Results) -> None:
    """Keep what comparisons need of a run beside it, once its results are derived for a report."""
    if is_whole(results, run.trials()):
        kept.save(run, kept.identity(run), _measurements(results, ()))


def is_whole(results: Results, trials: Sequence[TrialData]) -> bool:
    """Return whether every trial and all readings could be read, so that the results follow from the files alone."""
    return len(results.facts) == len(trials) and not results.damaged


def seconds_of(cells: Iterable[CellEntry]) -> float:
    """Return how long cells took, their starts included."""
    took_s = 0.0
    for cell in cells:
        ends = [trial.ended_ns for trial in cell.trials if trial.ended_ns is not None]
        begins = [trial.begun_ns for trial in cell.trials if trial.begun_ns is not None]
        began = cell.start.began_ns if cell.start.began_ns is not None else min(begins, default=None)
        took_s += 0.0 if not ends or began is None else (max(ends) - began) / 1e9
    return took_s


def _measurements(results: Results, asked: Collection[str]) -> list[Measurement]:
    """Return what was measured, in the order of the manifest. asked: metrics that a margin names."""
    tables = dict(iter(results.summary.groupby(list(KEYS), sort=False)))
    measures: dict[tuple[tuple[str, ...], int], dict[str, Measures]] = {}
    for one in results.measures:
        measures.setdefault((one.keys, one.repetition), {})[one.class_name] = one
    starts: dict[tuple[str, ...], list[tuple[CellEntry, TrialEntry]]] = {}
    for cell, trial in results.manifest.trials():
        keys: tuple[str, ...] = (*cell.keys, trial.load)
        if keys in tables and (keys, cell.repetition) in measures:
            starts.setdefault(keys, []).append((cell, trial))
    found = []
    for named, own in starts.items():
        each = [(cell, trial, measures[named, cell.repetition]) for cell, trial in own]
        found.append(measurement(named, each, tables[named], _poor(results, own), asked))
    return found


def measurement(
    keys: tuple[str, ...],
    starts: Sequence[tuple[CellEntry, TrialEntry, Mapping[str, Measures]]],
    rows: pd.DataFrame,
    poor: tuple[Finding, ...] = (),
    asked: Collection[str] = (),
) -> Measurement:
    """Return a measurement from what each start measured and the rows of it in the tidy summary."""
    pooled = rows[rows["repetition"] == POOLED]
    each = tuple(
        Start(cell, trial, _requests(measures, asked), _values(rows, str(cell.repetition)))
        for cell, trial, measures in starts
    )
    return Measurement(keys, each, _numbers(pooled), _counts(pooled), poor)


def _requests(measures: Mapping[str, Measures], asked: Collection[str]) -> dict[tuple[str, str], OfRequests]:
    """Return the observations that are compared request by request, by class and metric."""
    metrics = dict.fromkeys((*BY_REQUEST, *asked))
    found = {
        (class_name, metric): of_requests(one, metric) for class_name, one in measures.items() for metric in metrics
    }
    return {name: one for name, one in found.items() if one is not None}


def _figures(rows: pd.DataFrame) -> list[Figure]:
    return [*zip(rows["class"], rows["metric"], rows["statistic"], strict=True)]


def _values(rows: pd.DataFrame, repetition: str) -> dict[Figure, float]:
    own = rows[rows["repetition"].astype(str) == repetition]
    return dict(zip(_figures(own), own["value"].astype(float), strict=True))


def _numbers(rows: pd.DataFrame) -> dict[Figure, Measured]:
    columns = (rows[name].astype(float) for name in ("value", "low", "high"))
    return dict(zip(_figures(rows), map(Measured, *columns), strict=True))


def _counts(rows: pd.DataFrame) -> dict[Figure, int]:
    counts = (0 if math.isnan(n) else int(n) for n in rows["n"].astype(float))
    return dict(zip(_figures(rows), counts, strict=True))


def _poor(results: Results, own: list[tuple[CellEntry, TrialEntry]]) -> tuple[Finding, ...]:
    """Return the findings about some trials that make data poor."""
    judged = [results.validity[cell.id, trial.id] for cell, trial in own if (cell.id, trial.id) in results.validity]
    return tuple(dict.fromkeys(finding for one in judged for finding in one.poor))


def joined(name: str, parts: Sequence[Side]) -> Side:
    """Return several runs of one side as one: their starts in order, with the mean of their values to be shown.

    Only loads that every run has are kept; the others are named. Only findings that more than half share are kept.
    """
    first, *others = parts
    by_keys = [{one.keys: one for one in part.measurements} for part in others]
    found = []
    for one in first.measurements:
        same = [one, *(table[one.keys] for table in by_keys if one.keys in table)]
        if len(same) == len(parts):
            found.append(_joined(same))
    quality = next((part.quality for part in parts if part.quality), {})
    kept, every = {one.keys for one in found}, dict.fromkeys(one.keys for part in parts for one in part.measurements)
    rest = tuple(f"not every run of {name} has {' '.join(filter(None, one))}" for one in every if one not in kept)
    without = replace(first, name=name, distributions={}, times={}, quality=quality)
    return replace(without, measurements=tuple(found), left_out=rest)


def _joined(parts: Sequence[Measurement]) -> Measurement:
    starts = tuple(start for part in parts for start in part.starts)
    figures = [figure for figure in parts[0].pooled if all(figure in part.pooled for part in parts)]
    pooled = {figure: _mean(figure, [part.pooled[figure] for part in parts], starts) for figure in figures}
    counts = {figure: sum(part.n[figure] for part in parts) for figure in figures}
    return Measurement(parts[0].keys, starts, pooled, counts, shared([part.poor for part in parts]))


def _mean(figure: Figure, each: Sequence[Measured], starts: Sequence[Start]) -> Measured:
    """Return the mean over the starts. A share that is the same in all has an interval: from those of the parts."""
    value = each[0].value
    if scale_of(METRICS[figure[1]]) is not Scale.DIFFERENCE or any(one.value != value for one in each):
        return Measured(fmean(start.values.get(figure, math.nan) for start in starts))
    below, above = (
        math.sqrt(fmean((getattr(one, end) - value) ** 2 for one in each) / len(each)) for end in ("low", "high")
    )
    return Measured(value, value - below, value + above)


def shared(each: Sequence[Sequence[Finding]]) -> tuple[Finding, ...]:
    """Return the findings about the same metrics that more than half of some parts have.

    Their sentences differ between the parts by the numbers in them; the last one is kept.
    """
    counts = Counter(metrics for found in each for metrics in {about for _, about in found})
    sentences = {metrics: sentence for found in each for sentence, metrics in found}
    return tuple((sentences[metrics], metrics) for metrics, count in counts.items() if 2 * count > len(each))


def mean_of(values: Sequence[float]) -> float:
    """Return the geometric mean of numbers above zero, whose ratio is compared; else the mean."""
    if all(value > 0 for value in values):
        return math.exp(sum(map(math.log, values)) / len(values))
    return sum(values) / len(values)
