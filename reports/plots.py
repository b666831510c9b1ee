"""All plots of a run: for the report and as files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from reports import pareto, plot_frontier, plot_latency, plot_machine, plot_time
from reports.data import ReportData, keys_of, place
from reports.drawing import Plot
from reports.tables import repetition


@dataclass(frozen=True, slots=True)
class Drawn:
    """All plots of a run. choices: by model.   overview: over all trials.   of_trial: by (cell id, trial id)."""

    choices: dict[str, list[Plot]]
    overview: list[Plot]
    of_trial: dict[tuple[str, str], list[Plot]]


@lru_cache(maxsize=1)  # the page and the files show the same pictures, and drawing them is most of the work
def draw(data: ReportData) -> Drawn:
    """Every plot."""
    trials = {(cell["id"], trial["id"]): of_trial(data, cell, trial) for cell, trial in data.trials()}
    return Drawn(pareto.of_models(data), overview(data), trials)


def save(data: ReportData, folder: Path) -> list[Path]:
    """Write every plot as SVG; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn, written = draw(data), []
    groups = [*drawn.choices.values(), drawn.overview, *drawn.of_trial.values()]
    for plot in [plot for group in groups for plot in group]:
        file = folder / f"{plot.name}.svg"
        file.write_text(plot.standalone(), encoding="utf-8", newline="\n")
        written.append(file)
    return written


def overview(data: ReportData) -> list[Plot]:
    """The frontier and the distributions of all trials over each other, where there are several. Invalid ones are left
    out: they are no results to compare.
    """
    shown = [
        (f"{place(keys_of(cell, trial))}, {trial['load']}{repetition(cell, data)}", frame)
        for cell, trial in data.trials()
        if (data.validity_of(cell["id"], trial["id"]) or {}).get("verdict") != "invalid"
        if (frame := data.series.get((cell["id"], trial["id"]), {}).get("distribution")) is not None and len(frame)
    ]
    overlays = (plot_latency.overlay(metric, shown) for metric in plot_latency.COMPARED)
    return [plot for plot in (plot_frontier.frontier(data), *overlays) if plot is not None]


def of_trial(data: ReportData, cell: dict[str, Any], trial: dict[str, Any]) -> list[Plot]:
    """The plots of a trial; those without data are left out."""
    series = data.series.get((cell["id"], trial["id"]))
    if not series:
        return []
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{cell['id']}-{trial['id']}")
    drawn = (
        plot_latency.distribution(series["distribution"], name),
        plot_latency.of_classes(series["classes"], name),
        plot_time.service(series, trial.get("slo") or {}, name),
        plot_machine.machine(series, name),
        plot_latency.by_length(series["lengths"], series["length_bins"], name),
    )
    return [plot for plot in drawn if plot is not None]
