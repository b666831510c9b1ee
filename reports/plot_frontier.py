"""The frontier: throughput against latency over the loads of each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.data import ALL, ReportData, place
from reports.drawing import COLOURS, DASHES, INK, Plot, figure, legend, plain_log_ticks
from reports.format import amount
from reports.plot_latency import LEGEND_LINE_INCHES, shortened
from reports.tables import Cell, Table, groups, measured, pooled_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (6.4, 3.4)
THROUGHPUT = ("output_tokens_per_s", "value")
LATENCIES = (("ttft_ms", "TTFT"), ("e2e_ms", "end to end"))
LINKED = ("single_user", "sustained", "mixed", "sessions")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
MAX_LABEL = 26


@dataclass(frozen=True, slots=True)
class Point:
    """A load on a cell. throughput, latency: rows of the summary.   order: how much load it is.   linked: whether
    more of the same load is a step along a line.
    """

    cell: str
    load: str
    throughput: dict[str, Any]
    latency: dict[str, Any]
    order: float
    linked: str


def frontier(data: ReportData) -> Plot | None:
    """Output tokens per second against the p95 of TTFT (of end to end where nothing streamed), one line per cell
    through its loads, least first; None for fewer than two points. Invalid trials are no results to compare.
    """
    for metric, noun in LATENCIES:
        points, bounds = _points(data, metric)
        if len(points) > 1:
            return _draw(points, bounds, noun)
    return None


def _points(data: ReportData, metric: str) -> tuple[list[Point], int]:
    """Those with both numbers, and how many lack one because only a bound is known."""
    rows = pooled_rows(data)
    points, bounds = [], 0
    for keys, trials in groups(data).items():
        throughput, latency = rows.get((*keys, ALL, *THROUGHPUT)), rows.get((*keys, ALL, metric, "p95"))
        if throughput is None or latency is None or data.verdict_of(keys) == "invalid":
            continue
        if throughput["bound"] != "point" or latency["bound"] != "point":
            bounds += 1
            continue
        busy = rows.get((*keys, ALL, "mean_concurrency", "value"))
        trial = trials[0][1]
        order = float(busy["value"]) if busy is not None else float(trial["index"])
        linked = str(trial["loop"]) if trial["kind"] in LINKED else ""
        points.append(Point(place(keys), keys[-1], throughput, latency, order, linked))
    return points, bounds


def _draw(points: Sequence[Point], bounds: int, noun: str) -> Plot:
    cells = list(dict.fromkeys(point.cell for point in points))[: len(COLOURS)]
    shown = [point for point in points if point.cell in cells]
    with figure("frontier", LEGEND_LINE_INCHES * (len(cells) + 0.5) if len(cells) > 1 else 0.0, SIZE_INCHES) as drawing:
        axes = drawing.axes
        for number, cell in enumerate(cells):
            own = sorted((point for point in shown if point.cell == cell), key=lambda point: point.order)
            _line(axes, own, number, shortened(cell))
        _scale(axes, shown)
        axes.set_xlabel("output tokens/s (more is better)")
        axes.set_ylabel(f"{noun} p95, ms (less is better)")
        _name(axes, shown, cells)
        legend(axes, loc="upper left", bbox_to_anchor=(-0.1, -0.15), handlelength=3.2)
    return Plot(
        "frontier",
        _alt(shown, noun, bounds),
        drawing.svg,
        f"Throughput against {noun} over the loads",
        _table(shown, noun),
    )


def _line(axes: Axes, own: Sequence[Point], number: int, label: str) -> None:
    colour = COLOURS[number]
    for loop in dict.fromkeys(point.linked for point in own):
        linked = [point for point in own if point.linked == loop and loop]
        axes.plot(
            [point.throughput["value"] for point in linked],
            [point.latency["value"] for point in linked],
            color=colour,
            linestyle=DASHES[number % len(DASHES)],
            alpha=0.6,
        )
    axes.errorbar(
        [point.throughput["value"] for point in own],
        [point.latency["value"] for point in own],
        xerr=_spread([point.throughput for point in own]),
        yerr=_spread([point.latency for point in own]),
        fmt=MARKERS[number],
        markersize=5.5,
        color=colour,
        elinewidth=0.9,
        capsize=2,
        label=label,
    )


def _spread(rows: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Distances of the ends of the intervals below and above; 0 where they are open or unknown."""

    def known(distance: float) -> float:
        return distance if math.isfinite(distance) and distance > 0 else 0.0

    return [
        [known(row["value"] - row["low"]) for row in rows],
        [known(row["high"] - row["value"]) for row in rows],
    ]


def _scale(axes: Axes, points: Sequence[Point]) -> None:
    """Logarithmic upright where latencies differ much; both with room for labels."""
    values = [point.latency["value"] for point in points]
    ends = [row[end] for point in points for row in (point.latency,) for end in ("low", "high")]
    finite = [value for value in (*values, *ends) if math.isfinite(value) and value > 0]
    if not finite:
        return
    low, high = min(finite), max(finite)
    if high > 6 * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.4, high * 1.5)
        plain_log_ticks(axes.yaxis, low / 1.4, high * 1.5)
    else:
        axes.set_ylim(0, high * 1.15)
    axes.set_xlim(0, max(point.throughput["value"] for point in points) * 1.18)


def _name(axes: Axes, points: Sequence[Point], cells: Sequence[str]) -> None:
    """The load beside its point."""
    for point in points:
        text = point.load if len(point.load) <= MAX_LABEL else f"{point.load[: MAX_LABEL - 1]}…"
        where = (point.throughput["value"], point.latency["value"])
        up = 5 if cells.index(point.cell) % 2 == 0 else -11
        axes.annotate(text, where, xytext=(6, up), textcoords="offset points", fontsize=7.5, color=INK)


def _alt(points: Sequence[Point], noun: str, bounds: int) -> str:
    fastest = max(points, key=lambda point: point.throughput["value"])
    quickest = min(points, key=lambda point: point.latency["value"])
    text = (
        f"Throughput against {noun} p95 of {len(points)} loads: most tokens/s {amount(fastest.throughput['value'])} "
        f"({fastest.cell}, {fastest.load}, {noun} p95 {amount(fastest.latency['value'])} ms); least {noun} p95 "
        f"{amount(quickest.latency['value'])} ms ({quickest.cell}, {quickest.load})."
    )
    return text + (f" {bounds} more had too few requests for a p95." if bounds else "")


def _table(points: Sequence[Point], noun: str) -> Table:
    rows = [
        (Cell(point.cell), Cell(point.load), measured(point.throughput), measured(point.latency)) for point in points
    ]
    return Table("", ("cell", "load", "output tokens/s", f"{noun} p95, ms"), rows[:40], texts=2)
