"""Blocks of a start as one measurement: the requests of all blocks together, and their windows without the pauses."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis.summary import KEYS, Measures, tidy
from harness.comparison.measured import Finding, Measurement, Start
from harness.comparison.sides import Side, measurement, shared
from harness.results import Results, derive
from harness.schedule.blocks import number_of, whole
from harness.store.manifest import CellEntry, TrialEntry
from harness.store.run import Run

if TYPE_CHECKING:
    import pandas as pd

Keys = tuple[str, ...]
Trial = tuple[CellEntry, TrialEntry]
HELD_TOGETHER = ("memory_peak_bytes", "rss_peak_bytes", "gpu_memory_peak_bytes", "gpu_memory_peak_share")
"""Metrics that mean something else while another engine is up: pages of weights are shared, a GPU holds both."""


def read_blocks(name: str, path: Path, statistics: Collection[tuple[str, str]] = ()) -> Side:
    """Read a run whose loads were cut into blocks, as `read_side` reads other runs.

    A number of a load is that of all requests of its blocks together. A finding makes its data poor if it is about
    more than half of them.
    """
    run = Run.open(path)
    results = derive(run.manifest, run.trials(), path, statistics)
    table = _pooled(results, statistics)
    found = []
    for keys, blocks in _blocks(results).items():
        rows = table.get(keys)
        if rows is not None:
            judged = [results.validity.get((cell.id, trial.id)) for cell, trial in blocks]
            poor = shared([one.poor if one is not None else () for one in judged])
            found.append(_measurement(keys, blocks, rows, poor))
    return Side(name, path, run.manifest, tuple(found))


def blocks_of(side: Side) -> int:
    """Return the number of blocks of its longest load."""
    return max((number_of(trial.load) or 0 for _, trial in side.manifest.trials()), default=0)


def _blocks(results: Results) -> dict[Keys, list[Trial]]:
    """Return the blocks of each load by its keys."""
    found: dict[Keys, list[Trial]] = {}
    for cell, trial in results.manifest.trials():
        found.setdefault((*cell.keys, whole(trial.load)), []).append((cell, trial))
    return found


def _pooled(results: Results, statistics: Collection[tuple[str, str]]) -> dict[tuple[Hashable, ...], pd.DataFrame]:
    """Return the rows of each load over its blocks."""
    table = tidy(map(_of_load, results.measures), statistics)
    table = table[~table["metric"].isin(HELD_TOGETHER)]
    return dict(iter(table.groupby(list(KEYS), sort=False)))


def _of_load(one: Measures) -> Measures:
    """Return the measures of a block as those of a repetition of its load."""
    *cell, load = one.keys
    return replace(one, keys=(*cell, whole(load)), repetition=number_of(load) or one.repetition)


def _measurement(keys: Keys, blocks: Sequence[Trial], rows: pd.DataFrame, poor: tuple[Finding, ...]) -> Measurement:
    """Return a measurement whose only start has the numbers of all blocks."""
    cell, trial = blocks[0]
    pooled = measurement(keys, [(cell, trial, {})], rows, poor)
    values = {figure: number.value for figure, number in pooled.pooled.items()}
    return replace(pooled, starts=(Start(cell, trial, {}, values),))
