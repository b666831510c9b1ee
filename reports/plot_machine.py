"""Plots of the machine over the time of a trial: memory, processors, GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reports import scales
from reports.axes import Axes
from reports.drawing import Panel, Plot
from reports.format import amount, seconds
from reports.palette import COLOURS, DASHES, DOTTED, MUTED
from reports.plot_time import over_time
from reports.tables import Cell, Table

if TYPE_CHECKING:
    import pandas as pd

MOST_LINES = 4
THROTTLED = COLOURS[4]


@dataclass(frozen=True, slots=True)
class Line:
    """Readings of a gauge. words: what it is, in a legend.   limit: what the others must stay below."""

    source: str
    name: str
    words: str
    limit: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Gauges of one unit. scale: readings times this are shown."""

    title: str
    lines: tuple[Line, ...]
    scale: float = 1.0
    from_zero: bool = True


GROUPS = (
    Group(
        "memory, GiB",
        (Line("engine", "rss_bytes", "engine"), Line("host", "memory_used_bytes", "whole machine")),
        2**-30,
    ),
    Group(
        "GPU memory, GiB",
        (
            Line("gpu", "memory_used_bytes", "in use"),
            Line("gpu", "engine_memory_bytes", "by the engine"),
            Line("gpu", "memory_total_bytes", "all there is", limit=True),
        ),
        2**-30,
    ),
    Group("processor cores in use", (Line("engine", "cpu_share", "engine"), Line("client", "cpu_share", "client"))),
    Group("GPU utilisation, %", (Line("gpu", "utilisation_share", ""),), 100.0),
    Group("GPU power, W", (Line("gpu", "power_w", ""), Line("gpu", "power_limit_w", "limit", limit=True))),
    Group("GPU clock, MHz", (Line("gpu", "sm_clock_mhz", ""),), from_zero=False),
    Group("GPU temperature, °C", (Line("gpu", "temperature_c", ""),), from_zero=False),
    Group("KV cache in use, %", (Line("server", "kv_cache_share", ""),), 100.0),
)


def machine(series: dict[str, Any], name: str) -> Plot | None:
    """What was read of the machine under test; None where nothing was."""
    gauges = series["gauges"]
    throttled = _throttled(gauges)
    found = [(group, list(_found(group, gauges))) for group in GROUPS]
    panels = [_panel(group, own, throttled) for group, own in found if any(not line.limit for line, _, _ in own)]
    if not panels:
        return None
    svg = over_time(panels, series, ["red: GPU throttled"] if throttled else [])
    return Plot(f"{name}-machine", _alt(series, throttled), svg, "The machine over time", _table(gauges))


def _found(group: Group, gauges: pd.DataFrame) -> Iterator[tuple[Line, str, pd.DataFrame]]:
    """(line, source, readings) of what was read."""
    kind = gauges["source"].str.rstrip("0123456789")
    for line in group.lines:
        for source, own in gauges[(kind == line.source) & (gauges["name"] == line.name)].groupby("source", sort=True):
            yield line, str(source), own


def _panel(
    group: Group, found: Sequence[tuple[Line, str, pd.DataFrame]], throttled: Sequence[tuple[float, float]]
) -> Panel:
    values = [own["value"] for line, _, own in found if not line.limit]
    highest = max(float(own.max()) for own in values)
    if group.title.endswith("GiB") and highest < 2**30:
        group = replace(group, title=group.title.replace("GiB", "MiB"), scale=2**-20)
    of_gpus = group.title.startswith("GPU")
    limits = {float(own["value"].max()) for line, _, own in found if line.limit}
    limits = {limit * group.scale for limit in limits if limit < 2.5 * highest}
    top = max(highest * group.scale, *limits) if limits else highest * group.scale
    least = min(float(own.min()) for own in values) * group.scale

    def draw(axes: Axes) -> None:
        _lines(axes, group, [one for one in found if not one[0].limit])
        for limit in sorted(limits):
            axes.across(limit, MUTED, DOTTED, next(line.words for line in group.lines if line.limit))
        for start, end in throttled if of_gpus else ():
            axes.span(start, end, THROTTLED, 0.45, 0.1)

    room = (top - least) * 0.08 or 1.0
    upright = scales.from_zero(top, 4) if group.from_zero else scales.linear(least - room, top + room, 4)
    return Panel(group.title, upright, draw)


def _lines(axes: Axes, group: Group, found: Sequence[tuple[Line, str, pd.DataFrame]]) -> None:
    number = 0
    for line in dict.fromkeys(line for line, _, _ in found):
        own = {source: readings for each, source, readings in found if each is line}
        if len(own) > MOST_LINES:
            _range(axes, line, own, group.scale, number)
            number += 1
            continue
        for source, readings in own.items():
            which = f"{_kind(line)} {source.removeprefix(line.source)}" if len(own) > 1 else ""
            _line(axes, readings, group.scale, number, " ".join(word for word in (line.words, which) if word))
            number += 1


def _kind(line: Line) -> str:
    return "GPU" if line.source == "gpu" else line.source


def _line(axes: Axes, own: pd.DataFrame, scale: float, number: int, words: str) -> None:
    colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
    axes.line(own["at_s"], own["value"] * scale, colour, dash, words=words)


def _range(axes: Axes, line: Line, own: dict[str, pd.DataFrame], scale: float, number: int) -> None:
    """Of many the mean, and a band from the least to the greatest."""
    import pandas as pd

    every = pd.concat(list(own.values()))
    at = every["at_s"].round(1)
    parts = every["value"].groupby(at)
    low, high = parts.min() * scale, parts.max() * scale
    axes.band(low.index, low, high, COLOURS[number % len(COLOURS)])
    mean = pd.DataFrame({"at_s": low.index, "value": parts.mean().to_numpy()})
    _line(axes, mean, scale, number, f"mean of {len(own)} {_kind(line)}s and their range")


def _throttled(gauges: pd.DataFrame) -> list[tuple[float, float]]:
    """When a GPU was throttled: from the middle between a reading that was not and one that was, and back."""
    spans: list[tuple[float, float]] = []
    for _, own in gauges[gauges["name"] == "throttled"].groupby("source", sort=True):
        at, on = own["at_s"].to_numpy(), (own["value"] > 0).to_numpy()
        for i in range(len(at)):
            if on[i]:
                start = (at[i - 1] + at[i]) / 2 if i else at[i]
                end = (at[i] + at[i + 1]) / 2 if i + 1 < len(at) else at[i]
                if spans and abs(spans[-1][1] - start) < 1e-9:
                    spans[-1] = (spans[-1][0], end)
                else:
                    spans.append((start, end))
    return spans


def _alt(series: dict[str, Any], throttled: Sequence[tuple[float, float]]) -> str:
    gauges = series["gauges"]
    words = {
        ("engine", "rss_bytes"): ("memory of the engine", "bytes", ""),
        ("gpu", "memory_used_bytes"): ("memory of a GPU", "bytes", ""),
        ("gpu", "power_w"): ("power of a GPU", "number", " W"),
        ("gpu", "utilisation_share"): ("utilisation of a GPU", "share", ""),
    }
    kind = gauges["source"].str.rstrip("0123456789")
    parts = []
    for (source, name), (noun, show, unit) in words.items():
        own = gauges.loc[(kind == source) & (gauges["name"] == name), "value"]
        if len(own):
            parts.append(f"{noun} at most {amount(float(own.max()), show=show)}{unit}")
    if throttled:
        parts.append(f"throttled for {seconds(sum(end - start for start, end in throttled))}")
    return f"The machine over {seconds(series['phases']['end_s'])}: {', '.join(parts) or 'see the table'}."


def _table(gauges: pd.DataFrame) -> Table:
    """Each gauge from its first reading to its last."""
    rows = []
    for (source, name), own in gauges.groupby(["source", "name"], sort=True):
        show = "bytes" if str(name).endswith("_bytes") else "number"
        values = own["value"]
        found = (values.iloc[0], values.min(), values.mean(), values.max(), values.iloc[-1])
        rows.append((Cell(f"{source} {name}"), *(Cell(amount(float(value), show=show)) for value in found)))
    return Table("", ("gauge", "first", "least", "mean", "greatest", "last"), rows[:40])
