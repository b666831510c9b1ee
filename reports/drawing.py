"""One picture as SVG: for a page (its text colour follows the reader's light or dark setting) and as a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from reports.axes import FONT, LINE_HEIGHT, Axes, key_block, key_lines, key_row, text, upright_text, width_of
from reports.palette import INK
from reports.scales import Scale

if TYPE_CHECKING:
    from reports.tables import Table

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 62.0, 12.0, 10.0, 40.0
PANEL_HEIGHT, PANEL_TITLE = 84.0, 26.0


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
        label = escape(self.alt, quote=True)
        body = self.svg.replace(INK, "currentColor")
        return re.sub(r"<svg ", f'<svg role="img" aria-label="{label}" ', body, count=1)

    def standalone(self) -> str:
        """For a file: black on white."""
        return '<?xml version="1.0" encoding="utf-8"?>\n' + self.svg.replace(INK, "#1a1a1a")


@dataclass(frozen=True, slots=True)
class Panel:
    """One of several axes above each other. draw: puts the values into them."""

    title: str
    upright: Scale
    draw: Callable[[Axes], None]


def picture(
    along: Scale, upright: Scale, draw: Callable[[Axes], None], labels: tuple[str, str], height: float = HEIGHT
) -> str:
    """One pair of axes with its legend below. labels: of the abscissa and the ordinate."""
    axes = Axes((LEFT, TOP, WIDTH - LEFT - RIGHT, height - TOP - BOTTOM), along, upright)
    draw(axes)
    parts = [axes.svg(), text(LEFT + axes.box[2] / 2, height - 6, labels[0], size=FONT, anchor="middle")]
    if labels[1]:
        parts.append(upright_text(14, TOP + axes.box[3] / 2, labels[1]))
    lines = key_lines(axes.keys, WIDTH - 16)
    below = len(lines) * LINE_HEIGHT + 6 if lines else 0.0
    return svg(height + below, [*parts, *key_block(lines, 8, height + 13)])


def stacked(along: Scale, panels: Sequence[Panel], label: str, mark: Callable[[Axes], None]) -> str:
    """Axes below each other over the same abscissa. mark: shades parts of it in each."""
    parts: list[str] = []
    width = WIDTH - LEFT - RIGHT
    for number, panel in enumerate(panels):
        top = number * (PANEL_HEIGHT + PANEL_TITLE) + PANEL_TITLE
        axes = Axes((LEFT, top, width, PANEL_HEIGHT), along, panel.upright)
        mark(axes)
        panel.draw(axes)
        parts.append(axes.svg(marks_below=number == len(panels) - 1))
        parts.append(text(LEFT - 50, top - 8, panel.title, size=FONT))
        parts += key_row(axes.keys, LEFT + width, top - 8)
    height = len(panels) * (PANEL_HEIGHT + PANEL_TITLE) + BOTTOM
    return svg(height, [*parts, text(LEFT + width / 2, height - 8, label, size=FONT, anchor="middle")])


def svg(height: float, parts: Iterable[str]) -> str:
    """The whole document, WIDTH wide."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH:g}" height="{height:g}" '
            f'viewBox="0 0 {WIDTH:g} {height:g}">',
            f'<g fill="{INK}" font-family="system-ui, sans-serif" font-size="{FONT:g}">',
            *parts,
            "</g>\n</svg>\n",
        ]
    )


class Labels:
    """Words beside points, where they cover neither a point nor each other."""

    PLACES = ((8, -5), (8, 14), (-8, -5), (-8, 14), (8, -18), (-8, -18), (8, 27), (-8, 27))

    def __init__(self, axes: Axes, spots: Sequence[tuple[float, float]]) -> None:
        """spots: of all points, in the picture."""
        self._axes = axes
        self._taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]

    def put(self, x: float, y: float, words: str, *, bold: bool = False) -> None:
        """Beside a point at the first place that is free, else at the first."""
        left, _, width, _ = self._axes.box
        boxes = [(self._box(words, x + across, y + up, across), across, up) for across, up in self.PLACES]
        inside = [one for one in boxes if one[0][0] >= left and one[0][2] <= left + width + RIGHT] or boxes
        box, across, up = next((one for one in inside if not self._covers(one[0])), inside[0])
        self._taken.append(box)
        self._axes.text(x + across, y + up, words, anchor="start" if across > 0 else "end", bold=bold)

    def _box(self, words: str, x: float, y: float, across: float) -> tuple[float, float, float, float]:
        width = width_of(words)
        left = x if across > 0 else x - width
        return left, y - 10, left + width, y + 3

    def _covers(self, box: tuple[float, float, float, float]) -> bool:
        return any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in self._taken)
