"""Pictures hold what they are told, as small and well-formed SVG that stays within itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import combinations
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from reports.plots import marks, scales
from reports.plots.drawing import HEIGHT, LEFT, RIGHT, WIDTH, Panel, Plot, picture
from reports.plots.marks import COLOURS
from tests.reports.plots.paths import corners

pytestmark = pytest.mark.slow

RED = "#ff0000"


TEN = scales.between(0, 10)
EDGES = (LEFT, WIDTH - RIGHT)


def drawn(draw: Callable[[Axes], None], name: str = "one") -> str:
    """One picture with these marks over 0 to 10."""
    return picture(name, [Panel("", TEN, draw)], TEN, "")


def foot(svg: str) -> float:
    """The lower end of the axes."""
    return max(y for path in re.findall(r'd="(M[^"]*)"', svg) for _, y in corners(path))


def paths(svg: str) -> list[str]:
    """The red ones."""
    return [path for path, style in re.findall(r'<path d="([^"]*)"[^>]* style="([^"]*)"', svg) if RED in style]


def test_a_line_breaks_where_nothing_is_known() -> None:
    """NaN parts it; a value alone is a dot; what lies beyond is drawn at the edge."""
    svg = drawn(lambda axes: marks.line(axes, [0, 1, 2, 3, 4, 20], [0, 5, math.nan, 2, math.nan, 20], RED))
    (path,) = paths(svg)
    assert [part.count("L") for part in path.split("M")[1:]] == [1, 0, 0]
    assert path.count("h0") == 2
    right, top = corners(path)[-1]
    assert (right, top) == (EDGES[1], pytest.approx(foot(svg) - HEIGHT, abs=0.11))


@pytest.mark.parametrize(
    "words",
    [
        'M 1.25 2.25 L 1.25 2.25" d="M 3.14159 2.71828" x="1.2345" style="a: b; stroke-linecap: square"',
        '<g/> <g id="q"> <!-- c --> <metadata>m</metadata> <text style="font: 8px">',
        'fill="#010203" xlink:href \\1 &amp; 千问 \u05d0 tip:x',
    ],
)
def test_words_stay_as_they_are(words: str) -> None:
    """However much they look like parts of a picture, in whatever script: names are those of others."""

    def draw(axes: Axes) -> None:
        marks.key(axes, words, RED, "o")
        marks.Labels(axes, [9], [1]).put(9, 1, words[:20])
        marks.estimate(axes, 1, 1, RED, tip=words)

    plot = Plot("one", "", drawn(draw))
    for svg in (plot.svg, plot.inline(), plot.standalone().split("\n", 1)[1]):
        elements = list(ET.fromstring(svg).iter())
        assert [element.text for element in elements if element.tag.endswith("text")].count(words) == 1
        assert words[:20] in [element.text for element in elements if element.tag.endswith("text")]
        assert words in [element.text for element in elements if element.tag.endswith("title")]


def test_intervals_end_at_the_axes() -> None:
    """However wide, and below zero; the sign stays where its value is."""

    def draw(axes: Axes) -> None:
        marks.estimate(axes, 5.0, 5.0, RED, beside=(-40.0, 400.0), above=(4.0, 99.0), tip="5 [4, 99]")

    svg = drawn(draw)
    beside, above = (corners(path) for path in paths(svg))
    assert [x for x, _ in beside] == list(EDGES)
    assert [foot(svg) - y for _, y in above] == pytest.approx([0.4 * HEIGHT, HEIGHT], abs=0.2)
    assert "<title>5 [4, 99]</title>" in svg


def test_an_open_end_has_no_bar() -> None:
    """Nothing is drawn towards what is unknown; the sign is hollow where asked for, and can be pointed at."""
    svg = drawn(lambda axes: marks.estimate(axes, 5, 5, RED, filled=False, above=(4.0, math.nan), tip="about"))
    assert [len(corners(path)) for path in paths(svg)] == [2]
    assert re.search(r'<g pointer-events="all"><title>about</title>.*fill:none', svg)


def test_what_xml_cannot_hold_is_replaced() -> None:
    """A control character in a name leaves the picture well-formed."""
    svg = drawn(lambda axes: marks.key(axes, "a\x1b\ufffeb", RED, "o"))
    assert "a\ufffd\ufffdb" in [element.text for element in ET.fromstring(svg).iter()]


def test_an_empty_line_is_none() -> None:
    """It has no entry in the legend either."""

    def draw(axes: Axes) -> None:
        marks.line(axes, [], [], RED, words="nothing")
        marks.line(axes, [1, 2], [math.nan, math.nan], RED, words="nothing", steps="post")

    svg = drawn(draw)
    assert not paths(svg)
    assert "nothing" not in svg


def test_steps_hold_until_the_next() -> None:
    """Level first, then up or down."""
    svg = drawn(lambda axes: marks.line(axes, [0, 2, 4], [1, 3, 3], RED, steps="post"))
    (path,) = paths(svg)
    assert path.count("H") + path.count("V") == 4
    assert "L" not in path
    assert [path.index("H") < path.index("V"), path.count("M")] == [True, 1]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(-5, 15), st.floats(-5, 15) | st.just(math.nan)), min_size=1, max_size=40))
def test_nothing_leaves_the_axes(points: list[tuple[float, float]]) -> None:
    """Whatever the values, every coordinate lies within, to a tenth."""
    x, y = np.array(points).reshape(-1, 2).T

    def draw(axes: Axes) -> None:
        marks.line(axes, x, y, RED)
        marks.dots(axes, x, y, RED)
        marks.band(axes, np.sort(x), y, y + 3, RED)

    svg = drawn(draw)
    for path in paths(svg):
        assert not re.search(r"\.\d\d|e-|nan|inf", path)
        for across, up in corners(path):
            assert EDGES[0] - 0.1 <= across <= EDGES[1] + 0.1
            assert foot(svg) - HEIGHT - 0.2 <= up <= foot(svg)


def test_words_are_text() -> None:
    """Markup and formulas in a name are shown, and a picture is one well-formed document."""
    hostile = '<script>"& $\\frac{1}{2}$'

    def draw(axes: Axes) -> None:
        marks.line(axes, [0, 1], [0, 1], COLOURS[0], words=hostile)
        marks.line(axes, [0, 1], [1, 0], COLOURS[1], words="other")
        marks.Labels(axes, [1.0], [5.0]).put(1.0, 5.0, hostile, bold=True)

    one = picture("one", [Panel("", TEN, draw)], TEN, hostile)
    several = picture("two", [Panel(hostile, TEN, draw)] * 2, TEN, hostile)
    for svg in (one, several):
        tree = ET.fromstring(svg)
        assert not [element for element in tree.iter() if element.tag.endswith("script")]
        assert sum((element.text or "") == hostile for element in tree.iter()) >= 3


def test_a_file_can_be_read_on_light_and_dark_pages() -> None:
    """It has a ground, and its text colour and ground follow what the reader prefers; it has a title and a label."""
    plot = Plot("one", "Of 3 < 4 loads.", drawn(lambda axes: marks.key(axes, "a", RED)), "Title & so on", "How to.")
    tree = ET.fromstring(plot.standalone().split("\n", 1)[1])
    texts = {element.tag.rpartition("}")[2]: element.text for element in tree}
    assert (texts["title"], texts["desc"]) == ("Title & so on", "How to.")
    assert tree.attrib["aria-label"] == "Of 3 < 4 loads."
    assert tree.attrib["fill"] == "currentColor"
    assert "prefers-color-scheme:dark" in (texts["style"] or "")
    assert "<style" not in plot.inline()


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


def words_of(svg: str) -> list[tuple[float, float, float, str]]:
    """Left and right end, baseline and letters of each text that is not turned."""
    found = []
    for element in ET.fromstring(svg).iter():
        if element.tag.endswith("text"):
            x, y, width = float(element.attrib["x"]), float(element.attrib["y"]), marks.width_of(element.text or "")
            anchor = re.search(r"text-anchor:(\w+)", element.attrib.get("style", ""))
            left = x - {"middle": width / 2, "end": width}.get(anchor[1] if anchor else "", 0.0)
            found.append((left, left + width, y, element.text or ""))
    return found


@pytest.mark.parametrize("count", [1, 2, 5, 12])
@pytest.mark.parametrize("letters", [2, 12, 40])
def test_no_name_is_cut_off_or_covered(count: int, letters: int) -> None:
    """Legends and titles lie within the picture, above their axes, and keep off each other."""

    def draw(axes: Axes) -> None:
        for number in range(count):
            marks.line(axes, [0, 1], [0, number], RED, words=f"{number}".rjust(letters, "y"))

    svg = picture("one", [Panel("TTFT p95, ms", TEN, draw)] * 2, TEN, "time, s", notes="grey: warm-up; " * 9)
    height = float(re.findall(r'height="([\d.]+)"', svg)[0])
    texts = words_of(svg)
    assert sum(words.endswith("0") and len(words) == max(letters, 1) for *_, words in texts) >= 2
    for left, right, y, _ in texts:
        assert left >= 0
        assert right <= WIDTH + 0.5
        assert marks.FONT - 1 <= y <= height - 3
    for (left, right, y, _), (other_left, other_right, other_y, _) in combinations(texts, 2):
        assert right <= other_left + 1 or other_right <= left + 1 or abs(y - other_y) >= marks.FONT - 1


def test_labels_keep_off_each_other() -> None:
    """Points close together have their names at different sides; where there is no room, there is no name."""

    def draw(axes: Axes) -> None:
        labels = marks.Labels(axes, [5.0, 5.05], [5.0, 5.0])
        for x in (5.0, 5.05):
            for name in "abcdefgh":
                labels.put(x, 5.0, f"label {name}")

    texts = [one for one in words_of(drawn(draw)) if one[3].startswith("label")]
    assert 4 <= len(texts) < 16
    assert len({(left, y) for left, _, y, _ in texts}) == len(texts)


def test_the_front_holds_what_nothing_beats() -> None:
    """Known answers: more of both is better; equals are one."""
    assert marks.front([(1, 3), (2, 2), (3, 1), (1, 1), (2, 1.5), (2, 2)]) == [(1, 3), (2, 2), (3, 1)]
    assert marks.front([(1, 1), (2, 2)]) == [(2, 2)]


def test_curves_stay_apart_after_all_colours() -> None:
    """Thirty-two looks differ; the first eight have colours of their own."""
    looks = [marks.look(number) for number in range(32)]
    assert len({(colour, str(dash)) for colour, dash in looks}) == 32
    assert len({colour for colour, _ in looks[:8]}) == 8
