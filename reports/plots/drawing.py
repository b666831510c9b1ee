"""Drawing of one picture as SVG by matplotlib, without its slow parts: computed layouts, a search for ticks, grids.

docs/adr/0011-cost-of-plots.md has the reasons.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from reports.format import for_xml
from reports.plots.marks import INK, SMALL, grid, width_of
from reports.plots.svg import slim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reports.tables.base import Table

WIDTH, HEIGHT = 560.0, 300.0  # in units of the SVG; matplotlib has 72 of them to the inch
LEFT, RIGHT, TOP, BOTTOM = 62.0, 12.0, 10.0, 40.0
PANEL_HEIGHT, PANEL_TITLE = 84.0, 26.0
FONT, LINE_HEIGHT, KEY_WIDTH = 12.0, 16.0, 26.0
_UNITS_PER_INCH = 72
_SETTINGS: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("xtick.bottom", "ytick.left", "axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("font.size", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), SMALL),
    **dict.fromkeys(("legend.borderpad", "legend.borderaxespad"), 0.0),
    "legend.handlelength": KEY_WIDTH / SMALL,
    "legend.handletextpad": 4 / SMALL,
    "legend.columnspacing": 12 / SMALL,
    "legend.labelspacing": 0.25,
    "axes.linewidth": 1.0,
    "axes.titley": 1.0,  # or each drawing asks where the title has room
    "font.family": "sans-serif",
    "lines.scale_dashes": False,
    "lines.solid_capstyle": "round",
    "svg.fonttype": "none",
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """Picture with its description.

    Attributes:
        alt: Its content in words.
        svg: The complete picture, with INK for lines and texts.
        table: The numbers behind it.
    """

    name: str
    alt: str
    svg: str
    title: str = ""
    table: Table | None = None

    @property
    def height(self) -> float:
        """Height of the picture in units of the SVG; it is WIDTH wide."""
        found = re.search(r'<svg[^>]* height="([\d.]+)"', self.svg)
        return float(found[1]) if found else HEIGHT

    def inline(self) -> str:
        """Return the picture for a page, with the page's text colour."""
        label = escape(self.alt, quote=True)
        body = _inked(self.svg, "currentColor")
        return re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', body, count=1)

    def standalone(self) -> str:
        """Return the picture for a file, black on white."""
        return '<?xml version="1.0" encoding="utf-8"?>\n' + _inked(self.svg, "#1a1a1a")


@dataclass(frozen=True, slots=True)
class Panel:
    """Axes of a stack; `draw` sets the ends of the ordinate and draws the values."""

    title: str
    draw: Callable[[Axes], None]


def file_name(text: str) -> str:
    """Return a text without characters that a file's name cannot have."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)


def picture(name: str, draw: Callable[[Axes], None], labels: tuple[str, str], height: float = HEIGHT) -> str:
    """Return a picture of one pair of axes with its legend below.

    Args:
        name: Name of the plot; it keeps ids within a page apart.
        draw: Sets the ends of the axes and draws the values.
        labels: Labels of the abscissa and the ordinate.
    """
    with _settings(name):
        whole = _figure(height)
        axes = _axes(whole, TOP, height - TOP - BOTTOM)
        draw(axes)
        grid(axes)
        below = _legend_below(whole, axes)
        floor, upper = below + BOTTOM, height - TOP - BOTTOM
        total = height + below
        whole.set_size_inches(WIDTH / _UNITS_PER_INCH, total / _UNITS_PER_INCH)
        axes.set_position((LEFT / WIDTH, floor / total, (WIDTH - LEFT - RIGHT) / WIDTH, upper / total))
        _write(whole, (LEFT + WIDTH - RIGHT) / 2, below + 6, labels[0], ha="center")
        _write(whole, 14, floor + upper / 2, labels[1], ha="center", va="center", rotation=90)
        return _written(whole)


def stacked(
    name: str, panels: Sequence[Panel], along: Callable[[Axes], None], label: str, mark: Callable[[Axes], None]
) -> str:
    """Return a picture of axes below each other over one abscissa.

    Args:
        along: Sets the ends of the abscissa.
        mark: Shades parts of the abscissa in each.
    """
    each = PANEL_HEIGHT + PANEL_TITLE
    height = len(panels) * each + BOTTOM
    with _settings(name):
        whole = _figure(height)
        for number, panel in enumerate(panels):
            top = number * each + PANEL_TITLE
            axes = _axes(whole, top, PANEL_HEIGHT)
            along(axes)
            panel.draw(axes)
            mark(axes)
            grid(axes)
            if number < len(panels) - 1:
                axes.tick_params(labelbottom=False)
            _write(whole, LEFT - 50, height - top + 8, panel.title)
            _legend_above(axes)
        _write(whole, (LEFT + WIDTH - RIGHT) / 2, 8, label, ha="center")
        return _written(whole)


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((WIDTH / _UNITS_PER_INCH, height / _UNITS_PER_INCH), dpi=_UNITS_PER_INCH, frameon=False)


def _axes(whole: Figure, top: float, height: float) -> Axes:
    """Add axes at a distance from the upper edge."""
    total = whole.get_figheight() * _UNITS_PER_INCH
    box = (LEFT / WIDTH, (total - top - height) / total, (WIDTH - LEFT - RIGHT) / WIDTH, height / total)
    axes = whole.add_axes(box, autoscale_on=False)
    axes.patch.set_visible(False)
    return axes


def _write(whole: Figure, x: float, y: float, words: str, **look: Any) -> None:
    """Write words at x from the left and y from below."""
    if words:
        whole.text(x / WIDTH, y / (whole.get_figheight() * _UNITS_PER_INCH), words, fontsize=FONT, **look)


def _legend_below(whole: Figure, axes: Axes) -> float:
    """Add the entries in as many columns as the widest of them allows; return their height."""
    handles, words = axes.get_legend_handles_labels()
    if not words:
        return 0.0
    widest = max(KEY_WIDTH + 4 + width_of(one) + 12 for one in words)
    columns = max(1, min(len(words), int((WIDTH - 16) / widest)))
    whole.legend(handles, words, loc="lower left", bbox_to_anchor=(8 / WIDTH, 0), ncols=columns)
    return math.ceil(len(words) / columns) * LINE_HEIGHT + 6


def _legend_above(axes: Axes) -> None:
    """Add the entries in one line that ends at the right, above the axes."""
    handles, words = axes.get_legend_handles_labels()
    if words:
        above = 1 + 4 / PANEL_HEIGHT
        axes.legend(handles, words, loc="lower right", bbox_to_anchor=(1, above), ncols=len(words))


def _settings(name: str) -> AbstractContextManager[None]:
    import matplotlib as mpl

    settings: Any = {**_SETTINGS, "svg.hashsalt": name}
    return mpl.rc_context(settings)


def _written(whole: Figure) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = StringIO()
    canvas: Any = FigureCanvasSVG(whole)
    with warnings.catch_warnings():  # the reader's font is used, not the one that texts are measured with here
        warnings.filterwarnings("ignore", r"Glyph \d+|Matplotlib currently does not support", UserWarning)
        canvas.print_svg(out, metadata={"Date": None})
    return slim(for_xml(out.getvalue()), INK, SMALL)


def _inked(svg: str, colour: str) -> str:
    """Return the SVG with a colour for lines and texts; INK within a text is left."""
    return re.sub(rf'(?<=[":]){INK}(?=[";])(?=[^<]*>)', colour, svg)
