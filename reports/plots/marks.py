"""Marks in axes with fixed ends: lines, bands, dots, estimates, shades, labels of points; their colours and dashes.

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

# At least 3:1 on white and on the dark page; any two differ for every kind of colour blindness
COLOURS = ("#0096e1", "#e10f69", "#c38700", "#870fff", "#69691e", "#b41e96", "#3c5ad2", "#b487a5")
SHAPES = ("o", "s", "D", "P", "X", "h", "p", "d")
DASHES: tuple[Any, ...] = ("-", (0, (7, 3)), (0, (2, 2.5)), (0, (8, 3, 2, 3)))
DASHED, DOTTED = DASHES[1], DASHES[2]
MUTED = "#7a7f87"
INK = "#010203"  # stands for the text colour, until the SVG is slimmed
FONT = 11.0
LETTER = 0.58  # mean width of a letter in heights of the font, rather too much
TIP = "tip:"
NONE = (float("nan"), float("nan"))

Box = tuple[float, float, float, float]


def look(number: int) -> tuple[str, Any]:
    """Return the colour and the dash of the curve with a number; they repeat after 32."""
    rounds, place = divmod(number, len(COLOURS))
    return COLOURS[place], DASHES[(place + rounds) % len(DASHES)]


def line(
    axes: Axes,
    x: ArrayLike,
    y: ArrayLike,
    colour: str,
    dash: Any = "-",
    *,
    words: str = "",
    width: float = 1.8,
    steps: str = "",
) -> None:
    """Draw a line through values, broken at NaN; a single value is a dot.

    Args:
        words: Name in the legend.
        steps: "post" if each value holds until the next x, "pre" if it holds from the x before.
    """
    across, up = _inside(x, axes.get_xlim()), _inside(y, axes.get_ylim())
    if np.isfinite(across + up).any():
        drawstyle: Any = f"steps-{steps}" if steps else "default"
        axes.plot(across, up, color=colour, linestyle=dash, linewidth=width, label=words, drawstyle=drawstyle)


def band(axes: Axes, x: ArrayLike, low: ArrayLike, high: ArrayLike, colour: str, *, along: bool = False) -> None:
    """Fill the area between two lines over x; along: x is the ordinate."""
    ends = (axes.get_ylim(), axes.get_xlim()) if along else (axes.get_xlim(), axes.get_ylim())
    over, first, second = _inside(x, ends[0]), _inside(low, ends[1]), _inside(high, ends[1])
    fill = axes.fill_betweenx if along else axes.fill_between
    fill(over, first, second, where=np.isfinite(first + second).tolist(), color=colour, alpha=0.18, linewidth=0)


def dots(axes: Axes, x: ArrayLike, y: ArrayLike, colour: str, *, words: str = "") -> None:
    """Draw small dots, all in one path: lines of no length with round ends."""
    points = np.column_stack([_inside(x, axes.get_xlim()), _inside(y, axes.get_ylim())])
    points = np.insert(np.repeat(points, 2, axis=0), np.arange(2, 2 * len(points) + 1, 2), np.nan, axis=0)
    look: Any = {"linewidth": 3.2, "solid_capstyle": "round", "alpha": 0.7}
    axes.plot(*points.T, color=colour, **look)
    if words:
        key(axes, words, colour, "o")


def key(axes: Axes, words: str, colour: str, shape: str = "o", *, dash: Any = "", filled: bool = True) -> None:
    """Add an entry to the legend alone."""
    fill = colour if filled else "none"
    axes.plot([], [], shape, linestyle=dash, color=colour, markerfacecolor=fill, label=words, markersize=6)


def estimate(
    axes: Axes,
    x: float,
    y: float,
    colour: str,
    shape: str = "o",
    *,
    filled: bool = True,
    beside: tuple[float, float] = NONE,
    above: tuple[float, float] = NONE,
    tip: str = "",
) -> None:
    """Draw a marker at a value, with bars to the finite ends of its intervals; tip: shown under the pointer."""
    for ends, limits, centre, upward in ((beside, axes.get_xlim(), x, False), (above, axes.get_ylim(), y, True)):
        bar = _inside([end if np.isfinite(end) else centre for end in ends], limits)
        if bar[0] < bar[1]:
            axes.plot(*(([x, x], bar) if upward else (bar, [y, y])), color=colour, linewidth=1.0)
    spot = (_inside([x], axes.get_xlim()), _inside([y], axes.get_ylim()))
    look: Any = {"color": colour, "markerfacecolor": colour if filled else "none", "markersize": 6}
    axes.plot(*spot, shape, gid=TIP + tip if tip else None, **look)


def span(axes: Axes, start: float, end: float, colour: str, opacity: float, part: tuple[float, float] = (0, 1)) -> None:
    """Shade a part of the abscissa, over a part of the height, with a minimum width."""
    least = 0.0 if axes.get_xscale() == "log" else (axes.get_xlim()[1] - axes.get_xlim()[0]) / 500
    first, last = _inside([start, max(end, start + least)], axes.get_xlim())
    axes.axvspan(first, last, *part, color=colour, alpha=opacity, linewidth=0)


def across(axes: Axes, value: float, colour: str, dash: Any, words: str = "") -> None:
    """Draw a horizontal line."""
    line(axes, axes.get_xlim(), [value, value], colour, dash, words=words, width=1.2)


def upright(axes: Axes, value: float, colour: str, dash: Any, words: str = "") -> None:
    """Draw a vertical line."""
    line(axes, [value, value], axes.get_ylim(), colour, dash, words=words, width=1.2)


def grid(axes: Axes) -> None:
    """Draw faint lines at the marks, in one path for each axis: a line for each would cost more than all curves."""
    look: dict[str, Any] = {"color": INK, "alpha": 0.14, "linewidth": 1.0, "zorder": 0.5}
    for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        at = np.repeat([mark for mark in axis.get_majorticklocs() if limits[0] <= mark <= limits[1]], 3)
        along = np.tile([0.0, 1.0, np.nan], len(at) // 3)
        if axis is axes.xaxis:
            axes.plot(at, along, transform=axes.get_xaxis_transform(), **look)
        else:
            axes.plot(along, at, transform=axes.get_yaxis_transform(), **look)


def front(spots: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the spots that none reaches in both coordinates, more being better, from left to right."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(set(spots), reverse=True):
        if not found or y > found[-1][1]:
            found.append((x, y))
    return found[::-1]


def width_of(words: str) -> float:
    """Estimate the width of words in the reader's font."""
    return len(words) * FONT * LETTER


class Labels:
    """Labels beside points that cover no point and no other label; x, y: positions of all points."""

    PLACES = tuple((x, y) for y in (5, -14, 18, -27, 31, -40) for x in (8, -8))

    def __init__(self, axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
        self._axes = axes
        self._taken = [(a - 5, b - 5, a + 5, b + 5) for a, b in map(self._spot, x, y)]

    def put(self, x: float, y: float, words: str, *, bold: bool = False) -> None:
        """Write beside a point at the first free place within the axes; without one, nothing is written."""
        a, b = self._spot(x, y)
        for across, up in self.PLACES:
            box = self._box(words, a + across, b + up, across)
            if self._fits(box) and not self._covers(box):
                break
        else:
            return
        self._taken.append(box)
        look: dict[str, Any] = {"ha": "left" if across > 0 else "right", "weight": "bold" if bold else "normal"}
        self._axes.annotate(words, (x, y), xytext=(across, up), textcoords="offset points", **look)

    def _spot(self, x: float, y: float) -> tuple[float, float]:
        a, b = self._axes.transData.transform((x, y))
        return float(a), float(b)

    def _box(self, words: str, x: float, y: float, across: float) -> Box:
        width = width_of(words)
        left = x if across > 0 else x - width
        return left, y - 3, left + width, y + 10

    def _fits(self, box: Box) -> bool:
        frame = self._axes.bbox
        return bool(box[0] >= frame.x0 and box[2] <= frame.x1 and box[1] >= frame.y0 and box[3] <= frame.y1)

    def _covers(self, box: Box) -> bool:
        return any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self._taken)


def _inside(values: ArrayLike, limits: tuple[float, float]) -> Floats:
    found: Floats = np.clip(np.asarray(values, dtype=np.float64), *limits)
    return found
