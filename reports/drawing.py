"""One picture as SVG: for a page (its text colour follows the reader's light or dark setting) and as a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from reports.tables import Table

COLOURS = ("#2f7fc1", "#d9722e", "#3f9c5a", "#a35bb8", "#b8912b", "#3aa0a0", "#c2557a", "#7a7f87")
INK = "#010203"  # stands for the text colour of the page until the SVG is put into it
SIZE_INCHES = (5.6, 2.7)
MARGINS_INCHES = (0.75, 0.5, 0.1, 0.1)  # left, bottom, right, top; a computed layout would draw everything twice


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
        body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
        body = re.sub(r'<g id="[^"]*"', "<g", body)  # the same in every plot, and nothing refers to them
        label = escape(self.alt, quote=True)
        return re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', body, count=1)

    def standalone(self) -> str:
        """For a file: black on white."""
        return self.svg.replace(INK, "#1a1a1a")


@dataclass
class Drawing:
    """One pair of axes; `svg` is there once the block is left."""

    axes: Axes
    svg: str = ""


@contextmanager
def figure(salt: str, below_inches: float = 0.0, size_inches: tuple[float, float] = SIZE_INCHES) -> Iterator[Drawing]:
    """Draws with our settings only; the salt keeps the ids of several SVGs in one page apart, and the same each
    time.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
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
    }
    with mpl.rc_context(settings):
        width, height = size_inches[0], size_inches[1] + below_inches
        left, bottom, right, top = MARGINS_INCHES
        bottom += below_inches
        whole = Figure(figsize=(width, height))
        inner = (width - left - right, height - bottom - top)
        position = (left / width, bottom / height, inner[0] / width, inner[1] / height)
        drawing = Drawing(whole.add_axes(position))
        yield drawing
        out = StringIO()
        whole.savefig(out, format="svg", transparent=True, dpi=150, metadata={"Date": None})
        drawing.svg = out.getvalue()


def label_axes(axes: Axes, x: str, y: str, *, from_zero: bool) -> None:
    """Names the axes; from_zero: the upright one begins there."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if from_zero:
        axes.set_ylim(bottom=0)
