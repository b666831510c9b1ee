"""Plot of throughput against latency over the loads of each configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from reports.data import ALL, ReportData, place
from reports.format import amount, shortened, shortened_inside
from reports.labels import LATENCIES
from reports.plots import marks, scales
from reports.plots.drawing import Plot, picture
from reports.plots.marks import COLOURS
from reports.tables.base import Cell, Table, by_class, first_rows, groups, measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THROUGHPUT = ("output_tokens_per_s", "value")
COMPARED = ("ttft_ms", "e2e_ms")
LINKED = ("single_user", "sustained", "mixed", "sessions")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
MAX_LABEL, MAX_NAME = 26, 64
HEIGHT, STEEP = 340.0, 6.0


@dataclass(frozen=True, slots=True)
class Point:
    """Load on a cell.

    Attributes:
        throughput, latency: Rows of the summary.
        order: Mean concurrency; without it the position of the load in the scenario.
        linked: Name of the line that joins loads of one kind, "" for none.
    """

    cell: str
    load: str
    throughput: dict[str, Any]
    latency: dict[str, Any]
    order: float
    linked: str

    @property
    def spot(self) -> tuple[float, float]:
        """Throughput and latency."""
        return float(self.throughput["value"]), float(self.latency["value"])

    @property
    def ends(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Interval of the throughput, and of the latency; an open or unknown end is the value itself."""
        return _ends(self.throughput), _ends(self.latency)


def _ends(row: dict[str, Any]) -> tuple[float, float]:
    low, high = (row[end] if math.isfinite(row[end]) else row["value"] for end in ("low", "high"))
    return float(low), float(high)


def frontier(data: ReportData) -> Plot | None:
    """Return output tokens per second against the p95 of TTFT, or of end to end if nothing streamed.

    Invalid trials are left out; fewer than two points make no plot.
    """
    for metric in COMPARED:
        points, bounds = _points(data, metric)
        if len(points) > 1:
            return _draw(points, bounds, LATENCIES[metric])
    return None


def _points(data: ReportData, metric: str) -> tuple[list[Point], int]:
    """Return the loads with both numbers, and the number of loads with a bound only."""
    points, bounds = [], 0
    for keys, trials in groups(data).items():
        rows = by_class(data).get((*keys, ALL), {})
        throughput, latency = rows.get(THROUGHPUT), rows.get((metric, "p95"))
        if throughput is None or latency is None or data.verdict_of(keys) == "invalid":
            continue
        if not (math.isfinite(throughput["value"]) and math.isfinite(latency["value"])):
            bounds += 1
            continue
        busy = rows.get(("mean_concurrency", "value"))
        trial = trials[0][1]
        order = float(busy["value"]) if busy is not None else float(trial.index)
        linked = str(trial.loop) if trial.kind in LINKED else ""
        points.append(Point(place(keys), keys[-1], throughput, latency, order, linked))
    return points, bounds


def _draw(points: Sequence[Point], bounds: int, noun: str) -> Plot:
    every = list(dict.fromkeys(point.cell for point in points))
    cells = every[: len(COLOURS)]
    loads = [sorted((one for one in points if one.cell == cell), key=lambda one: one.order) for cell in cells]
    across, up = ([end for own in loads for point in own for end in point.ends[axis]] for axis in (0, 1))
    steep = min(up) > 0 and max(up) > STEEP * min(up)

    def draw(axes: Axes) -> None:
        scales.around(axes.xaxis, min(across), max(across))
        if steep:
            scales.upright(axes.yaxis, min(up), max(up), STEEP)
        else:
            scales.around(axes.yaxis, min(up), max(up), 5)
        for number, (cell, own) in enumerate(zip(cells, loads, strict=True)):
            _line(axes, own, number)
            marks.key(axes, shortened_inside(cell, MAX_NAME), COLOURS[number], MARKERS[number])
        _name(axes, loads)

    labels = (
        f"output tokens/s (more is better{_begins(across)})",
        f"{noun} p95, ms (less is better{', logarithmic' if steep else _begins(up)})",
    )
    svg = picture("frontier", draw, labels, HEIGHT)
    some = f" of the first {len(cells)} of {len(every)} configurations" if len(every) > len(cells) else ""
    title = f"Throughput against {noun} over the loads{some}"
    return Plot("frontier", _alt(points, noun, bounds, some), svg, title, _table(points, noun))


def _begins(ends: Sequence[float]) -> str:
    """Return a remark on an axis that does not begin at 0."""
    return "; begins above 0" if scales.beginning(min(ends), max(ends)) > 0 else ""


def _linked(own: Sequence[Point]) -> Iterator[list[Point]]:
    """Yield the points of each line."""
    for loop in dict.fromkeys(point.linked for point in own if point.linked):
        yield [point for point in own if point.linked == loop]


def _line(axes: Axes, own: Sequence[Point], number: int) -> None:
    colour, dash = marks.look(number)
    for linked in _linked(own):
        x, y = zip(*(point.spot for point in linked), strict=True)
        marks.line(axes, x, y, colour, dash, width=1.4)
    x, y = zip(*(point.spot for point in own), strict=True)
    beside, above = zip(*(point.ends for point in own), strict=True)
    marks.estimates(axes, x, y, beside, above, colour, MARKERS[number])


def _name(axes: Axes, cells: Sequence[Sequence[Point]]) -> None:
    """Write the load beside its point."""
    points = [point for own in cells for point in own]
    x, y = zip(*(point.spot for point in points), strict=True)
    labels = marks.Labels(axes, x, y, list(_strokes(cells)))
    for point in points:
        labels.put(*point.spot, shortened(point.load, MAX_LABEL))


def _strokes(cells: Sequence[Sequence[Point]]) -> Iterator[marks.Line]:
    """Yield the straight lines of the picture: between loads, and of intervals."""
    for own in cells:
        for linked in _linked(own):
            yield from pairwise(point.spot for point in linked)
        for point in own:
            (x, y), ((left, right), (low, high)) = point.spot, point.ends
            yield (left, y), (right, y)
            yield (x, low), (x, high)


def _alt(points: Sequence[Point], noun: str, bounds: int, some: str) -> str:
    fastest, quickest = max(points, key=lambda point: point.spot[0]), min(points, key=lambda point: point.spot[1])
    text = (
        f"Throughput against {noun} p95 of {len(points)} loads: most tokens/s {amount(fastest.spot[0])} "
        f"({fastest.cell}, {fastest.load}, {noun} p95 {amount(fastest.spot[1])} ms); least {noun} p95 "
        f"{amount(quickest.spot[1])} ms ({quickest.cell}, {quickest.load})."
    )
    text += f" Drawn are those{some}." if some else ""
    return text + (f" {bounds} more are known as a bound only." if bounds else "")


def _table(points: Sequence[Point], noun: str) -> Table:
    rows = [
        (Cell(point.cell), Cell(point.load), measured(point.throughput), measured(point.latency)) for point in points
    ]
    return first_rows(Table("", ("configuration", "load", "output tokens/s", f"{noun} p95, ms"), rows, texts=2))
