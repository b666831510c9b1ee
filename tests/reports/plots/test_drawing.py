"""Pictures hold what they are told, as small and well-formed SVG that stays within itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import pairwise
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from reports.plots import marks, scales
from reports.plots.drawing import HEIGHT, WIDTH, Panel, Plot, picture, stacked
from reports.plots.marks import COLOURS, INK

pytestmark = pytest.mark.slow

RED = "#ff0000"
NUMBER = r"-?\d+(?:\.\d+)?"


def even(axes: Axes) -> None:
    """Both axes from 0 to 10."""
    scales.linear(axes.xaxis, 0, 10)
    scales.linear(axes.yaxis, 0, 10)


def drawn(draw: Callable[[Axes], None], name: str = "one") -> str:
    """One picture with these marks over 0 to 10."""

    def both(axes: Axes) -> None:
        even(axes)
        draw(axes)

    return picture(name, both, ("", ""))


def paths(svg: str) -> list[str]:
    """The red ones."""
    return [path for path, style in re.findall(r'<path d="([^"]*)"[^>]* style="([^"]*)"', svg) if RED in style]


def spots(path: str) -> list[tuple[float, float]]:
    """Where it goes."""
    found = re.findall(rf"[ML]\s?({NUMBER}) ({NUMBER})", path)
    return [(float(x), float(y)) for x, y in found]


def test_a_line_breaks_where_nothing_is_known() -> None:
    """NaN parts it; a value alone is a dot; what lies beyond is drawn at the edge."""
    svg = drawn(lambda axes: marks.line(axes, [0, 1, 2, 3, 4, 20], [0, 5, math.nan, 2, math.nan, 20], RED))
    assert paths(svg) == ["M62 260L110.6 135M207.8 210h0M548 10h0"]


@pytest.mark.parametrize(
    "words",
    [
        'M 1.25 2.25 L 1.25 2.25" d="M 3.14159 2.71828" x="1.2345" style="a: b; stroke-linecap: square"',
        '<g/> <g id="q"> <!-- c --> <metadata>m</metadata> <text style="font: 8px">',
        f'fill="{INK}" xlink:href \\1 &amp; 千问 \u05d0',
    ],
)
def test_words_stay_as_they_are(words: str) -> None:
    """However much they look like parts of a picture, in whatever script: names are those of others."""

    def draw(axes: Axes) -> None:
        marks.key(axes, words, RED, "o")
        marks.Labels(axes, [1], [1]).put(1, 1, words)

    plot = Plot("one", "", drawn(draw))
    for svg in (plot.svg, plot.inline(), plot.standalone().split("\n", 1)[1]):
        texts = [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]
        assert texts.count(words) == 2


def test_intervals_end_at_the_axes() -> None:
    """However wide, and below zero; the sign stays where its value is."""

    def draw(axes: Axes) -> None:
        marks.estimates(axes, [5.0], [5.0], [(-40.0, 400.0)], [(4.0, 99.0)], RED, "o")

    ends = {spot for path in paths(drawn(draw)) for spot in spots(path)}
    assert {(62.0, 135.0), (548.0, 135.0), (305.0, 160.0), (305.0, 10.0)} <= ends


def test_what_xml_cannot_hold_is_replaced() -> None:
    """A control character in a name leaves the picture well-formed."""
    svg = drawn(lambda axes: marks.key(axes, "a\x1b\ufffeb", RED, "o"))
    assert "a\ufffd\ufffdb" in [element.text for element in ET.fromstring(svg).iter()]


def test_an_empty_line_is_none() -> None:
    """It has no entry in the legend either."""

    def draw(axes: Axes) -> None:
        marks.line(axes, [], [], RED, words="nothing")
        marks.line(axes, [1, 2], [math.nan, math.nan], RED, words="nothing", steps=True)

    svg = drawn(draw)
    assert not paths(svg)
    assert "nothing" not in svg


def test_steps_hold_until_the_next() -> None:
    """Level first, then up or down."""
    svg = drawn(lambda axes: marks.line(axes, [0, 2, 4], [1, 3, 3], RED, steps=True))
    corners = spots(paths(svg)[0])
    assert all(a == c or b == d for (a, b), (c, d) in pairwise(corners))
    assert corners[:2] == [(62.0, 235.0), (159.2, 235.0)]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15) | st.just(math.nan)), min_size=1, max_size=40))
def test_nothing_leaves_the_axes(points: list[tuple[float, float]]) -> None:
    """Whatever the values, every coordinate lies within, to a tenth."""
    x, y = np.array(points).reshape(-1, 2).T

    def draw(axes: Axes) -> None:
        marks.line(axes, x, y, RED)
        marks.dots(axes, x, y, RED)
        marks.band(axes, np.sort(x), y, y + 3, RED)

    for path in paths(drawn(draw)):
        assert not re.search(r"\.\d\d|e-|nan|inf", path)
        for across, up in spots(path):
            assert 61.9 <= across <= 548.1
            assert 9.9 <= up <= 260.1


def test_words_are_text() -> None:
    """Markup and formulas in a name are shown, and a picture is one well-formed document whose ink can follow the
    page.
    """
    hostile = '<script>"& $\\frac{1}{2}$'

    def draw(axes: Axes) -> None:
        even(axes)
        marks.line(axes, [0, 1], [0, 1], COLOURS[0], words=hostile)
        marks.line(axes, [0, 1], [1, 0], COLOURS[1], words="other")
        marks.Labels(axes, [5.0], [5.0]).put(5.0, 5.0, hostile, bold=True)

    one = picture("one", draw, (hostile, hostile))
    several = stacked("two", [Panel(hostile, draw)] * 2, even, hostile, lambda axes: None)
    for svg in (one, several):
        tree = ET.fromstring(svg)
        assert not [element for element in tree.iter() if element.tag.endswith("script")]
        assert sum((element.text or "") == hostile for element in tree.iter()) >= 3
        assert INK in svg


def test_a_picture_does_nothing_to_its_page() -> None:
    """No style for the whole page, no metadata, and ids that two pictures do not share."""

    def draw(axes: Axes) -> None:
        marks.dots(axes, [1, 2], [3, 4], RED, words="dots")
        marks.band(axes, [0, 1], [1, 1], [2, 2], RED)

    first, second = drawn(draw, "first"), drawn(draw, "second")
    for svg in (first, second):
        assert not re.search("<style|<metadata|<!--|clip-path|DejaVu", svg)
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert drawn(draw, "first") == first


def test_a_legend_takes_the_room_it_needs() -> None:
    """Short names share a line, long ones have their own below each other."""

    def height(names: list[str]) -> float:
        svg = drawn(lambda axes: [marks.line(axes, [0, 1], [0, 1], RED, words=name) for name in names] and None)
        return float(re.findall(r'height="([\d.]+)"', svg)[0])

    assert height([]) == HEIGHT
    assert height(["a", "b", "c"]) < height(["a" * 60, "b" * 60, "c" * 60])


def test_labels_keep_off_each_other() -> None:
    """Points close together have their names at different sides."""

    def draw(axes: Axes) -> None:
        labels = marks.Labels(axes, [5.0, 5.05], [5.0, 5.0])
        labels.put(5.0, 5.0, "one")
        labels.put(5.05, 5.0, "two")

    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>(?:one|two)<', drawn(draw))
    assert len(set(found)) == 2
    assert all(0 <= float(x) <= WIDTH for x, _ in found)
