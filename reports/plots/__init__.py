"""Plots of a run, for the page and as files."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from reports.data import ReportData, keys_of
from reports.plots import decision, frontier, latency, machine, time
from reports.plots.drawing import Plot, file_name
from reports.tables.base import classes, trial_name

MOST_TRIALS = 24


@dataclass
class Drawn:
    """Plots of a run, each drawn when it is first asked for: a page shows those of a few trials only."""

    data: ReportData
    _of_trials: dict[tuple[str, str], list[Plot]] = field(default_factory=dict)

    @cached_property
    def choices(self) -> dict[str, list[Plot]]:
        """Plots of the decision, by model."""
        return decision.of_models(self.data)

    @cached_property
    def overview(self) -> list[Plot]:
        """Plots over all trials."""
        return overview(self.data)

    def of_trial(self, cell_id: str, trial_id: str) -> list[Plot]:
        """Return the plots of one trial. Raises KeyError if there is no such trial."""
        key = (cell_id, trial_id)
        if key not in self._of_trials:
            cell, trial = self._trials[key]
            self._of_trials[key] = of_trial(self.data, cell, trial)
        return self._of_trials[key]

    @cached_property
    def _trials(self) -> dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]]:
        return {(cell["id"], trial["id"]): (cell, trial) for cell, trial in self.data.trials()}


@lru_cache(maxsize=1)  # the page and the files show the same pictures, and drawing them is most of the work
def draw(data: ReportData) -> Drawn:
    """Return the plots of a run."""
    return Drawn(data)


def save(data: ReportData, folder: Path, *, every: bool = True) -> list[Path]:
    """Write every plot as SVG; return the files. Models whose names differ in signs alone get numbers.

    every: False for those of MOST_TRIALS trials only, the ones that a page shows first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn, written, taken = draw(data), list[Path](), set[Path]()
    chosen = None if every else set(_first(data))
    keys = ((cell["id"], trial["id"]) for cell, trial in data.trials())
    trials = (drawn.of_trial(*key) for key in keys if chosen is None or key in chosen)
    for plot in chain(*drawn.choices.values(), drawn.overview, *trials):
        file, number = folder / f"{plot.name}.svg", 1
        while file in taken:
            number += 1
            file = folder / f"{plot.name}-{number}.svg"
        taken.add(file)
        file.write_text(plot.standalone(), encoding="utf-8", newline="\n")
        written.append(file)
    return written


def _first(data: ReportData) -> list[tuple[str, str]]:
    """Return MOST_TRIALS trials: the first repetition of each, as on the page, then others."""
    measured = [(cell, trial) for cell, trial in data.trials() if data.facts_of(cell["id"], trial["id"])]
    first: dict[tuple[str, ...], tuple[str, str]] = {}
    for cell, trial in measured:
        first.setdefault(keys_of(cell, trial["load"]), (cell["id"], trial["id"]))
    every = ((cell["id"], trial["id"]) for cell, trial in measured)
    return list(dict.fromkeys([*first.values(), *every]))[:MOST_TRIALS]


def overview(data: ReportData) -> list[Plot]:
    """Return the plots over all trials, if there are several; invalid trials are no results to compare."""
    shown = [
        (trial_name(cell, trial, data), frame)
        for cell, trial in data.trials()
        if not data.invalid(cell["id"], trial["id"])
        if (frame := data.series.get((cell["id"], trial["id"]), {}).get("distribution")) is not None and len(frame)
    ]
    overlays = (latency.overlay(metric, shown) for metric in latency.COMPARED)
    return [plot for plot in (frontier.frontier(data), *overlays) if plot is not None]


def of_trial(data: ReportData, cell: dict[str, Any], trial: dict[str, Any]) -> list[Plot]:
    """Return the plots of a trial; those without data are left out."""
    series = data.series.get((cell["id"], trial["id"]))
    if not series:
        return []
    name = file_name(f"{cell['id']}-{trial['id']}")
    drawn = (
        latency.distribution(series["distribution"], name),
        latency.of_classes(series["classes"], name, len(classes(data, keys_of(cell, trial["load"])))),
        time.service(series, trial.get("slo") or {}, name),
        machine.machine(series, name),
        latency.by_length(series["lengths"], series["length_bins"], name),
    )
    return [plot for plot in drawn if plot is not None]
