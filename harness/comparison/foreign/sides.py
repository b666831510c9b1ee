"""A result of another load generator as one side of a comparison.

With the requests its intervals are made as those of our own runs. Without them there are values only, which no
interval and no word follows from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from harness.analysis.distributions import Distribution, Observations
from harness.analysis.effective import share_size
from harness.analysis.queue import NO_GUARD, QueueGuard, guard
from harness.analysis.rates import Rate
from harness.analysis.stats import Measured
from harness.analysis.summary import Measures, tidy
from harness.analysis.window import Window
from harness.comparison.foreign.base import ForeignLoad, ForeignRun, Rows
from harness.comparison.foreign.reading import read_foreign
from harness.comparison.measured import Figure, Measurement, Start
from harness.comparison.sides import Origin, Side, mean_of, measurement
from harness.metrics import METRICS, SCALAR
from harness.records import Loop
from harness.store.manifest import CellEntry, EngineEntry, Manifest, TrialEntry

ALL = "all"
_NS_PER_S = 1e9
_NOTHING = np.empty(0)
_RATES = ("completed_rps", "output_tokens_per_s")


def foreign_side(name: str, path: Path, statistics: Collection[tuple[str, str]] = ()) -> Side:
    """Read a result file as a side. Raises RunUnreadable, one sentence, if that is impossible.

    Args:
        statistics: Further (metric, statistic) pairs that a margin asks for.
    """
    return side_of(name, path, read_foreign(path), statistics)


def side_of(name: str, path: Path, run: ForeignRun, statistics: Collection[tuple[str, str]] = ()) -> Side:
    """Return a result as a side. Loads of equal names are runs of one load."""
    cells: dict[str, list[tuple[CellEntry, TrialEntry, ForeignLoad]]] = {}
    for load in run.loads:
        same = cells.setdefault(load.name, [])
        same.append((*_entries(run, load, len(cells) - 1, len(same) + 1), load))
    entries = [cell for same in cells.values() for cell, _, _ in same]
    scenario: dict[str, object] = {"load": [_facts(same[0][2]) for same in cells.values()]}
    manifest = Manifest(name=path.stem, created_utc=run.created_utc, cells=entries, scenario=scenario)
    if run.version:
        manifest.provenance.under_test.libraries = {run.tool: run.version}
    values_only = any(load.rows is None for load in run.loads)
    metrics = {metric for load in run.loads for metric, _ in load.values}
    from_sent = "ttft_ms" not in metrics and "e2e_ms" not in metrics
    origin = Origin(run.tool, run.version, run.notes, values_only, from_sent)
    found = tuple(_measured(same, statistics) for same in cells.values())
    return Side(name, path, manifest, found, origin=origin)


def _entries(run: ForeignRun, load: ForeignLoad, index: int, repetition: int) -> tuple[CellEntry, TrialEntry]:
    loop = Loop.OPEN if load.rate is not None else Loop.CLOSED if load.users is not None else None
    trial = TrialEntry(
        id=load.name,
        index=index,
        load=load.name,
        rate=load.rate,
        users=load.users,
        loop=loop,
        driver=run.tool,
        status="complete",
    )
    info = EngineEntry(model=run.model)
    id_ = f"{index}-{repetition}"
    cell = CellEntry(id=id_, model=run.model, repetition=repetition, engine_info=info, trials=[trial])
    return cell, trial


def _facts(load: ForeignLoad) -> dict[str, object]:
    own = {"rate": load.rate, "users": load.users}
    return {name: value for name, value in own.items() if value is not None} | dict(load.facts)


def _measured(
    same: Sequence[tuple[CellEntry, TrialEntry, ForeignLoad]], statistics: Collection[tuple[str, str]]
) -> Measurement:
    """Return what all runs of a load measured together."""
    cell, _, first = same[0]
    keys = (*cell.keys, first.name)
    each = [(one, trial, load, load.rows) for one, trial, load in same]
    found = [(one, trial, _measures(keys, one, load, rows)) for one, trial, load, rows in each if rows is not None]
    if len(found) == len(same):
        starts = [(one, trial, {ALL: measures}) for one, trial, measures in found]
        return measurement(keys, starts, tidy([measures for *_, measures in found], statistics))
    return _of_values(keys, same)


def _of_values(keys: tuple[str, ...], same: Sequence[tuple[CellEntry, TrialEntry, ForeignLoad]]) -> Measurement:
    """Return values without intervals: of several runs their mean."""
    starts = tuple(
        Start(cell, trial, {}, {(ALL, *figure): value for figure, value in load.values.items()})
        for cell, trial, load in same
    )
    figures: list[Figure] = [one for one in starts[0].values if all(one in start.values for start in starts)]
    each = {figure: [start.values[figure] for start in starts] for figure in figures}
    pooled = {figure: Measured(own[0] if len(own) == 1 else mean_of(own)) for figure, own in each.items()}
    requests = sum(load.requests or 0 for *_, load in same)
    return Measurement(keys, starts, pooled, dict.fromkeys(figures, requests), values_only=True)


def _measures(keys: tuple[str, ...], cell: CellEntry, load: ForeignLoad, rows: Rows) -> Measures:
    """Return what was measured, before any statistic."""
    failed = np.array(rows.failed, dtype=np.bool_)
    due = np.array(rows.sent_s) * _NS_PER_S
    held = _guard(load, rows)
    seen = held.applied_to(_observations(rows), due) if len(due) else _observations(rows)
    nothing = Observations(_NOTHING, _NOTHING)
    found: dict[str, Distribution] = {
        name: seen.get(name, nothing) for name, metric in METRICS.items() if metric.takes_statistics
    }
    n = len(failed)
    rates = {name: Rate(value, 1.0, n) for name in _RATES if (value := load.values.get((name, SCALAR))) is not None}
    dependence = held.dependence(due) if len(due) else NO_GUARD.dependence(due)
    return Measures(
        keys=keys,
        class_name=ALL,
        repetition=cell.repetition,
        window=Window(0.0, 0.0, "the whole run"),
        clock="",
        token_source="",
        distributions=found,
        rates=rates,
        shares={"error_rate": failed},
        share_sizes={"error_rate": share_size(failed.astype(np.float64), dependence)},
    )


def _guard(load: ForeignLoad, rows: Rows) -> QueueGuard:
    """Return what may make requests alike; nothing is known of that without their times."""
    if len(rows.sent_s) < 2 or not rows.sent_s[-1] > rows.sent_s[0]:
        return NO_GUARD
    sent, ended = (np.array(times) * _NS_PER_S for times in (rows.sent_s, rows.ended_s))
    return guard(sent, np.sort(ended), sent, load.users or 0)


def _observations(rows: Rows) -> dict[str, Observations]:
    found = {}
    for name, column in rows.values.items():
        each = np.array(column, dtype=np.float64)
        places = np.flatnonzero(np.isfinite(each))
        found[name] = Observations(each[places], each[places], places=places)
    if any(rows.gaps_ms):
        owners = np.array([place for place, gaps in enumerate(rows.gaps_ms) if gaps], dtype=np.int64)
        gaps = np.array([gap for one in rows.gaps_ms for gap in one], dtype=np.float64)
        sizes = np.array([len(rows.gaps_ms[place]) for place in owners], dtype=np.int64)
        if not np.isnan(gaps).any():
            found["icl_ms"] = Observations(gaps, gaps, sizes, owners=owners)
    return found
