"""Plots of the machine over the time of a trial: memory, processors, GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.format import amount, seconds
from reports.plots import marks, scales
from reports.plots.drawing import Panel, Plot
from reports.plots.marks import COLOURS, DOTTED, MUTED, Floats
from reports.plots.time import over_time
from reports.tables.base import Cell, Table, first_rows, number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST_LINES = 4
MOST_ABOVE = 2.5
THROTTLED = COLOURS[1]
READING = "A dip in speed at the same time as a full processor, memory or throttled GPU comes from the machine."


@dataclass(frozen=True, slots=True)
class Line:
    """Readings of a gauge, with its name in the legend; `limit`: the upper limit of the others."""

    source: str
    name: str
    words: str
    limit: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Gauges of one unit; `scale` is the factor from a reading to that unit."""

    title: str
    lines: tuple[Line, ...]
    scale: float = 1.0
    from_zero: bool = True


GROUPS = (
    Group("memory of the engine, GiB", (Line("engine", "rss_bytes", ""),), 2**-30),
    Group("memory in use on the whole machine, GiB", (Line("host", "memory_used_bytes", ""),), 2**-30),
    Group(
        "GPU memory, GiB",
        (
            Line("gpu", "memory_used_bytes", "in use"),
            Line("gpu", "engine_memory_bytes", "by the engine"),
            Line("gpu", "memory_total_bytes", "total", limit=True),
        ),
        2**-30,
    ),
    Group(
        "processor cores in use", (Line("engine", "cpu_share", "engine"), Line("client", "cpu_share", "load generator"))
    ),
    Group("GPU utilisation, %", (Line("gpu", "utilisation_share", ""),), 100.0),
    Group("GPU power, W", (Line("gpu", "power_w", ""), Line("gpu", "power_limit_w", "limit", limit=True))),
    Group("GPU clock, MHz", (Line("gpu", "sm_clock_mhz", ""),), from_zero=False),
    Group("GPU temperature, °C", (Line("gpu", "temperature_c", ""),), from_zero=False),
    Group("KV cache in use, %", (Line("server", "kv_cache_share", ""),), 100.0),
)
PEAKS = {
    ("engine", "rss_bytes"): ("memory of the engine", "bytes", ""),
    ("gpu", "memory_used_bytes"): ("memory of a GPU", "bytes", ""),
    ("gpu", "power_w"): ("power of a GPU", "number", " W"),
    ("gpu", "utilisation_share"): ("utilisation of a GPU", "share", ""),
}


@dataclass(frozen=True, slots=True)
class Gauge:
    """Readings of one gauge of one source, such as "gpu1".

    Attributes:
        at: Times in seconds.
        value: Values drawn.
        least, mean, greatest: Minimum, mean and maximum of the readings behind each value.
    """

    source: str
    name: str
    at: Floats
    value: Floats
    least: Floats
    mean: Floats
    greatest: Floats

    @property
    def kind(self) -> str:
        return self.source.rstrip("0123456789")


Found = Sequence[tuple[Line, Gauge]]
Span = tuple[float, float]


def machine(series: dict[str, Any], name: str) -> Plot | None:
    """Return the readings of the machine under test; None if there are none."""
    gauges = list(_gauges(series["gauges"]))
    throttled = _throttled(gauges)
    known: dict[tuple[str, str], list[Gauge]] = {}
    for one in gauges:
        known.setdefault((one.kind, one.name), []).append(one)
    found = [
        (group, [(line, one) for line in group.lines for one in known.get((line.source, line.name), ())])
        for group in GROUPS
    ]
    panels = [_panel(group, own, throttled) for group, own in found if any(not line.limit for line, _ in own)]
    if not panels:
        return None
    name = f"{name}-machine"
    svg = over_time(name, panels, series, ["red: GPU throttled"] if throttled else [])
    alt = _alt(known, throttled, series["phases"]["end_s"])
    return Plot(name, alt, svg, "The machine over time", READING, _table(gauges))


def _gauges(frame: pd.DataFrame) -> Iterator[Gauge]:
    for (source, name), own in frame.groupby(["source", "name"], sort=True, observed=True):
        columns = (own[column].to_numpy(np.float64) for column in ("at_s", "value", "least", "mean", "greatest"))
        yield Gauge(str(source), str(name), *columns)


def _panel(group: Group, found: Found, throttled: Sequence[Span]) -> Panel:
    shown = [(line, gauge) for line, gauge in found if not line.limit]
    highest = max(float(gauge.value.max()) for _, gauge in shown)
    if group.title.endswith("GiB") and highest < 2**30:
        group = replace(group, title=group.title.replace("GiB", "MiB"), scale=2**-20)
    of_gpus = group.title.startswith("GPU")
    limits = {float(gauge.value.max()) for line, gauge in found if line.limit}
    limits = {limit * group.scale for limit in limits if limit < MOST_ABOVE * highest}
    top = max(highest * group.scale, *limits) if limits else highest * group.scale
    least = min(float(gauge.value.min()) for _, gauge in shown) * group.scale
    y = scales.from_zero([top], 4) if group.from_zero else scales.near([least, top], 4)

    def draw(axes: Axes) -> None:
        _lines(axes, group.scale, shown)
        for limit in sorted(limits):
            marks.across(axes, limit, MUTED, DOTTED, next(line.words for line in group.lines if line.limit))
        for start, end in throttled if of_gpus else ():
            marks.span(axes, start, end, THROTTLED, 0.45, (0, 0.1))

    return Panel(group.title, y, draw)


def _lines(axes: Axes, scale: float, found: Found) -> None:
    drawn = 0
    for line in dict.fromkeys(line for line, _ in found):
        own = [gauge for each, gauge in found if each is line]
        if len(own) > MOST_LINES:
            _range(axes, own, scale, drawn)
            drawn += 1
            continue
        noun = "GPU" if line.source == "gpu" else line.source
        for gauge in own:
            which = f"{noun} {gauge.source.removeprefix(line.source)}" if len(own) > 1 else ""
            words = " ".join(word for word in (line.words, which) if word)
            marks.line(axes, gauge.at, gauge.value * scale, *marks.look(drawn), words=words)
            drawn += 1


def _range(axes: Axes, own: Sequence[Gauge], scale: float, place: int) -> None:
    """Draw the mean of many gauges, and a band from minimum to maximum."""
    at = np.unique(np.concatenate([gauge.at for gauge in own]).round(1))
    every = np.array([np.interp(at, gauge.at, gauge.value) for gauge in own]) * scale
    colour, dash = marks.look(place)
    marks.band(axes, at, every.min(axis=0), every.max(axis=0), colour)
    noun = "GPUs" if own[0].kind == "gpu" else f"{own[0].kind}s"
    marks.line(axes, at, every.mean(axis=0), colour, dash, words=f"mean of {len(own)} {noun} and their range")


def _throttled(gauges: Sequence[Gauge]) -> list[Span]:
    """Return the spans in which any GPU was throttled; they begin and end in the middle between two readings."""
    spans: list[Span] = []
    for gauge in gauges:
        if gauge.name != "throttled":
            continue
        middles = (gauge.at[1:] + gauge.at[:-1]) / 2
        starts, ends = np.append(gauge.at[:1], middles), np.append(middles, gauge.at[-1:])
        on = gauge.value > 0
        spans += zip(starts[on].tolist(), ends[on].tolist(), strict=True)
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 1e-9:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _alt(known: Mapping[tuple[str, str], Sequence[Gauge]], throttled: Sequence[Span], end_s: float) -> str:
    parts = []
    for key, (noun, show, unit) in PEAKS.items():
        if key in known:
            peak = max(float(gauge.greatest.max()) for gauge in known[key])
            parts.append(f"{noun} at most {amount(peak, show=show)}{unit}")
    if throttled:
        parts.append(f"throttled for {seconds(sum(end - start for start, end in throttled))}")
    return f"The machine over {seconds(end_s)}: {', '.join(parts) or 'see the table'}."


def _table(gauges: Sequence[Gauge]) -> Table:
    rows = []
    for gauge in gauges:
        show = "bytes" if gauge.name.endswith("_bytes") else "number"
        found = (gauge.value[0], gauge.least.min(), gauge.mean.mean(), gauge.greatest.max(), gauge.value[-1])
        rows.append((Cell(f"{gauge.source} {gauge.name}"), *(number(float(value), show) for value in found)))
    table = Table("", ("gauge", "first", "minimum", "mean", "maximum", "last"), rows)
    return first_rows(table, "gauges are in samples.parquet")
