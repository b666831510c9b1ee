"""Summary: stored trials in, the tidy table out. `metrics.py` defines every number, `stats.py` its interval."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.analysis import stats
from harness.analysis.columns import ALL, Columns
from harness.analysis.costs import with_costs
from harness.analysis.counts import failure_times, most_of_runs
from harness.analysis.distributions import Distribution, Pool
from harness.analysis.effective import ShareSize, share_size
from harness.analysis.latencies import distributions
from harness.analysis.rates import Rate, judged, rates, shares
from harness.analysis.reading import Reading, StoredTrial, read
from harness.analysis.samples import machine, server
from harness.analysis.samples.energy import energy_readings, energy_sources
from harness.analysis.samples.gauges import without_others_gpus
from harness.analysis.samples.memory import memory_readings
from harness.analysis.stats import LEVELS, Bound, Estimate, Flags, Floats, Ints
from harness.analysis.window import Window
from harness.metrics import METRICS, PER, SCALAR, STATISTICS
from harness.scenario.limits import is_split
from harness.store.categories import counts_of
from harness.store.manifest import Price, TrialEntry
from harness.units import parse_duration_s

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    *("model", "engine", "level", "variant", "load", "class", "repetition", "metric", "statistic"),
    *("value", "low", "high", "bound", "n", "n_eff", "unit", "source", "window"),
)
KEYS = ("model", "engine", "level", "variant", "load")
POOLED = "pooled"
PEAKS = server.PEAKS | {*machine.GAUGES, *machine.LOAD_PEAKS}
_SOURCES = dict.fromkeys(machine.START_METRICS, "start") | dict.fromkeys(server.NAMES, "server")
_SOURCES |= {name: source for name, (source, _) in machine.GAUGES.items()} | machine.IN_WINDOW


@dataclass(frozen=True, slots=True)
class Measures:
    """Everything measured of one class of one trial, before any statistic; rates and so on by metric name."""

    keys: tuple[str, ...]
    class_name: str
    repetition: int
    window: Window
    clock: str
    token_source: str
    distributions: dict[str, Distribution]
    rates: dict[str, Rate]
    shares: dict[str, Flags]
    readings: dict[str, float | Estimate] = field(default_factory=dict)
    sensors: dict[str, str] = field(default_factory=dict)
    share_sizes: dict[str, ShareSize] = field(default_factory=dict)
    requests: Ints | None = None  # numbers of the measured requests, in due order
    failures: dict[str, Floats] = field(default_factory=dict)  # when they failed, see `counts.failure_times`


def summarise(trials: Iterable[StoredTrial], extra: Collection[tuple[str, str]] = ()) -> pd.DataFrame:
    """Return the tidy summary (columns: COLUMNS): each metric and statistic per repetition, and pooled.

    `extra` are further (metric, statistic) pairs, such as ("ttft_ms", "p99.9"), that a limit requires. Metrics without
    any observation have no row; `facts.missing` has the reason.
    """
    levels = levels_for(extra)
    return tidy([found for trial in trials for found in measure(trial, read(trial, levels), trial.samples())], extra)


def tidy(
    measures: Iterable[Measures],
    extra: Collection[tuple[str, str]] = (),
    more: Iterable[dict[str, Any]] = (),
    price: Price | None = None,
) -> pd.DataFrame:
    """Return the summary from the measures of each trial, followed by `more` rows; with a price, costs as well."""
    import pandas as pd

    groups: dict[tuple[str, ...], list[Measures]] = {}
    for found in measures:
        groups.setdefault((*found.keys, found.class_name), []).append(found)
    rows = [row for group in groups.values() for row in _group_rows(group, extra)]
    return pd.DataFrame([*with_costs(rows, price), *more], columns=list(COLUMNS))


def levels_for(extra: Collection[tuple[str, str]]) -> tuple[float, ...]:
    """Return the levels of all quantiles that will be requested."""
    own = {float(statistic[1:]) / 100 for _, statistic in extra if statistic.startswith("p")}
    return tuple(sorted({*LEVELS, *own}))


def measure(
    stored: StoredTrial, reading: Reading, samples: pd.DataFrame, facts: dict[str, Any] | None = None
) -> list[Measures]:
    """Return the measures of a trial: of all requests together and of each group (see `reading.groups_of`).

    `samples` are those of its cell; `facts`: see `facts.facts_of`.
    """
    own = without_others_gpus(stored.cell, samples)
    held = memory_readings(stored.cell, reading.trial, own, reading.columns)
    readings: dict[str, float | Estimate] = {
        **machine.start_values(stored.cell, reading.trial),
        **machine.peaks(own, reading.trial, reading.columns),
        **{name: one.bytes for name, one in held.items()},
        **server.server_readings(facts),
        **machine.telemetry_readings(facts),
    }
    sensors = energy_sources(facts) | {name: one.source for name, one in held.items()}
    every, *groups = (_measure_class(stored, reading, columns, name) for name, columns in reading.groups.items())
    known = readings | energy_readings(facts, every.rates, every.shares)
    return [replace(every, readings=known, sensors=sensors), *groups]


def slo_of(trial: TrialEntry, class_name: str) -> dict[str, float | None]:
    """Return the limits of a class's requests: the class's own override the trial's."""
    own = trial.class_slo.get(class_name, {})
    return trial.slo | {name: limit for name, limit in own.items() if limit is not None}


def shares_of(trial: TrialEntry, rows: Columns, class_name: str) -> dict[str, Flags]:
    """Return error and attainment flags; over all classes each request is judged by its own class's limits."""
    if not (class_name == ALL or is_split(class_name)) or not trial.class_slo:
        return shares(rows, slo_of(trial, class_name))
    found: dict[str, Flags] = {}
    rows = judged(rows)
    for name in sorted(set(rows.class_name.unique().dropna())):
        own = rows.class_name == name
        for metric, flags in shares(rows.where(own), slo_of(trial, name)).items():
            found.setdefault(metric, rows.ok.copy())[own] = flags
    return found


def _measure_class(stored: StoredTrial, reading: Reading, columns: Columns, name: str) -> Measures:
    rows, due_in_window = columns.measured, reading.window.population(columns)
    found = reading.distributions if name == ALL else distributions(rows, reading.observations(rows))
    flags = shares_of(reading.trial, rows, name)
    goodput = {"goodput": shares_of(reading.trial, due_in_window, name).get("attainment")}
    good = {metric: own for metric, own in goodput.items() if own is not None}
    return Measures(
        keys=(*stored.cell.keys, reading.trial.load),
        class_name=name,
        repetition=stored.cell.repetition,
        window=reading.window,
        clock=_joined(reading.frame["clock"]),
        token_source=_joined(reading.frame["token_source"]),
        distributions=found,
        rates=rates(columns, reading.window),
        shares=flags | good,
        share_sizes=_share_sizes(reading, rows, flags) | _share_sizes(reading, due_in_window, good),
        requests=rows.request,
        failures=failure_times(rows),
    )


def _share_sizes(reading: Reading, rows: Columns, shares: Mapping[str, Flags]) -> dict[str, ShareSize]:
    """Return the effective sample size of each share; good requests depend on the queue as latencies do."""
    dependence = reading.guard.dependence(judged(rows).times["due"])
    found = {}
    for name, flags in shares.items():
        explained = None if name == "error_rate" else reading.explained
        found[name] = share_size(flags.astype(np.float64), dependence, explained)
    return found


def _joined(series: pd.Series[Any]) -> str:
    return "+".join(sorted(counts_of(series)))


def _group_rows(group: Sequence[Measures], extra: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
    rows = [row for one in group for row in _rows([one], str(one.repetition), extra)]
    pooled = _rows(group, POOLED, extra) if len(group) > 1 else [row | {"repetition": POOLED} for row in rows]
    return rows + pooled


def _rows(group: Sequence[Measures], repetition: str, extra: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
    first = group[0]
    shared = dict(zip(KEYS, first.keys, strict=True)) | {"class": first.class_name, "repetition": repetition}
    window = "; ".join(dict.fromkeys(one.window.text for one in group))
    rows = []
    for name, statistic, estimate in _estimates(group, extra):
        if math.isnan(estimate.value) and estimate.bound is Bound.POINT:
            continue
        rows.append(
            shared
            | {"metric": name, "statistic": statistic, "value": estimate.value, "low": _closed(estimate.low)}
            | {"high": estimate.high, "bound": estimate.bound.value, "n": estimate.n, "n_eff": estimate.n_eff}
            | {"unit": METRICS[name].unit, "source": _source(name, group), "window": window}
        )
    return rows


def _closed(low: float) -> float:
    """Return a lower end, NaN if it is open: no metric is below every number."""
    return low if low > -math.inf else math.nan


def _source(name: str, group: Sequence[Measures]) -> str:
    if name in group[0].sensors:
        return "; ".join(dict.fromkeys(one.sensors[name] for one in group if one.sensors.get(name)))
    if name in _SOURCES:
        return _SOURCES[name]
    texts = [one.token_source if METRICS[name].counts_tokens else one.clock for one in group]
    return "+".join(dict.fromkeys(text for text in texts if text))


def _estimates(group: Sequence[Measures], extra: Collection[tuple[str, str]]) -> Iterator[tuple[str, str, Estimate]]:
    """Yield (metric, statistic, estimate) of repetitions taken together, in the order of the registry."""
    for name, metric in METRICS.items():
        if metric.takes_statistics:
            pool = Pool([one.distributions[name] for one in group])
            wanted = dict.fromkeys((*STATISTICS, *(statistic for other, statistic in extra if other == name)))
            yield from ((name, statistic, pool.estimate(statistic)) for statistic in wanted)
        elif metric.per_time:
            wanted = dict.fromkeys(statistic for other, statistic in extra if other == name)
            yield from ((name, statistic, _most(group, name, statistic)) for statistic in wanted)
        elif any(name in one.shares for one in group):
            yield name, SCALAR, _share(group, name)
        elif name == "goodput_rps":
            yield name, SCALAR, _goodput(group)
        elif any(name in one.rates for one in group):
            yield name, SCALAR, _rate([one.rates[name] for one in group if name in one.rates])
        else:
            yield name, SCALAR, _reading(name, [one.readings[name] for one in group if name in one.readings])


def _most(group: Sequence[Measures], name: str, statistic: str) -> Estimate:
    runs, seconds = [one.failures for one in group], [one.window.seconds for one in group]
    n = sum(len(one.shares.get("error_rate", ())) for one in group)
    if n == 0:
        return stats.NOTHING
    return most_of_runs(runs, name, parse_duration_s(statistic.removeprefix(PER)), seconds, n)


def _share(group: Sequence[Measures], name: str) -> Estimate:
    known = [one for one in group if name in one.shares]
    flags, sizes = [one.shares[name] for one in known], [one.share_sizes[name] for one in known]
    return stats.share_estimate(flags, [one.n_eff for one in sizes], [one.seen for one in sizes])


def _goodput(group: Sequence[Measures]) -> Estimate:
    """Scale the share of good requests among those due in the window, and its interval, by their number per second."""
    attained = _share(group, "goodput")
    seconds = sum(one.window.seconds for one in group)
    if attained.n == 0 or seconds <= 0:
        return Estimate(math.nan)
    per_second = attained.n / seconds
    scaled = (attained.value * per_second, attained.low * per_second, attained.high * per_second)
    return Estimate(*scaled, Bound.POINT, attained.n, attained.n_eff)


def _rate(runs: Sequence[Rate]) -> Estimate:
    """Return a ratio of sums, with an interval from equal parts of the window (batch means).

    The interval is that of the runs if they differ far more.
    """
    amount, per, n = sum(run.amount for run in runs), sum(run.per for run in runs), sum(run.n for run in runs)
    if per <= 0 or n == 0:
        return Estimate(math.nan)
    value = amount / per
    if any(run.at_least for run in runs):
        return Estimate(math.nan, value, math.inf, Bound.LOWER, n) if amount > 0 else Estimate(math.nan)
    parts = [run.bins * len(run.bins) / run.per for run in runs if run.bins is not None and run.per > 0]
    between = stats.t_interval([run.value for run in runs])
    if not parts:
        return Estimate(value, between.low, between.high, Bound.POINT, n)
    interval = stats.mean_of_batches([stats.batched(part) for part in parts])
    within = stats.SPREAD_FACTOR * (interval.high - interval.low)
    if len(runs) >= stats.MIN_RUNS_FOR_SPREAD and between.high - between.low > within:
        interval = between
    low = 0.0 if interval.low < 0 else interval.low  # which may be NaN, of which max() would make 0
    return Estimate(value, low, interval.high, Bound.POINT, n, interval.n_eff)


def _reading(name: str, readings: Sequence[float | Estimate]) -> Estimate:
    """Return the largest of peaks, the mean of others; a sensor's error does not shrink with repetitions."""
    known = [one if isinstance(one, Estimate) else Estimate(one) for one in readings]
    values = [one.value for one in known]
    if name in PEAKS and values:
        return Estimate(max(values), n=len(values))
    found = stats.t_interval(values)
    if known and not any(math.isnan(one.low) for one in known):
        low, high = (float(np.mean([getattr(one, end) for one in known])) for end in ("low", "high"))
        found = replace(found, low=float(np.fmin(found.low, low)), high=float(np.fmax(found.high, high)))
    return replace(found, low=max(0.0, found.low)) if found.low < 0 else found
