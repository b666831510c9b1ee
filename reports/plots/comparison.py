"""Plots of a comparison: changes with their margins, both distributions, both sides over time, pair by pair."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports import comparison
from reports.format import shortened_inside
from reports.labels import LATENCIES
from reports.plots import marks, scales
from reports.plots.drawing import LOW, Panel, Plot, file_name, picture
from reports.plots.latency import Curve, distribution_of
from reports.plots.marks import COLOURS, DASHED, INK, MUTED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

TONES = {"regressed": COLOURS[1], "improved": COLOURS[0]}
ROW_HEIGHT, MOST_ROWS, MAX_LABEL = 17.0, 24, 30
SIDES = ("base", "head")
METRICS = ("ttft_ms", "tpot_ms", "e2e_ms")


@dataclass(frozen=True, slots=True)
class Curves:
    """Data behind the pictures of one load.

    Attributes:
        load: With what tells its configuration from others.
        distributions: By side: metric, share, ms, low_ms, high_ms, n.
        times: By side: at_s, metric, n, p50_ms, p95_ms.
    """

    load: str
    distributions: Mapping[str, pd.DataFrame]
    times: Mapping[str, pd.DataFrame]


def of_comparison(data: Mapping[str, Any], curves: Sequence[Curves]) -> list[Plot]:
    """Return all pictures, the changes first."""
    found = [forest(data, gates=True), forest(data, gates=False), pairs(data)]
    both = [plot for one in curves for plot in (*_distributions(one, data), *_over_time(one, data))]
    return [*(plot for plot in found if plot is not None), *both]


def forest(data: Mapping[str, Any], *, gates: bool) -> Plot | None:
    """Return the changes as points with their intervals, one below the other, each with its margin; None without."""
    found = [(row, label) for row, label in _labelled(data, gates=gates) if row["scale"] == "ratio" and row["change"]]
    found = found[:MOST_ROWS]
    rows = [row for row, _ in found]
    if not rows:
        return None
    shown = [[_percent(row[end]) for end in ("low", "change", "high")] for row in rows]
    ends = [value for values in shown for value in values] + [_percent(row["worse_beyond"]) for row in rows if gates]
    places = {float(len(rows) - 1 - number): row for number, row in enumerate(rows)}

    def draw(axes: Axes) -> None:
        marks.line(axes, [0.0, 0.0], axes.get_ylim(), INK, width=1.0)
        for (place, row), (low, change, high) in zip(places.items(), shown, strict=True):
            tip = f"{comparison.number_name(row)}: {comparison.change_text(row['change'], row['scale'])}"
            colour = TONES.get(row["word"], MUTED)
            marks.estimate(axes, change, place, colour, beside=(low, high), tip=tip)
            if gates:
                at = _percent(row["worse_beyond"])
                marks.line(axes, [at, at], [place - 0.3, place + 0.1], INK, width=1.2)

    labels = {place: shortened_inside(label, MAX_LABEL) for place, (_, label) in zip(places, found, strict=True)}
    y = scales.Scale(-0.6, len(rows) - 0.4, marks=dict.fromkeys(places, " "))
    least, greatest = min(0.0, *ends), max(0.0, *ends)
    room = 0.08 * (greatest - least) or 1.0
    x = scales.between(least - room, greatest + room)

    def named(axes: Axes) -> None:
        for place, label in labels.items():
            axes.text(0.01, place + 0.18, label, transform=axes.get_yaxis_transform(), fontsize=marks.FONT - 1)

    name = "changes" if gates else "changes-shown"
    title = "Changes that gate" if gates else "Changes that do not gate"
    height = 2 * ROW_HEIGHT * max(2, len(rows))
    label = f"change, %, with the {comparison.interval_name(data)}"
    svg = picture(name, [Panel("", y, draw)], x, label, mark=named, height=height)
    changes = [f"{label} {comparison.change_text(row['change'], 'ratio')}" for row, label in found]
    alt = f"{title}: {'; '.join(changes)}."
    reading = "Right of 0 is more. Short lines are the margins: beyond one for sure is a regression." if gates else ""
    return Plot(name, alt, svg, title, reading or "Right of 0 is more.")


def _labelled(data: Mapping[str, Any], *, gates: bool) -> list[tuple[Mapping[str, Any], str]]:
    """Return the rows that gate, or those that do not, each with its number, configuration and load in words."""
    rows = [row for row in data["rows"] if row["gates"] is gates]
    loads = comparison.loads_of(rows)
    return [(row, f"{comparison.number_name(row)}, {load}") for row, load in zip(rows, loads, strict=True)]


def _percent(ratio: float | None) -> float:
    return float("nan") if ratio is None else 100 * (ratio - 1)


def pairs(data: Mapping[str, Any]) -> Plot | None:
    """Return the ratio of each pair of starts in their order, of the numbers that gate; None without pairs."""
    rows = [(row, label) for row, label in _labelled(data, gates=True) if row["scale"] == "ratio" and row["values"]]
    shown = [(label, [_step(*pair) for pair in row["values"]]) for row, label in rows]
    known = [(label, steps) for label, steps in shown if any(map(math.isfinite, steps))][: len(COLOURS)]
    if not known:
        return None
    numbers = list(range(1, max(len(own) for _, own in known) + 1))

    def draw(axes: Axes) -> None:
        marks.across(axes, 0.0, INK, "-")
        for place, (label, own) in enumerate(known):
            colour, dash = marks.look(place)
            marks.line(axes, numbers[: len(own)], own, colour, dash, words=shortened_inside(label, MAX_LABEL))
            marks.dots(axes, numbers[: len(own)], own, colour)

    every = [0.0, *(value for _, own in known for value in own if math.isfinite(value))]
    room = 0.1 * (max(every) - min(every)) or 1.0
    y = scales.between(min(every) - room, max(every) + room)
    x = scales.Scale(0.0, len(numbers) + 0.5, marks={float(one): str(one) for one in numbers})
    svg = picture("pairs", [Panel("change, %", y, draw)], x, "pair of starts")
    alt = f"Change in each of {data['pairs']} pairs of starts."
    return Plot("pairs", alt, svg, "Pair by pair", "A line that rises or falls steadily is a drift that pairs cancel.")


def _step(base: float | None, head: float | None) -> float:
    """Return the change of a pair, %; NaN if a number of it is unknown, or the first is zero."""
    return 100 * (head / base - 1) if base and head is not None else math.nan


def _distributions(one: Curves, data: Mapping[str, Any]) -> Iterator[Plot]:
    """Yield both distributions of each latency."""
    for metric in METRICS:
        frames = {side: frame[frame["metric"] == metric] for side, frame in one.distributions.items()}
        if len(frames) == 2 and all(len(frame) for frame in frames.values()):
            curves = [Curve.of(_side(data, side), frames[side]) for side in SIDES]
            name = file_name(f"both-{one.load}-{metric.removesuffix('_ms')}")
            title = f"{LATENCIES[metric]}, {one.load}"
            yield distribution_of(name, f"Both distributions of {title}", title, curves, LATENCIES[metric])


def _over_time(one: Curves, data: Mapping[str, Any]) -> Iterator[Plot]:
    """Yield the medians of both sides over the time of the load."""
    panels, last = [], 0.0
    for metric in METRICS[:2]:
        frames = {side: frame[frame["metric"] == metric] for side, frame in one.times.items()}
        if len(frames) < 2 or not all(len(frame) for frame in frames.values()):
            continue
        values = [value for frame in frames.values() for value in frame["p50_ms"]]
        last = max(last, *(float(frame["at_s"].max()) for frame in frames.values()))
        panels.append(Panel(f"median {LATENCIES[metric]}, ms", scales.near(values, 4), _lines(frames, data)))
    if panels:
        name, title = file_name(f"both-{one.load}-time"), f"Over time, {one.load}"
        svg = picture(name, panels, scales.between(0.0, last, 8), "time, s", height=LOW)
        yield Plot(name, f"Medians of both sides over time, {one.load}.", svg, title, "Both were sent the same load.")


def _lines(frames: Mapping[str, pd.DataFrame], data: Mapping[str, Any]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for place, side in enumerate(SIDES):
            colour = marks.look(place)[0]
            frame = frames[side]
            marks.line(axes, frame["at_s"], frame["p50_ms"], colour, DASHED if place else "-", words=_side(data, side))

    return draw


def _side(data: Mapping[str, Any], side: str) -> str:
    return shortened_inside(str(data[side]["name"]), MAX_LABEL)
