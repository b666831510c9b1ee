"""Marks in axes with fixed ends: lines, bands, dots, shades, labels of points, and their colours and dashes.

Values beyond an end are drawn at it; nothing is clipped, so marks at an end are not cut in half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

# At least 3:1 on white and on the dark page; neighbours differ for the colour-blind too, and lines in their dashes
COLOURS = ("#2d78b4", "#ff4b0f", "#0fa587", "#782dff", "#d21e4b", "#1e8796", "#8778ff", "#f0694b")
DASHES: tuple[Any, ...] = ("-", (0, (7, 3)), (0, (2, 2.5)), (0, (8, 3, 2, 3)))
DOTTED = DASHES[2]
MUTED = "#7a7f87"
INK = "#010203"  # stands for the text colour of the page until the SVG is put into it
SMALL = 11.0
LETTER = 0.58  # mean width of a letter in heights of the font, rather too much
RIGHT, ABOVE = 12.0, 8.0  # room that words may take beside and above the axes

Line = tuple[tuple[float, float], tuple[float, float]]
Box = tuple[float, float, float, float]


def look(number: int) -> tuple[str, Any]:
    """Return the colour and the dash of the curve with a number."""
    return COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]


def line(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    colour: str,
    dash: Any = "-",
    *,
    words: str = "",
    width: float = 1.8,
    steps: bool = False,
) -> None:
    """Draw a line through values, broken at NaN; a single value is a dot.

    Args:
        words: Name in the legend.
        steps: Each value holds until the next x.
    """
    across, up = _inside(x, axes.get_xlim()), _inside(y, axes.get_ylim())
    if not np.isfinite(across + up).any():
        return
    look: dict[str, Any] = {"drawstyle": "steps-post"} if steps else {}
    axes.plot(across, up, color=colour, linestyle=dash, linewidth=width, label=words, clip_on=False, **look)


def band(axes: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, colour: str, *, along: bool = False) -> None:
    """Fill the area between two lines over x; along: x is the ordinate."""
    ends = (axes.get_ylim(), axes.get_xlim()) if along else (axes.get_xlim(), axes.get_ylim())
    over, first, second = _inside(x, ends[0]), _inside(low, ends[1]), _inside(high, ends[1])
    fill = axes.fill_betweenx if along else axes.fill_between
    known = np.isfinite(first + second)
    fill(over, first, second, where=known.tolist(), color=colour, alpha=0.18, linewidth=0, clip_on=False)


def dots(axes: Axes, x: ArrayLike, y: ArrayLike, colour: str, *, words: str = "") -> None:
    """Draw small dots, all in one path: lines of no length with round ends."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points = np.column_stack([_inside(x, axes.get_xlim()), _inside(y, axes.get_ylim())])
    points = np.repeat(points[np.isfinite(points).all(axis=1)], 2, axis=0)
    codes = np.tile(np.array([Path.MOVETO, Path.LINETO], dtype=np.uint8), len(points) // 2)
    look: Any = {"facecolor": "none", "edgecolor": colour, "linewidth": 3.2, "capstyle": "round", "alpha": 0.7}
    axes.add_artist(PathPatch(Path(points, codes), clip_on=False, **look))  # a patch would be measured point by point
    if words:
        key(axes, words, colour, "o")


def key(axes: Axes, words: str, colour: str, shape: str, *, filled: bool = True) -> None:
    """Add an entry to the legend alone."""
    axes.plot([], [], shape, color=colour, markerfacecolor=colour if filled else "none", label=words, markersize=7)


def estimates(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    beside: Sequence[tuple[float, float]],
    above: Sequence[tuple[float, float]],
    colour: str,
    shape: str,
    *,
    filled: bool = True,
) -> None:
    """Draw markers at values with their intervals; beside, above: (low, high) of each, empty for none."""
    across, up = _inside(x, axes.get_xlim()), _inside(y, axes.get_ylim())
    arms = (_arms(beside, across, axes.get_xlim()), _arms(above, up, axes.get_ylim()))
    look: Any = {"elinewidth": 1.0, "capsize": 3.0, "markersize": 7.0, "clip_on": False}
    look["markerfacecolor"] = colour if filled else "none"
    axes.errorbar(across, up, xerr=arms[0], yerr=arms[1], fmt=shape, color=colour, **look)


def _arms(ends: Sequence[tuple[float, float]], spots: Floats, limits: tuple[float, float]) -> Floats | None:
    """Return the lengths of intervals to either side of their values, within the axes."""
    if not ends:
        return None
    low, high = _inside(ends, limits).T
    found: Floats = np.maximum(0.0, [spots - low, high - spots])
    return found


def span(axes: Axes, start: float, end: float, colour: str, opacity: float, share: float = 1.0) -> None:
    """Shade a part of the abscissa, to a share of the height, with a minimum width."""
    least = (axes.get_xlim()[1] - axes.get_xlim()[0]) / 500
    axes.axvspan(start, max(end, start + least), ymax=share, color=colour, alpha=opacity, linewidth=0, clip_on=False)


def across(axes: Axes, value: float, colour: str, dash: Any, words: str = "") -> None:
    """Draw a horizontal line."""
    line(axes, axes.get_xlim(), [value, value], colour, dash, words=words, width=1.2)


def grid(axes: Axes) -> None:
    """Draw faint lines at the ticks, in one path for each axis."""
    look: dict[str, Any] = {"color": INK, "alpha": 0.14, "linewidth": 1.0, "zorder": 0.5, "clip_on": False}
    ends = ([0.0, 1.0, np.nan],)
    for marks, where in ((axes.get_xticks(), "x"), (axes.get_yticks(), "y")):
        at, along = np.repeat(marks, 3), np.tile(ends, len(marks)).ravel()
        if where == "x":
            axes.plot(at, along, transform=axes.get_xaxis_transform(), **look)
        else:
            axes.plot(along, at, transform=axes.get_yaxis_transform(), **look)


def width_of(words: str, size: float = SMALL) -> float:
    """Estimate the width of words in the reader's font."""
    return len(words) * size * LETTER


class Labels:
    """Labels beside points that cover no point, no other label, and no line if possible.

    Args:
        x, y: Positions of all points.
        lines: Ends ((x, y), (x, y)) of straight lines.
    """

    PLACES = (
        *((8, 5), (8, -14), (-8, 5), (-8, -14), (8, 18), (-8, 18), (8, -27), (-8, -27)),
        *((8, 31), (-8, 31), (8, -40), (-8, -40)),
    )

    def __init__(self, axes: Axes, x: Sequence[float], y: Sequence[float], lines: Sequence[Line] = ()) -> None:
        self._axes = axes
        self._taken = [(a - 5, b - 5, a + 5, b + 5) for a, b in map(self._spot, x, y)]
        self._lines = [(*self._spot(*first), *self._spot(*last)) for first, last in lines]

    def put(self, x: float, y: float, words: str, *, bold: bool = False) -> None:
        """Write beside a point at the first free place, else at one that covers a line, else at the first."""
        frame, (a, b) = self._axes.bbox, self._spot(x, y)
        boxes = [(self._box(words, a + across, b + up, across), across, up) for across, up in self.PLACES]
        inside = [one for one in boxes if self._fits(one[0], frame)] or boxes
        free = [one for one in inside if not self._covers(one[0])] or inside[:1]
        clear = (one for one in free if not any(_crosses(line, one[0]) for line in self._lines))
        box, across, up = next(clear, free[0])
        self._taken.append(box)
        look: dict[str, Any] = {"ha": "left" if across > 0 else "right", "weight": "bold" if bold else "normal"}
        self._axes.annotate(words, (x, y), xytext=(across, up), textcoords="offset points", fontsize=SMALL, **look)

    def _spot(self, x: float, y: float) -> tuple[float, float]:
        a, b = self._axes.transData.transform((x, y))
        return float(a), float(b)

    def _box(self, words: str, x: float, y: float, across: float) -> Box:
        width = width_of(words)
        left = x if across > 0 else x - width
        return left, y - 3, left + width, y + 10

    def _fits(self, box: Box, frame: Any) -> bool:
        beside = box[0] >= frame.x0 and box[2] <= frame.x1 + RIGHT
        return bool(beside and box[1] >= frame.y0 and box[3] <= frame.y1 + ABOVE)

    def _covers(self, box: Box) -> bool:
        return any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self._taken)


def _crosses(line: Box, box: Box) -> bool:
    """Return whether a line crosses a box: each pair of sides leaves a part of the line, from 0 to 1."""
    begin, end = 0.0, 1.0
    for first, last, low, high in ((line[0], line[2], box[0], box[2]), (line[1], line[3], box[1], box[3])):
        step = last - first
        if step == 0:
            if not low < first < high:
                return False
            continue
        ends = sorted(((low - first) / step, (high - first) / step))
        begin, end = max(begin, ends[0]), min(end, ends[1])
    return begin < end


def _inside(values: ArrayLike, limits: tuple[float, float]) -> Floats:
    found: Floats = np.clip(np.asarray(values, dtype=np.float64), *limits)
    return found
