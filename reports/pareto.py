"""The picture of a choice: speed against memory, quality as the marker, the front drawn."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reports.data import ReportData
from reports.decision_table import decisions
from reports.drawing import COLOURS, INK, MUTED, Plot, figure, label_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = {"reference": "D", "near-lossless": "o", "good": "s", "degraded": "^", "poor": "X", "": "P"}
SIZE_INCHES = (6.4, 3.4)
LETTER_POINTS, LINE_POINTS = 4.6, 11.0
PLACES = ((7, 4), (7, -11), (-7, 4), (-7, -11), (7, 15), (-7, 15), (7, -22), (-7, -22))
MAX_LABEL = 28
_MEMORIES = {"rss_peak_bytes": "memory", "gpu_memory_peak_bytes": "GPU memory"}


@dataclass(frozen=True, slots=True)
class Point:
    """A row of the choice. low, high: of its speed, equal to it where there is no interval."""

    label: str
    memory: float
    speed: float
    low: float
    high: float
    front: bool
    chosen: bool
    word: str


def of_models(data: ReportData) -> dict[str, list[Plot]]:
    """The pictures of each model with several rows; none where fewer than two have both numbers."""
    return {table["model"]: list(_of_model(table)) for table in decisions(data)}


def _of_model(table: dict[str, Any]) -> Iterator[Plot]:
    for memory, noun in _MEMORIES.items():
        points = list(_points(table, memory))
        if len(points) > 1:
            yield _draw(table, points, noun)


def _points(table: dict[str, Any], memory: str) -> Iterator[Point]:
    for row in table["rows"]:
        speed, held = row["values"]["speed"], row["values"][memory]
        if speed["value"] is None or held["value"] is None or row["memory"] != memory:
            continue
        low, high = (speed["value"] if speed[end] is None else speed[end] for end in ("low", "high"))
        yield Point(
            row["label"], held["value"], speed["value"], low, high, bool(row["front"]), row["chosen"], row["word"]
        )


def _draw(table: dict[str, Any], points: Sequence[Point], noun: str) -> Plot:
    largest = max(point.memory for point in points)
    scale, unit = (2**30, "GiB") if largest >= 2**30 else (2**20, "MiB")
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", f"choice-{table['model']}-{noun}").strip("-")
    with figure(name, size_inches=SIZE_INCHES) as drawing:
        axes = drawing.axes
        _link(axes, points, scale)
        for point in points:
            _mark(axes, point, scale)
        label_axes(axes, f"{noun} at its peak, {unit}", "speed, tokens/s", from_zero=True)
        axes.set_xlim(*_span([point.memory / scale for point in points]))
        axes.set_ylim(top=max(point.high for point in points) * 1.12)
        _name(axes, points, scale)
        _legend(axes, points)
    front = ", ".join(point.label for point in points if point.front)
    alt = f"Speed against {noun} of {len(points)} rows. The line joins those that nothing beats: {front or 'none'}."
    return Plot(name, alt, drawing.svg)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Room at both sides for labels, at least a tenth of the value where all are alike."""
    room = max((max(values) - min(values)) * 0.22, max(values) * 0.05)
    return max(0.0, min(values) - room), max(values) + room


def _mark(axes: Axes, point: Point, scale: float) -> None:
    colour = COLOURS[0] if point.front else MUTED
    spread = [[max(0.0, point.speed - point.low)], [max(0.0, point.high - point.speed)]]
    axes.errorbar(
        [point.memory / scale],
        [point.speed],
        yerr=spread,
        fmt=MARKERS.get(point.word, MARKERS[""]),
        markersize=6,
        color=colour,
        markerfacecolor=colour if point.front else "none",
        elinewidth=0.9,
        capsize=2,
    )


def _link(axes: Axes, points: Sequence[Point], scale: float) -> None:
    """A line through the rows that nothing beats, from the smallest on."""
    front = sorted((point for point in points if point.front), key=lambda point: (point.memory, -point.speed))
    across, up = [point.memory / scale for point in front], [point.speed for point in front]
    axes.plot(across, up, color=COLOURS[0], alpha=0.45, linewidth=1.1, linestyle="--", zorder=1)


def _name(axes: Axes, points: Sequence[Point], scale: float) -> None:
    """Labels beside their points where they cover neither a point nor another label."""
    places = [axes.transData.transform((point.memory / scale, point.speed)) for point in points]
    per_point = axes.figure.dpi / 72
    spots = [(float(x) / per_point, float(y) / per_point) for x, y in places]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    for point, (x, y) in zip(points, spots, strict=True):
        text = point.label if len(point.label) <= MAX_LABEL else f"{point.label[: MAX_LABEL - 1]}…"
        boxes = [(_box(text, x, y, across, up), across, up) for across, up in PLACES]
        box, across, up = next((one for one in boxes if not _covers(one[0], taken)), boxes[0])
        taken.append(box)
        axes.annotate(
            text,
            (point.memory / scale, point.speed),
            xytext=(across, up),
            textcoords="offset points",
            ha="left" if across > 0 else "right",
            fontsize=8,
            fontweight="bold" if point.chosen else "normal",
            color=INK,
        )


def _box(text: str, x: float, y: float, across: float, up: float) -> tuple[float, float, float, float]:
    width = len(text) * LETTER_POINTS
    left = x + across if across > 0 else x + across - width
    return left, y + up, left + width, y + up + LINE_POINTS


def _covers(box: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]) -> bool:
    return any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)


def _legend(axes: Axes, points: Sequence[Point]) -> None:
    """Which marker is which quality, and that hollow ones are beaten."""
    from matplotlib.lines import Line2D

    def sign(marker: str, text: str, *, front: bool) -> Line2D:
        colour = COLOURS[0] if front else MUTED
        face = colour if front else "none"
        return Line2D([], [], marker=marker, color=colour, markerfacecolor=face, linestyle="none", label=text)

    words = [word for word in MARKERS if any(point.word == word for point in points)]
    shown = [sign(MARKERS[word], word or "quality unknown", front=True) for word in words] if words != [""] else []
    if any(not point.front for point in points):
        shown.append(sign("o" if words != [""] else MARKERS[""], "hollow: beaten by another", front=False))
    if shown:
        axes.legend(handles=shown, frameon=False, fontsize=8, labelcolor=INK, loc="best")
