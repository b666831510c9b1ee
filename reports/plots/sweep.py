"""Plots of a sweep: latency, throughput and goodput over the rate or the number of users, with the knee."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from reports.data import ReportData
from reports.format import dotted, joined, shortened
from reports.knee import Knee
from reports.labels import LATENCIES
from reports.plots import marks, scales
from reports.plots.drawing import Panel, Plot, file_name, picture
from reports.plots.frontier import MAX_NAME, put, remarks
from reports.plots.marks import DASHED, DASHES, DOTTED, INK, MUTED, SHAPES
from reports.plots.scales import Scale
from reports.sweeps import (
    OUTPUT,
    PROMPT,
    RATE,
    USERS,
    Estimate,
    Load,
    Sweep,
    floors_of,
    limits_of,
    names_of,
    slos_of,
    sweeps_of,
    sweeps_of_lengths,
)
from reports.tables.base import Cell, Table, first_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = {RATE: "requests/s asked for", USERS: "users", PROMPT: "prompt tokens, mean", OUTPUT: "output tokens, mean"}
OVER = {
    RATE: "the request rate",
    USERS: "the number of users",
    PROMPT: "the length of prompts",
    OUTPUT: "the length of replies",
}
OTHER_LENGTHS = "the workload's lengths"
LOGARITHMIC_FROM = 8.0
MOST_MARKS = 10
MOST_ABOVE = 2.5
_KNEE = 0.028
MOST_KNEES = 4

Names = Mapping[tuple[str, ...], str]


@dataclass(frozen=True, slots=True)
class Shown:
    """Content of a picture: statistics of a metric. asked: whether the rate asked for is a line."""

    metric: str
    noun: str
    statistics: tuple[str, ...] = ("value",)
    unit: str = ""
    better: str = "less"
    asked: bool = False

    def of(self, load: Load) -> list[Estimate]:
        """Return what is known of a load."""
        return [one for name in self.statistics if (one := load.get(self.metric, name)) is not None]


def of_sweeps(data: ReportData) -> list[Plot]:
    """Return TTFT, TPOT, E2E, output tokens/s and goodput of each kind of sweep, where they were measured."""
    drawn = [_together(data, sweeps) for sweeps in (sweeps_of(data), sweeps_of_lengths(data))]
    every = (one for found in drawn for one in found)
    return [plot for sweep, names in every for shown in _shown(sweep) if (plot := _plot(data, sweep, names, shown))]


def _together(data: ReportData, sweeps: Sequence[Sweep]) -> list[tuple[Sweep, Names]]:
    """Return the sweeps of a kind as one, whose last key is what each has beside it, with the names of its lines."""
    found: dict[tuple[str, str], list[Sweep]] = {}
    for sweep in sweeps:
        found.setdefault((sweep.axis, sweep.kind), []).append(sweep)
    merged = []
    for (axis, kind), own in found.items():
        loads = {
            (*keys, one.beside): [replace(load, keys=(*keys, one.beside, load.keys[-1])) for load in loads]
            for one in own
            for keys, loads in one.loads.items()
        }
        merged.append((Sweep(axis, kind, loads), _line_names(names_of(data), [one.beside for one in own])))
    return merged


def _line_names(configurations: Names, besides: Sequence[str]) -> Names:
    """Return the names of lines: the configuration, what is beside it, or both, whichever there are several of."""
    if len(besides) == 1:
        return {(*keys, besides[0]): name for keys, name in configurations.items()}
    return {
        (*keys, beside): dotted((name if len(configurations) > 1 else "", beside or OTHER_LENGTHS))
        for beside in besides
        for keys, name in configurations.items()
    }


def _shown(sweep: Sweep) -> Iterator[Shown]:
    one = len(sweep.loads) == 1
    for metric in ("ttft_ms", "tpot_ms", "e2e_ms"):
        yield Shown(metric, LATENCIES[metric], ("p50", "p95", "p99") if one else ("p95",), ", ms")
    yield Shown("output_tokens_per_s", "output tokens/s", better="more")
    yield Shown("goodput_rps", "good requests/s", better="more", asked=sweep.axis == RATE)


def _plot(data: ReportData, sweep: Sweep, names: Names, shown: Shown) -> Plot | None:
    points = [load for own in sweep.loads.values() for load in own if shown.of(load)]
    if len({load.x for load in points}) < 2:
        return None
    every = [one for load in points for one in shown.of(load)]
    lines = _lines(data, points, shown)
    highest = max(one.value for one in every)
    lines = {value: words for value, words in lines.items() if value <= MOST_ABOVE * highest}
    values = [*(one.value for one in every), *lines, *(load.x for load in points if shown.asked)]
    y = scales.upright(values) if shown.better == "less" else scales.from_zero(values)
    x = _abscissa([load.x for load in points])
    knees, fitted = sweep.knees(), _fitted(data, sweep, shown)

    def draw(axes: Axes) -> None:
        for number, (keys, name) in enumerate(names.items()):
            if keys in sweep.loads:
                _curves(axes, sweep.loads[keys], shown, number, shortened(name, MAX_NAME) if len(names) > 1 else "")
        _draw_fitted(axes, fitted, names)
        if shown.asked:
            ends = [load.x for load in points]
            along = np.linspace(min(ends), max(ends), 30)  # a straight line bends on a logarithmic axis
            marks.line(axes, along, along, MUTED, DOTTED, words="asked for", width=1.2)
        for value, words in lines.items():
            marks.across(axes, value, INK, DASHED if words.startswith("SLO") else DASHES[3], words)
        _mark_knees(axes, [(number, knees[keys]) for number, keys in enumerate(names) if keys in knees])

    title = f"{shown.noun}{' ' + shown.statistics[0] if len(shown.statistics) == 1 and shown.unit else ''}{shown.unit}"
    what = file_name("-".join(filter(None, (sweep.axis, sweep.kind))))
    name = f"sweep-{what}-{shown.metric.removesuffix('_ms').replace('_', '-')}"
    svg = picture(name, [Panel(title, y, draw)], x, LABELS[sweep.axis])
    told = _knees_told(sweep, names)
    over = OVER[sweep.axis]
    reading = _reading(shown, every, told)
    alt = f"{title} over {over}, {len(points)} loads. {told}".strip()
    return Plot(name, alt, svg, f"{_capital(shown.noun)} over {over}", reading, _table(points, shown, names))


def _fitted(data: ReportData, sweep: Sweep, shown: Shown) -> dict[tuple[str, ...], tuple[list[float], list[float]]]:
    """Return the curve fitted through the loads of each configuration, as users and values."""
    kinds = {keys: replace(sweep, beside=keys[-1]).whole_kind for keys in sweep.loads}
    known = [one for one in data.fits if "curve" in one and one["metric"] == shown.metric and sweep.axis == USERS]
    return {
        keys: tuple(one["curve"])
        for keys, kind in kinds.items()
        for one in known
        if (tuple(one["keys"]), one["kind"]) == (keys[:-1], kind)
    }


def _draw_fitted(axes: Axes, fitted: Mapping[tuple[str, ...], tuple[list[float], list[float]]], names: Names) -> None:
    """Draw each curve in the colour of its configuration, dotted."""
    for place, keys in enumerate(fitted):
        colour = marks.look(list(names).index(keys))[0] if len(names) > 1 else MUTED
        marks.line(axes, *fitted[keys], colour, DOTTED, words="" if place else "fitted", width=1.2)


def _lines(data: ReportData, points: Sequence[Load], shown: Shown) -> dict[float, str]:
    """Return SLOs and limits of latencies, and the limits that throughput must reach, by their value."""
    found: dict[float, str] = {}
    for load in points:
        if shown.better == "more":
            found |= floors_of(load, shown.metric)
            continue
        found |= slos_of(data, load.cell, load.trial).get(shown.metric, {})
        for statistic in shown.statistics:
            found |= limits_of(load, shown.metric, statistic)
    return found


def _abscissa(values: Sequence[float]) -> Scale:
    """Return a scale with marks at the loads: even from 0, or logarithmic if they span much."""
    loads = sorted(set(values))
    if loads[-1] < LOGARITHMIC_FROM * loads[0] or not loads[0]:
        return scales.from_zero(loads)
    apart, shown = (loads[-1] / loads[0]) ** (1 / MOST_MARKS), loads[:1]
    for load in loads:
        shown += [load] if load >= apart * shown[-1] else []
    return Scale(loads[0] / 1.2, loads[-1] * 1.2, "log", marks={load: scales.plain(load) for load in shown})


def _curves(axes: Axes, own: Sequence[Load], shown: Shown, number: int, name: str) -> None:
    """Draw each statistic of a configuration as a line through all loads that have it."""
    colour, dash = marks.look(number)
    for place, statistic in enumerate(shown.statistics):
        points = [(load, one) for load in own if (one := load.get(shown.metric, statistic))]
        if not points:
            continue
        words = statistic if len(shown.statistics) > 1 else name
        look = (colour, dash) if len(shown.statistics) == 1 else marks.look(place)
        marks.line(axes, [load.x for load, _ in points], [one.value for _, one in points], *look, width=1.4)
        for load, one in points:
            put(axes, load.x, one, number + place, f"{words or shown.noun}, {load.name}")
        if words:
            marks.key(axes, words, look[0], SHAPES[(number + place) % len(SHAPES)], dash=look[1])


def _mark_knees(axes: Axes, found: Sequence[tuple[int, Knee]]) -> None:
    """Shade where the knee lies: over the whole height if all agree, else as bars at the foot in their colours."""
    spans = {(one.below, one.above) for _, one in found}
    if len(spans) == 1:
        ((below, above),) = spans
        marks.span(axes, below, above, INK, 0.09)
        axes.annotate("knee", (above, 1), (-4, -11), ("data", "axes fraction"), "offset points", ha="right")
        return
    for place, (number, one) in enumerate(found[:MOST_KNEES]):
        colour = marks.look(number)[0]
        marks.span(axes, one.below, one.above, colour, 0.8, (place * _KNEE, (place + 0.8) * _KNEE))


def _knees_told(sweep: Sweep, names: Names) -> str:
    """Return in words between which loads the knees lie, "" if there are none."""
    noun = "/s" if sweep.axis == RATE else " users"
    found, knees = dict[str, list[str]](), sweep.knees()
    for keys, one in knees.items():
        found.setdefault(f"{one.below:g} to {one.above:g}{noun}", []).append(names[keys])
    if len(sweep.loads) == 1:
        found = {span: [one.why] for span, one in zip(found, knees.values(), strict=True)}
    if len(found) == 1 and len(knees) == len(sweep.loads) > 1:
        found = {span: ["all"] for span in found}
    told = [
        f"{span} ({joined([*own[:MOST_KNEES], *[f'{len(own) - MOST_KNEES} more'] * (len(own) > MOST_KNEES)])})"
        for span, own in found.items()
    ]
    return f"Knee (shaded): {joined(told)}." if told else ""


def _reading(shown: Shown, every: Sequence[Estimate], told: str) -> str:
    what = "lower is better" if shown.better == "less" else "higher is better"
    what += "; a line that leaves the dotted one serves less than is asked for" if shown.asked else ""
    return f"{_capital(what)}{remarks(every)}.{f' {told}' if told and shown.metric == 'ttft_ms' else ''}"


def _table(points: Sequence[Load], shown: Shown, names: Names) -> Table:
    rows = []
    for load in points:
        numbers = (load.get(shown.metric, statistic) for statistic in shown.statistics)
        cells = (Cell("") if one is None else Cell(one.text, value=one.value) for one in numbers)
        rows.append((Cell(names[load.keys[:-1]]), Cell(load.name), *cells))
    heads = (f"{shown.noun} {name}{shown.unit}" if name != "value" else shown.noun for name in shown.statistics)
    return first_rows(Table("", ("configuration", "load", *heads), rows, texts=2))


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
