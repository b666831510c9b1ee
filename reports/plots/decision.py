"""Plot of the decision: speed against memory, with quality as the marker and the best speed for the memory as steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.data import ReportData
from reports.format import amount, between, shortened
from reports.plots import marks, scales
from reports.plots.drawing import HEIGHT, Panel, Plot, file_name, picture
from reports.plots.marks import COLOURS, INK, MUTED
from reports.tables.base import Cell, Table, first_rows, number
from reports.tables.decision import decisions

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEVERAL = "several grades possible"
MARKERS = {"reference": "D", "near-lossless": "o", "good": "s", "degraded": "^", "poor": "X", SEVERAL: "h", "": "P"}
READING = "Up and left is better."
STEPS = " The steps are the highest speed that so much memory buys, whatever the quality."
MAX_LABEL, MAX_NAME = 28, 120
MOST_LABELS = 20
"""Largest number of rows that are all named; of more, only the Pareto-optimal and the recommended are."""
_MEMORIES = {"memory_peak_bytes": "memory", "gpu_memory_peak_bytes": "GPU memory"}


@dataclass(frozen=True, slots=True)
class Point:
    """Row of the decision; low, high: ends of its speed's interval, equal to the speed if there is none."""

    label: str
    memory: float
    speed: float
    low: float
    high: float
    front: bool | None
    chosen: bool
    word: str


def of_models(data: ReportData) -> dict[str, list[Plot]]:
    """Return the plots of each model with several rows; none if fewer than two have both numbers."""
    found = {}
    for table in decisions(data):
        drawn = ((list(_points(table, memory)), noun) for memory, noun in _MEMORIES.items())
        found[table["model"]] = [_draw(table, points, noun) for points, noun in drawn if len(points) > 1]
    return found


def _points(table: dict[str, Any], memory: str) -> Iterator[Point]:
    for row in table["rows"]:
        speed, held = row["values"]["speed"], row["values"]["memory_needed_bytes"]["value"]
        if speed["value"] is None or held is None or row["memory"] != memory:
            continue
        low, high = (speed["value"] if speed[end] is None else speed[end] for end in ("low", "high"))
        yield Point(row["label"], held, speed["value"], low, high, row["front"], row["chosen"], row["word"])


def _draw(table: dict[str, Any], points: Sequence[Point], noun: str) -> Plot:
    largest = max(point.memory for point in points)
    scale, unit = (2**30, "GiB") if largest >= 2**30 else (2**20, "MiB")
    name = file_name(f"choice-{table['model'][:MAX_NAME]}-{noun}").strip("-")
    memory = [point.memory / scale for point in points]
    best = marks.front([(-held, point.speed) for held, point in zip(memory, points, strict=True)])[::-1]

    def draw(axes: Axes) -> None:
        marks.line(axes, [-held for held, _ in best], [speed for _, speed in best], INK, width=1.2, steps="post")
        for point, held in zip(points, memory, strict=True):
            ends, tip = (point.low, point.high), f"{point.label}: {amount(point.speed)} tokens/s"
            colour = COLOURS[0] if point.front else MUTED
            shape = MARKERS[_grade(point)]
            marks.estimate(axes, held, point.speed, colour, shape, filled=bool(point.front), above=ends, tip=tip)
        _name(axes, points, memory)
        _keys(axes, points)

    y = scales.from_zero([end for point in points for end in (point.high, point.speed)])
    panel = Panel("speed, tokens/s", y, draw)
    svg = picture(name, [panel], scales.near(memory, room=0.22), f"{noun} needed, {unit}", height=1.2 * HEIGHT)
    optimal = ", ".join(point.label for point in points if point.front) or "none"
    alt = f"Speed against {noun} of {len(points)} configurations. Pareto-optimal in speed, memory, quality: {optimal}."
    return Plot(name, alt, svg, f"Speed against {noun}", READING + STEPS * (len(best) > 1), _table(points, noun))


def _table(points: Sequence[Point], noun: str) -> Table:
    rows = [
        (
            Cell(point.label),
            number(point.memory, "bytes"),
            Cell(amount(point.speed, point.low, point.high), between(point.low, point.high), value=point.speed),
            Cell(point.word or "unknown"),
            Cell({True: "", False: "yes", None: "unknown"}[point.front]),
        )
        for point in points
    ]
    return first_rows(Table("", ("configuration", noun, "speed, tokens/s", "quality", "dominated"), rows))


def _name(axes: Axes, points: Sequence[Point], memory: Sequence[float]) -> None:
    """Write names beside the points; of many rows beside those on the front and the recommended ones."""
    labels = marks.Labels(axes, memory, [point.speed for point in points])
    for point, held in zip(points, memory, strict=True):
        if len(points) <= MOST_LABELS or point.front or point.chosen:
            labels.put(held, point.speed, shortened(point.label, MAX_LABEL), bold=point.chosen)


def _grade(point: Point) -> str:
    return point.word if point.word in MARKERS else SEVERAL


def _keys(axes: Axes, points: Sequence[Point]) -> None:
    """Explain the markers, and hollow points."""
    words = [word for word in MARKERS if any(_grade(point) == word for point in points)]
    graded = words if words != [""] else []
    for word in graded:
        marks.key(axes, word or "quality unknown", COLOURS[0], MARKERS[word])
    if any(not point.front for point in points):
        unsure = " or not known" if any(point.front is None for point in points) else ""
        marks.key(axes, f"hollow: dominated{unsure}", MUTED, "o" if graded else MARKERS[""], filled=False)
