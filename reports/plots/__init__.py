"""Plots of a run, for the page and as files; each is drawn once, when it is first needed."""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from pathlib import Path

from reports.data import ReportData, keys_of
from reports.files import replace
from reports.plots import decision, frontier, latency, machine, sweep, time
from reports.plots.drawing import Plot, file_name
from reports.sweeps import slos_of
from reports.tables.base import classes

MOST_TRIALS = 24


def save(data: ReportData, folder: Path, *, every: bool = True) -> list[Path]:
    """Write every plot as SVG into an existing folder; return the files. Equal file names get numbers.

    Args:
        every: False for plots of the first MOST_TRIALS trials only, as on the page.
    """
    written, taken = list[Path](), set[Path]()
    chosen = None if every else set(_first(data))
    keys = ((cell.id, trial.id) for cell, trial in data.trials())
    trials = (of_trial(data, *key) for key in keys if chosen is None or key in chosen)
    runs = (*of_decisions(data).values(), of_loads(data), of_distributions(data))
    for plot in chain(*runs, *trials):
        file, number = folder / f"{plot.name}.svg", 1
        while file in taken:
            number += 1
            file = folder / f"{plot.name}-{number}.svg"
        taken.add(file)
        written.append(replace(file, plot.standalone()))
    return written


def _first(data: ReportData) -> list[tuple[str, str]]:
    """Return MOST_TRIALS trials: the first repetition of each, as on the page, then others."""
    measured = [(cell, trial) for cell, trial in data.trials() if data.facts_of(cell.id, trial.id)]
    first: dict[tuple[str, ...], tuple[str, str]] = {}
    for cell, trial in measured:
        first.setdefault(keys_of(cell, trial.load), (cell.id, trial.id))
    every = ((cell.id, trial.id) for cell, trial in measured)
    return list(dict.fromkeys([*first.values(), *every]))[:MOST_TRIALS]


@lru_cache(maxsize=1)
def of_decisions(data: ReportData) -> dict[str, list[Plot]]:
    """Return the plots of the decision, by model."""
    return decision.of_models(data)


@lru_cache(maxsize=1)
def of_loads(data: ReportData) -> list[Plot]:
    """Return the curves over the loads of sweeps, and the frontiers of throughput against speed per user."""
    return [*sweep.of_sweeps(data), *frontier.frontiers(data)]


@lru_cache(maxsize=1)
def of_distributions(data: ReportData) -> list[Plot]:
    """Return the distributions of each load, for all of its configurations."""
    return latency.of_loads(data)


@lru_cache(maxsize=2 * MOST_TRIALS)
def of_trial(data: ReportData, cell_id: str, trial_id: str) -> list[Plot]:
    """Return the plots of a trial that have data."""
    series = data.series.get((cell_id, trial_id))
    if not series:
        return []
    cell, trial = next(one for one in data.trials() if (one[0].id, one[1].id) == (cell_id, trial_id))
    name = file_name(f"{cell_id}-{trial_id}")
    drawn = (
        latency.distribution(series["distribution"], name),
        latency.of_classes(series["classes"], name, len(classes(data, keys_of(cell, trial.load)))),
        time.service(series, slos_of(data, cell, trial), name),
        machine.machine(series, name),
        latency.by_length(series["lengths"], series["length_bins"], name),
    )
    return [plot for plot in drawn if plot is not None]
