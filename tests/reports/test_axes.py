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
    assert paths(drawn) == ["M0 100L10 50M30 80h0M100 0h0"]


def test_steps_hold_until_the_next() -> None:
    """Level first, then up or down; equal neighbours are one level line."""
    drawn = axes()
    drawn.steps([0, 2, 4, 6], [1, 1, 3, 3], "red")
    assert paths(drawn) == ["M0 90H40V70H60"]


def test_a_band_goes_there_and_back() -> None:
    """Where both of its ends are known."""
    drawn = axes()
    drawn.band([0, 1, 2], [1, 1, math.nan], [2, 3, 4], "red")
    assert paths(drawn) == ["M0 90L10 90L10 70L0 80z"]


@given(st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15) | st.just(math.nan)), max_size=40))
def test_nothing_leaves_the_box(points: list[tuple[float, float]]) -> None:
    """Whatever the values, every coordinate lies in it, to a tenth."""
    drawn = axes()
    x, y = np.array(points).reshape(-1, 2).T
    drawn.line(x, y, "red")
    drawn.steps(x, y, "red")
    numbers = [float(found) for path in paths(drawn) for found in re.findall(r"-?[\d.]+", path.replace("h0", ""))]
    assert all(0 <= number <= 100 for number in numbers)
    assert not re.search(r"\.\d\d|e-|nan|inf", "".join(paths(drawn)))


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
