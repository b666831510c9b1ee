"""One picture as SVG: for a page (its text colour follows the reader's light or dark setting) and as a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.tables import Table

# At least 3:1 on white and on the dark page; neighbours differ for the colour-blind too, and lines in their dashes
COLOURS = ("#2d78b4", "#ff4b0f", "#0fa587", "#782dff", "#d21e4b", "#1e8796", "#8778ff", "#f0694b")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MUTED = "#7a7f87"
INK = "#010203"  # stands for the text colour of the page until the SVG is put into it
SIZE_INCHES = (5.6, 2.7)
MARGINS_INCHES = (0.75, 0.5, 0.1, 0.1)  # left, bottom, right, top; a computed layout would draw everything twice
TITLE_INCHES = 0.26  # above each of several axes
_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "axes.grid": True,
    "text.parse_math": False,
    "path.simplify_threshold": 0.2,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture. name: of its file.   alt: what it shows, in words.   svg: complete, with INK for lines and texts.

    title: a few words above it.   table: the numbers behind it, for those who cannot see it or want to read them.
    """

    name: str
    alt: str
    svg: str
    title: str = ""
    table: Table | None = None

    def inline(self) -> str:
        """For a page: scales with it, takes its text colour, says what it shows."""
        body = self.svg[self.svg.index("<svg") :].replace(INK, "currentColor")
        label = escape(self.alt, quote=True)
        return re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', body, count=1)

    def standalone(self) -> str:
        """For a file: black on white."""
        return self.svg.replace(INK, "#1a1a1a")


@dataclass
class Drawing:
    """Axes above each other, `axes` the first of them; `svg` is there once the block is left."""

    stack: list[Axes]
    svg: str = ""

    @property
    def axes(self) -> Axes:
        """The only pair of axes."""
        return self.stack[0]


@contextmanager
def figure(
    salt: str,
    below_inches: float = 0.0,
    size_inches: tuple[float, float] = SIZE_INCHES,
    titles: Sequence[str] = (),
) -> Iterator[Drawing]:
    """Draws with our settings only; the salt keeps the ids of several SVGs in one page apart, and the same each
    time.

    size_inches: of the whole; with titles, of each pair of axes, one below the other over the same abscissa.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {**_SETTINGS, "svg.hashsalt": salt}
    with mpl.rc_context(settings):
        left, bottom, right, top = MARGINS_INCHES
        bottom += below_inches
        width, each = size_inches
        height = len(titles) * each + bottom + top if titles else each + below_inches
        whole = Figure(figsize=(width, height))
        across = (left / width, (width - left - right) / width)
        if titles:
            inner = each - TITLE_INCHES
            floors = [height - top - (number + 1) * each for number in range(len(titles))]
            stack = [whole.add_axes((across[0], floor / height, across[1], inner / height)) for floor in floors]
            _entitle(stack, titles)
        else:
            stack = [whole.add_axes((across[0], bottom / height, across[1], (height - bottom - top) / height))]
        drawing = Drawing(stack)
        yield drawing
        out = StringIO()
        whole.savefig(out, format="svg", transparent=True, dpi=150, metadata={"Date": None})
        drawing.svg = slim(out.getvalue())


def _entitle(stack: Sequence[Axes], titles: Sequence[str]) -> None:
    for axes, title in zip(stack, titles, strict=True):
        axes.annotate(title, (0, 1), xytext=(0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=8.5)
        axes.tick_params(labelsize=8)
        if axes is not stack[-1]:
            axes.tick_params(labelbottom=False)


def label_axes(axes: Axes, x: str, y: str, *, from_zero: bool) -> None:
    """Names the axes; from_zero: the upright one begins there."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if from_zero:
        axes.set_ylim(bottom=0)


def legend(axes: Axes, **where: Any) -> None:
    """What the lines are, where there are several."""
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(**{"frameon": False, "fontsize": 8, "labelcolor": INK, **where})


def legend_above(axes: Axes) -> None:
    """The same in one line at the right above the axes, beside their title."""
    lines = len(axes.get_legend_handles_labels()[0])
    legend(
        axes,
        loc="lower right",
        bbox_to_anchor=(1.01, 0.99),
        ncols=max(lines, 1),
        borderaxespad=0,
        borderpad=0.1,
        columnspacing=1.1,
        handlelength=2.0,
        handletextpad=0.4,
    )


def dots(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str) -> None:
    """Small dots as one path: a tenth of the size of markers, and vectors."""
    import numpy as np
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    points = np.repeat(np.column_stack([x, y]).astype(np.float64), 2, axis=0)
    codes = np.tile(np.array([Path.MOVETO, Path.LINETO], dtype=np.uint8), len(x))
    look: Any = {"facecolor": "none", "edgecolor": colour, "linewidth": 2.4, "capstyle": "round", "alpha": 0.45}
    axes.add_patch(PathPatch(Path(points, codes), **look))
    axes.update_datalim(points)
    axes.autoscale_view()


def plain_log_ticks(axis: Any, low: float, high: float) -> None:
    """Marks 1, 2, 5 or 1, 3 or 1 of each decade between two values, as plain numbers."""
    import math

    from matplotlib.ticker import FixedLocator, NullLocator

    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        marks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(marks) <= 9:
            break
    axis.set_major_locator(FixedLocator(marks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:.12g}" if 1e-3 <= value < 1e6 else f"{value:.0e}")


def slim(svg: str) -> str:
    """The same picture in fewer bytes: coordinates to a tenth of a point, no comments, no names of groups."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<g) id="[^"]*"', r"\1", svg)  # the same in every plot, and nothing refers to them
    svg = re.sub(r' (d|x|y|width|height|transform)="([^"]*)"', _rounded, svg)
    svg = re.sub(r"font: ([^;\"]*px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    return re.sub(r"\n\s*", "\n", svg)


def _rounded(attribute: re.Match[str]) -> str:
    name, value = attribute.groups()
    value = re.sub(r"-?\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), value)
    value = re.sub(r"\s+", " ", value).strip()
    if name == "d":
        value = re.sub(r"M (\S+ \S+) L \1(?= M|$)", r"M\1h0", value)
        value = re.sub(r" ?([MLCQZz]) ?", r"\1", value)
    return f' {name}="{value}"'
