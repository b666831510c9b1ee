"""Axes: lines, bands, dots and words between two scales, as SVG.

Written by hand because it is little: what a page needs of a plot is a few paths and texts. A general library takes a
tenth of a second for each pair of axes and three times the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reports.palette import INK
from reports.scales import Scale

Floats = NDArray[np.float64]

FONT, SMALL = 12.0, 11.0
LETTER = 0.58  # mean width of a letter in heights of the font, rather too much
LINE_HEIGHT = 16.0
KEY_WIDTH = 26.0
_SHAPES = {
    "o": "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "s": "M-3.6-3.6h7.2v7.2h-7.2z",
    "^": "M0-4.8L4.5 3.4H-4.5z",
    "v": "M0 4.8L4.5-3.4H-4.5z",
    "D": "M0-5L5 0L0 5L-5 0z",
    "P": "M-1.6-5h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z",
    "<": "M-4.8 0L3.4-4.5V4.5z",
}


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend: a line, or a marker."""

    words: str
    colour: str
    dash: str = ""
    shape: str = ""
    filled: bool = True


@dataclass
class Axes:
    """A rectangle of the picture (left, top, width, height in its units) with a scale along and one upright."""

    box: tuple[float, float, float, float]
    along: Scale
    upright: Scale
    keys: list[Key] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    def places(self, x: ArrayLike, y: ArrayLike) -> Floats:
        """Where values lie in the picture, shape (n, 2)."""
        left, top, width, height = self.box
        return np.column_stack([left + width * self.along.at(x), top + height * (1 - self.upright.at(y))])

    def line(
        self, x: ArrayLike, y: ArrayLike, colour: str, dash: str = "", *, words: str = "", width: float = 1.8
    ) -> None:
        """A line through values; it breaks where one is NaN, and a single one is a dot."""
        self._stroke(_polyline(self.places(x, y)), colour, dash, words, width)

    def steps(
        self, x: ArrayLike, y: ArrayLike, colour: str, dash: str = "", *, words: str = "", width: float = 1.8
    ) -> None:
        """The same in steps: each value holds until the next x."""
        self._stroke(_staircase(self.places(x, y)), colour, dash, words, width)

    def _stroke(self, path: str, colour: str, dash: str, words: str, width: float) -> None:
        if not path:
            return
        look = f' stroke-dasharray="{dash}"' if dash else ' stroke-linecap="round"'
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{look}/>')
        if words:
            self.keys.append(Key(words, colour, dash))

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, colour: str) -> None:
        """The area between two lines over x."""
        self._area(self.places(x, low), self.places(x, high), colour)

    def band_along(self, low: ArrayLike, high: ArrayLike, y: ArrayLike, colour: str) -> None:
        """The area between two lines beside y."""
        self._area(self.places(low, y), self.places(high, y), colour)

    def _area(self, first: Floats, second: Floats, colour: str) -> None:
        known = _known(first) & _known(second)
        paths = []
        for start, end in _runs(known):
            outline = np.vstack([first[start:end], second[start:end][::-1]])
            paths.append(_polyline(outline) + "z")
        if paths:
            self.parts.insert(0, f'<path d="{"".join(paths)}" fill="{colour}" fill-opacity=".18"/>')

    def dots(self, x: ArrayLike, y: ArrayLike, colour: str, *, words: str = "") -> None:
        """Small dots, all in one path."""
        path = _scattered(self.places(x, y))
        look = 'stroke-width="3.2" stroke-linecap="round" stroke-opacity=".7"'
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" {look}/>')
        if words:
            self.keys.append(Key(words, colour, shape="o"))

    def span(self, start: float, end: float, colour: str, opacity: float, share: float = 1.0) -> None:
        """Shades a part of the abscissa, to a share of the height."""
        left, top, width, height = self.box
        a, b = (left + width * float(self.along.at(value)) for value in (start, end))
        y = top + height * (1 - share)
        self.below.append(
            f'<path d="M{_n(a)} {_n(y)}H{_n(max(b, a + 1))}V{_n(top + height)}H{_n(a)}z" '
            f'fill="{colour}" fill-opacity="{opacity:g}"/>'
        )

    def across(self, value: float, colour: str, dash: str, words: str = "") -> None:
        """A level line."""
        self.line([self.along.low, self.along.high], [value, value], colour, dash, words=words, width=1.2)

    def up(self, value: float, dash: str) -> None:
        """An upright line."""
        self.line([value, value], [self.upright.low, self.upright.high], INK, dash, width=1.2)

    def marker(self, x: float, y: float, shape: str, colour: str, *, filled: bool = True) -> None:
        """A sign at a value."""
        ((a, b),) = self.places([x], [y])
        self.parts.append(_sign(float(a), float(b), shape, colour, filled=filled))

    def whiskers(self, x: tuple[float, float], y: tuple[float, float], colour: str) -> None:
        """A thin line from one value to another, with feet."""
        (a, b), (c, d) = self.places(x, y)
        feet = (
            f"M{_n(a)} {_n(b - 3)}v6M{_n(c)} {_n(d - 3)}v6"
            if b == d
            else f"M{_n(a - 3)} {_n(b)}h6M{_n(c - 3)} {_n(d)}h6"
        )
        self.parts.append(f'<path d="M{_n(a)} {_n(b)}L{_n(c)} {_n(d)}{feet}" fill="none" stroke="{colour}"/>')

    def text(
        self, x: float, y: float, words: str, *, size: float = SMALL, anchor: str = "start", bold: bool = False
    ) -> None:
        """Words at a place in the picture."""
        self.parts.append(text(x, y, words, size=size, anchor=anchor, bold=bold))

    def svg(self, *, marks_below: bool = True) -> str:
        """All of it. marks_below: with the names of the marks along."""
        left, top, width, height = self.box
        xs = [(left + width * float(self.along.at(value)), name) for value, name in self.along.marks]
        ys = [(top + height * (1 - float(self.upright.at(value))), name) for value, name in self.upright.marks]
        foot = top + height
        grid = "".join(f"M{_n(x)} {_n(top)}V{_n(foot)}" for x, _ in xs)
        grid += "".join(f"M{_n(left)} {_n(y)}H{_n(left + width)}" for y, _ in ys)
        frame = f"M{_n(left)} {_n(top)}V{_n(foot)}H{_n(left + width)}"
        names = [text(x, foot + 15, name, anchor="middle") for x, name in xs] if marks_below else []
        names += [text(left - 6, y + 4, name, anchor="end") for y, name in ys]
        return "\n".join(
            [
                *self.below,
                f'<path d="{grid}" fill="none" stroke="{INK}" stroke-opacity=".14"/>',
                f'<path d="{frame}" fill="none" stroke="{INK}" stroke-opacity=".7"/>',
                *names,
                *self.parts,
            ]
        )


def text(x: float, y: float, words: str, *, size: float = SMALL, anchor: str = "start", bold: bool = False) -> str:
    """Words; anchor: which part of them is at x."""
    look = ("" if anchor == "start" else f' text-anchor="{anchor}"') + (' font-weight="650"' if bold else "")
    look += "" if size == FONT else f' font-size="{size:g}"'
    return f'<text x="{_n(x)}" y="{_n(y)}"{look}>{escape(words, quote=False)}</text>'


def upright_text(x: float, y: float, words: str) -> str:
    """Words from bottom to top around y."""
    where = f"translate({_n(x)} {_n(y)})rotate(-90)"
    return f'<text transform="{where}" text-anchor="middle">{escape(words, quote=False)}</text>'


def width_of(words: str, size: float = SMALL) -> float:
    """About how wide words are."""
    return len(words) * size * LETTER


def key_row(keys: Sequence[Key], right: float, y: float) -> Iterable[str]:
    """A legend in one line that ends at `right`."""
    return key_block([keys], right - sum(map(_key_width, keys)) + 12, y)


def key_lines(keys: Sequence[Key], width: float) -> list[list[Key]]:
    """The entries of a legend in as few lines as hold them."""
    lines: list[list[Key]] = []
    for key in keys:
        if not lines or sum(map(_key_width, (*lines[-1], key))) > width:
            lines.append([])
        lines[-1].append(key)
    return lines


def key_block(lines: Sequence[Sequence[Key]], left: float, y: float) -> Iterable[str]:
    """A legend of several lines."""
    for number, keys in enumerate(lines):
        x = left
        for key in keys:
            yield _key(key, x, y + number * LINE_HEIGHT)
            x += _key_width(key)


def _key_width(key: Key) -> float:
    return KEY_WIDTH + 4 + width_of(key.words) + 12


def _key(key: Key, x: float, y: float) -> str:
    dash = f' stroke-dasharray="{key.dash}"' if key.dash else ""
    line = f'<path d="M{_n(x)} {_n(y - 4)}h{KEY_WIDTH:g}" fill="none" stroke="{key.colour}" stroke-width="1.8"{dash}/>'
    sign = _sign(x + KEY_WIDTH / 2, y - 4, key.shape, key.colour, filled=key.filled) if key.shape else line
    return sign + text(x + KEY_WIDTH + 4, y, key.words)


def _sign(x: float, y: float, shape: str, colour: str, *, filled: bool) -> str:
    look = f'fill="{colour if filled else "none"}" stroke="{colour}" stroke-width="1.4"'
    turn = "rotate(45)" if shape == "X" else ""
    path = _SHAPES["P" if shape == "X" else shape]
    return f'<path transform="translate({_n(x)} {_n(y)}){turn}" d="{path}" {look}/>'


def _known(spots: Floats) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.asarray(np.isfinite(spots).all(axis=1))
    return known


def _runs(known: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, behind the last) of each unbroken stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], known, [False])).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _polyline(spots: Floats) -> str:
    paths = []
    for start, end in _runs(_known(spots)):
        tenths = _tenths(spots[start:end])
        moves = np.diff(tenths, axis=0)
        steps = "".join(_pair(x, y) for x, y in moves[moves.any(axis=1)].tolist())
        paths.append(_start(tenths) + (f"l{steps.removeprefix(' ')}" if steps else "h0"))
    return "".join(paths)


def _staircase(spots: Floats) -> str:
    paths = []
    for start, end in _runs(_known(spots)):
        tenths = _tenths(spots[start:end])
        path, x = _start(tenths), int(tenths[0, 0])
        ups = np.diff(tenths[:, 1])
        for to_x, up in zip(tenths[1:, 0][ups != 0].tolist(), ups[ups != 0].tolist(), strict=True):
            path += (f"h{_short(to_x - x)}" if to_x != x else "") + f"v{_short(up)}"
            x = to_x
        paths.append(path + f"h{_short(int(tenths[-1, 0]) - x)}")
    return "".join(paths)


def _scattered(spots: Floats) -> str:
    tenths = _tenths(spots[_known(spots)])
    if not len(tenths):
        return ""
    moves = "".join(f"m{_pair(x, y).removeprefix(' ')}h0" for x, y in np.diff(tenths, axis=0).tolist())
    return f"{_start(tenths)}h0{moves}"


def _tenths(spots: Floats) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.round(spots * 10).astype(np.int64)
    return found


def _start(tenths: NDArray[np.int64]) -> str:
    return f"M{_pair(*tenths[0].tolist()).removeprefix(' ')}"


def _pair(x: int, y: int) -> str:
    """Two numbers of a path, in tenths, each with what must stand before it."""
    first, second = _short(x), _short(y)
    return (first if x < 0 else f" {first}") + (second if y < 0 else f" {second}")


def _short(tenths: int) -> str:
    """-5 as "-.5", 20 as "2"."""
    whole, rest = divmod(abs(tenths), 10)
    sign = "-" if tenths < 0 else ""
    return f"{sign}{whole or ''}.{rest}" if rest else f"{sign}{whole}"


def _n(value: float) -> str:
    """A coordinate to a tenth, as short as can be."""
    return f"{round(float(value), 1):g}"
