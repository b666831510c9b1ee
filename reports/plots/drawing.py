"""Drawing of one picture as SVG by matplotlib, without its slow part, the search for a layout.

docs/adr/0011-cost-of-plots.md has the reasons.
"""

from __future__ import annotations

import math
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from reports.format import for_xml
from reports.plots.marks import FONT, INK, grid, width_of
from reports.plots.scales import Scale
from reports.plots.svg import slim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from reports.tables.base import Table

WIDTH, HEIGHT = 400.0, 190.0  # in units of the SVG; matplotlib has 72 of them to the inch
LOW = 76.0
"""Height of axes in a stack."""
LEFT, RIGHT, MARGIN = 46.0, 12.0, 6.0
LINE_HEIGHT, KEY_WIDTH = 15.0, 22.0
_ACROSS = WIDTH - LEFT - RIGHT
_UNITS_PER_INCH = 72
_LETTERS = int((WIDTH - 2 * MARGIN) / width_of("m"))
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("xtick.bottom", "ytick.left", "axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("font.size", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), FONT),
    **dict.fromkeys(("legend.borderpad", "legend.borderaxespad"), 0.0),
    "legend.handlelength": KEY_WIDTH / FONT,
    "legend.handletextpad": 4 / FONT,
    "legend.columnspacing": 12 / FONT,
    "legend.labelspacing": 0.2,
    "axes.linewidth": 1.0,
    "font.family": "sans-serif",
    "lines.scale_dashes": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
}
_PAPERS = """<style>svg{color:#1b1f24}.paper{fill:#fff}@media (prefers-color-scheme:dark)\
{svg{color:#e4e8ec}.paper{fill:#14171b}}</style><rect class="paper" width="100%" height="100%"/>"""


@dataclass(frozen=True, slots=True)
class Plot:
    """Picture with its description.

    Attributes:
        alt: Its content in words.
        svg: The picture; lines and texts have the text colour of its surroundings.
        reading: How to read it, in one sentence.
        table: The numbers behind it.
    """

    name: str
    alt: str
    svg: str
    title: str = ""
    reading: str = ""
    table: Table | None = None

    @property
    def height(self) -> float:
        """Height of the picture in units of the SVG; it is WIDTH wide."""
        found = re.search(r'<svg[^>]* height="([\d.]+)"', self.svg)
        return float(found[1]) if found else HEIGHT

    def inline(self) -> str:
        """Return the picture for a page."""
        label = escape(for_xml(self.alt), quote=True)
        return self.svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)

    def standalone(self) -> str:
        """Return the picture for a file: dark on white, or light on dark where the reader prefers that."""
        named = f"<title>{escape(for_xml(self.title))}</title><desc>{escape(for_xml(self.reading))}</desc>"
        body = re.sub(r"^<svg[^>]*>", lambda head: head[0] + named + _PAPERS, self.inline(), count=1)
        return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


@dataclass(frozen=True, slots=True)
class Panel:
    """Axes with a title above them.

    Attributes:
        y: Scale of the ordinate.
        draw: Draws the values into axes that have their scales.
    """

    title: str
    y: Scale
    draw: Callable[[Axes], None]


def file_name(text: str) -> str:
    """Return a text without characters that a file's name cannot have."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", text)


def picture(
    name: str,
    panels: Sequence[Panel],
    x: Scale,
    label: str,
    *,
    notes: str = "",
    mark: Callable[[Axes], None] | None = None,
    height: float = HEIGHT,
) -> str:
    """Return a picture of axes below each other over one abscissa, each with its legend above it.

    Args:
        name: Name of the plot; it keeps ids within a page apart.
        label: Label of the abscissa.
        notes: Explanation of marks, below the label.
        mark: Marks parts of the abscissa in each.
        height: Height of each of the axes.
    """
    import matplotlib as mpl

    settings: Any = {**_STYLE, "svg.hashsalt": name}
    with mpl.rc_context(settings):
        whole = _figure(height)
        drawn = [_axes(whole, panel, x, mark) for panel in panels]
        _arrange(whole, drawn, panels, height, [_named(label, x), *textwrap.wrap(notes, _LETTERS)])
        return _written(whole)


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((WIDTH / _UNITS_PER_INCH, height / _UNITS_PER_INCH), dpi=_UNITS_PER_INCH, frameon=False)


def _axes(whole: Figure, panel: Panel, x: Scale, mark: Callable[[Axes], None] | None) -> Axes:
    """Draw axes that are as high as the figure, which their size is taken from."""
    axes = whole.add_axes((LEFT / WIDTH, 0, _ACROSS / WIDTH, 1), autoscale_on=False, label=panel.title)
    axes.patch.set_visible(False)
    x.put_on(axes.xaxis)
    panel.y.put_on(axes.yaxis)
    panel.draw(axes)
    if mark is not None:
        mark(axes)
    grid(axes)
    return axes


def _arrange(
    whole: Figure, drawn: Sequence[Axes], panels: Sequence[Panel], height: float, below: Sequence[str]
) -> None:
    """Put titles, legends and axes below each other, then the words below, and give the figure their height."""
    titles = [_named(panel.title, panel.y) for panel in panels]
    rows = [_legend_rows(axes, title) for axes, title in zip(drawn, titles, strict=True)]
    above = sum(LINE_HEIGHT * (1.45 + own) + height + 8 for own in rows)
    total = math.ceil(above + LINE_HEIGHT * (1 + len(below)) + MARGIN)
    whole.set_size_inches(WIDTH / _UNITS_PER_INCH, total / _UNITS_PER_INCH)
    top = float(total)
    for axes, title, own in zip(drawn, titles, rows, strict=True):
        whole.text(MARGIN / WIDTH, (top - LINE_HEIGHT) / total, title)
        top -= LINE_HEIGHT * (1.45 + own) + height
        axes.set_position((LEFT / WIDTH, top / total, _ACROSS / WIDTH, height / total))
        axes.tick_params(labelbottom=axes is drawn[-1])
        _legend(axes, own, height)
        top -= 8
    for number, words in enumerate(below):
        x, y = LEFT + _ACROSS / 2 if number == 0 else WIDTH / 2, top - LINE_HEIGHT * (1.6 + number)
        whole.text(x / WIDTH, y / total, words, ha="center")


def _named(label: str, scale: Scale) -> str:
    return f"{label} ({scale.remark})" if scale.remark else label


def _entries(axes: Axes) -> list[float]:
    """Return the widths of the legend's entries."""
    return [KEY_WIDTH + 4 + width_of(words) + 12 for words in axes.get_legend_handles_labels()[1]]


def _legend_rows(axes: Axes, title: str) -> int:
    """Return the lines that the legend needs below the title; 0 if it fits beside it."""
    widths = _entries(axes)
    if sum(widths) + width_of(title) <= WIDTH - 2 * MARGIN:
        return 0
    return math.ceil(len(widths) / _columns(widths))


def _columns(widths: Sequence[float]) -> int:
    return max(1, min(len(widths), int((WIDTH - 2 * MARGIN + 12) / max(widths))))


def _legend(axes: Axes, rows: int, height: float) -> None:
    """Add the entries beside the title, or in columns below it."""
    handles, words = axes.get_legend_handles_labels()
    if words:
        left = (MARGIN - LEFT) / _ACROSS
        place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (left, 1 + 5 / height)} if rows else {}
        place = place or {"loc": "lower right", "bbox_to_anchor": (1, 1 + 5 / height)}
        axes.legend(handles, words, ncols=_columns(_entries(axes)) if rows else len(words), **place)


def _written(whole: Figure) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = StringIO()
    canvas: Any = FigureCanvasSVG(whole)
    with warnings.catch_warnings():  # the reader's font is used, not the one that texts are measured with here
        warnings.filterwarnings("ignore", r"Glyph \d+|Matplotlib currently does not support", UserWarning)
        canvas.print_svg(out, metadata={"Date": None})
    return slim(out.getvalue())
