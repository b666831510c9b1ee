"""Axes draw what they are told, as small and well-formed SVG."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reports import scales
from reports.axes import Axes, Key, key_lines
from reports.drawing import Labels, Panel, picture, stacked
from reports.palette import COLOURS, INK


def axes() -> Axes:
    """A square of 100 units over 0 to 10."""
    return Axes((0.0, 0.0, 100.0, 100.0), scales.linear(0, 10), scales.linear(0, 10))


def paths(drawn: Axes) -> list[str]:
    """What was drawn into them."""
    return [found for part in drawn.parts for found in re.findall(r' d="([^"]*)"', part)]


def test_a_line_breaks_where_nothing_is_known() -> None:
    """NaN parts it; a value alone is a dot; what lies beyond is drawn at the edge."""
    drawn = axes()
    drawn.line([0, 1, 2, 3, 4, 20], [0, 5, math.nan, 2, math.nan, 20], "red")
    assert paths(drawn) == ["M0 100l10-50M30 80h0M100 0h0"]


def test_an_empty_line_is_none() -> None:
    """It has no entry in the legend either; zero lies at the end of a logarithmic scale."""
    drawn = axes()
    drawn.line([], [], "red", words="nothing")
    drawn.steps([1, 2], [math.nan, math.nan], "red", words="nothing")
    assert not drawn.keys
    assert not drawn.parts
    assert scales.logarithmic(1, 10).at([0.0])[0] == 0


def test_steps_hold_until_the_next() -> None:
    """Level first, then up or down; equal neighbours are one level line."""
    drawn = axes()
    drawn.steps([0, 2, 4, 6], [1, 1, 3, 3], "red")
    assert paths(drawn) == ["M0 90h40v-20h20"]


def test_a_band_goes_there_and_back() -> None:
    """Where both of its ends are known."""
    drawn = axes()
    drawn.band([0, 1, 2], [1, 1, math.nan], [2, 3, 4], "red")
    assert paths(drawn) == ["M0 90l10 0 0-20-10 10z"]


@given(st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15) | st.just(math.nan)), max_size=40))
def test_nothing_leaves_the_box(points: list[tuple[float, float]]) -> None:
    """Whatever the values, every coordinate lies in it, to a tenth."""
    drawn = axes()
    x, y = np.array(points).reshape(-1, 2).T
    drawn.line(x, y, "red")
    drawn.steps(x, y, "red")
    for path in paths(drawn):
        assert not re.search(r"\.\d\d|e-|nan|inf", path)
        for spot in ends(path):
            assert all(-1e-6 <= value <= 100 + 1e-6 for value in spot)


def ends(path: str) -> list[tuple[float, float]]:
    """Every spot that a path goes to."""
    x = y = 0.0
    found = []
    for command, numbers in re.findall(r"([Mlhv])([^Mlhv]*)", path):
        values = [float(value) for value in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", numbers)]
        if command == "M":
            x, y = values
            found.append((x, y))
            continue
        pairs = zip(values[::2], values[1::2], strict=True) if command == "l" else [(values[0], 0.0)]
        for across, up in pairs if command != "v" else [(0.0, values[0])]:
            x, y = x + across, y + up
            found.append((x, y))
    return found


def test_words_are_text() -> None:
    """Markup in a name is shown, and a picture is one well-formed document whose ink can follow the page."""
    hostile = '<script>"&'

    def draw(drawn: Axes) -> None:
        drawn.line([0, 1], [0, 1], COLOURS[0], words=hostile)
        drawn.line([0, 1], [1, 0], COLOURS[1], words="other")
        drawn.text(5, 5, hostile)

    one = picture(scales.linear(0, 1), scales.linear(0, 1), draw, (hostile, hostile))
    several = stacked(scales.linear(0, 1), [Panel(hostile, scales.linear(0, 1), draw)] * 2, hostile, lambda drawn: None)
    for svg in (one, several):
        tree = ET.fromstring(svg)
        assert not [element for element in tree.iter() if element.tag.endswith("script")]
        assert sum((element.text or "") == hostile for element in tree.iter()) >= 3
        assert INK in svg


def test_a_legend_takes_as_few_lines_as_hold_it() -> None:
    """Short names share a line, a long one has its own."""
    keys = [Key(words, "red") for words in ("a", "b", "c" * 80, "d")]
    assert [[key.words for key in line] for line in key_lines(keys, 540)] == [["a", "b"], ["c" * 80], ["d"]]


def test_labels_keep_off_each_other() -> None:
    """Points close together have their names at different sides."""
    drawn = axes()
    labels = Labels(drawn, [(50, 50), (52, 50)])
    labels.put(50, 50, "one")
    labels.put(52, 50, "two")
    spots = re.findall(r'x="([\d.]+)" y="([\d.]+)"', "".join(drawn.parts))
    assert len(set(spots)) == 2
