"""Plots as SVG: for the report (colours follow the reader's light or dark setting) and as files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports import pareto
from reports.data import ReportData, keys_of, place
from reports.drawing import COLOURS, INK, Plot, figure, label_axes
from reports.tables import repetition

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_CURVES = len(COLOURS)
MAX_LABEL = 64
LEGEND_LINE_INCHES = 0.17
_NAMES = {"ttft_ms": "time to first token", "e2e_ms": "end to end", "tpot_ms": "per token", "icl_ms": "gaps"}


@dataclass(frozen=True, slots=True)
class Drawn:
    """All plots of a run. choices: by model.   of_trial: by (cell id, trial id)."""

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
    """The distributions of all trials over each other, where there are several; the first MAX_CURVES only. Invalid
    ones are left out: they are no results to compare.
    """
    shown = [
        (f"{place(keys_of(cell, trial))}, {trial['load']}{repetition(cell, data)}", frame)
        for cell, trial in data.trials()
        if (data.validity_of(cell["id"], trial["id"]) or {}).get("verdict") != "invalid"
        if (frame := data.series.get((cell["id"], trial["id"]), {}).get("distribution")) is not None and len(frame)
    ]
    return [plot for metric in ("ttft_ms", "e2e_ms") for plot in _overlay(metric, shown)] if len(shown) > 1 else []


def _overlay(metric: str, shown: Sequence[tuple[str, Any]]) -> Iterator[Plot]:
    curves = [(label, frame[frame["metric"] == metric]) for label, frame in shown]
    curves = [(label, frame) for label, frame in curves if len(frame)][:MAX_CURVES]
    if len(curves) < 2:
        return
    with figure(f"overview-{metric}", below_inches=LEGEND_LINE_INCHES * (len(curves) + 1)) as drawing:
        for colour, (label, frame) in zip(COLOURS, curves, strict=False):
            drawing.axes.step(frame["ms"], frame["share"], where="post", color=colour, label=shortened(label))
        label_axes(drawing.axes, f"{_NAMES[metric]}, ms", "share of requests", from_zero=True)
        drawing.axes.legend(loc="upper left", bbox_to_anchor=(0, -0.2), frameon=False, fontsize=8, labelcolor=INK)
    alt = f"Share of requests at most as slow: {_NAMES[metric]}, one curve for each of {len(curves)} trials."
    yield Plot(f"overview-{metric.removesuffix('_ms')}", alt, drawing.svg)


def of_trial(data: ReportData, cell: dict[str, Any], trial: dict[str, Any]) -> list[Plot]:
    """The plots of a trial; those without data are left out."""
    series = data.series.get((cell["id"], trial["id"]))
    if not series:
        return []
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{cell['id']}-{trial['id']}")
    drawn = (_distribution(series, name),)
    return [plot for plot in drawn if plot is not None]


def _distribution(series: dict[str, Any], name: str) -> Plot | None:
    frame = series["distribution"]
    if not len(frame):
        return None
    with figure(f"{name}-distribution") as drawing:
        for colour, (metric, curve) in zip(COLOURS, frame.groupby("metric", sort=False), strict=False):
            drawing.axes.step(curve["ms"], curve["share"], where="post", color=colour, label=_NAMES[metric])
        label_axes(drawing.axes, "ms, from due", "share of requests", from_zero=True)
        _legend(drawing.axes)
    return Plot(f"{name}-distribution", "Latency distribution: share of requests at most as slow.", drawing.svg)


def _latency(series: dict[str, Any], name: str) -> Plot | None:
    frame = series["latency"]
    if not len(frame.dropna(how="all", subset=["ttft_ms", "e2e_ms"])):
        return None
    with figure(f"{name}-latency") as drawing:
        for colour, metric in zip(COLOURS, _NAMES, strict=False):
            seen = frame[frame[metric].notna()]
            if len(seen):
                drawing.axes.plot(
                    seen["due_s"],
                    seen[metric],
                    ".",
                    markersize=3,
                    color=colour,
                    label=_NAMES[metric],
                    rasterized=len(seen) > 400,
                )
        label_axes(drawing.axes, "due, s", "ms, from due", from_zero=True)
        _legend(drawing.axes)
    return Plot(f"{name}-latency", "Latency of each measured request over the time it was due.", drawing.svg)


def _tokens(series: dict[str, Any], name: str) -> Plot | None:
    frame = series["tokens"]
    if not len(frame):
        return None
    with figure(f"{name}-tokens") as drawing:
        drawing.axes.plot(frame["at_s"], frame["tokens_per_s"], color=COLOURS[2], drawstyle="steps-mid")
        _shade(drawing.axes, series["window"])
        label_axes(drawing.axes, "time, s (measuring window shaded)", "output tokens/s", from_zero=True)
    return Plot(f"{name}-tokens", "Output tokens per second over time, with the measuring window shaded.", drawing.svg)


def _memory(series: dict[str, Any], name: str) -> Plot | None:
    frame = series["memory"]
    if not len(frame):
        return None
    scale, unit = (2**30, "GiB") if frame["value"].max() >= 2**30 else (2**20, "MiB")
    with figure(f"{name}-memory") as drawing:
        for colour, (source, readings) in zip(COLOURS, frame.groupby("name", sort=True), strict=False):
            drawing.axes.plot(
                readings["at_s"],
                readings["value"] / scale,
                color=colour,
                label=str(source),
                marker="." if len(readings) == 1 else None,  # one reading makes no line
            )
        _shade(drawing.axes, series["window"])
        label_axes(drawing.axes, "time, s (measuring window shaded)", f"memory, {unit}", from_zero=True)
        _legend(drawing.axes)
    return Plot(f"{name}-memory", "Memory of the engine and the GPUs over time.", drawing.svg)


def shortened(label: str) -> str:
    """A label that leaves room for the plot."""
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL // 2]}…{label[-MAX_LABEL // 2 :]}"


def _legend(axes: Axes) -> None:
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def _shade(axes: Axes, window: tuple[float, float]) -> None:
    axes.axvspan(*window, color=INK, alpha=0.06, linewidth=0)
