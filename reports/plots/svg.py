"""SVG of matplotlib in a third of its bytes, without styles and names that reach beyond the picture in a page."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

from reports.format import for_xml
from reports.plots.marks import FONT, INK, TIP

SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_LOOK = {"fill": "currentColor", "font-family": "system-ui, sans-serif", "font-size": f"{FONT:g}"}
_LOOK |= dict.fromkeys(("stroke-linejoin", "stroke-linecap"), "round")
_LINE = re.compile(r"M \S+ \S+(?: L \S+ \S+)+")
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-\d+)?")
_USUAL = re.compile(
    r"(?:; )?stroke-(?:dashoffset: 0|linejoin: miter|linecap: \w+)(?=;|$)"
    r"|fill: currentColor(?:; |$)|font(?:-family|-size)?: (?:[\d.]+px|'[^;]*|sans-serif)(?:; |$)"
)


def slim(svg: str) -> str:
    """Return the picture: INK is the text colour of its surroundings, coordinates are rounded to a tenth.

    A group named TIP and a text gets that text as its title, which browsers show under the pointer.
    """
    ET.register_namespace("", SVG)
    ET.register_namespace("xlink", LINK)
    root = ET.fromstring(for_xml(svg))
    for part in [part for part in root if part.tag == f"{{{SVG}}}metadata" or _styles(part)]:
        root.remove(part)
    _flatten(root)
    for element in root.iter():
        _shorten(element)
    size = {name: root.attrib[name].removesuffix("pt") for name in ("width", "height")}
    root.attrib = {**size, "viewBox": root.attrib["viewBox"], **_LOOK}
    return ET.tostring(root, encoding="unicode").replace(" />", "/>")


def _styles(part: ET.Element) -> bool:
    """Return whether a part holds styles of the page, or clips, which cut nothing off here."""
    return part.tag == f"{{{SVG}}}defs" and all(child.tag[-5:] in ("style", "pPath") for child in part)


def _flatten(element: ET.Element) -> None:
    """Replace groups that do nothing by their content."""
    children = []
    for child in element:
        _flatten(child)
        if child.tag == f"{{{SVG}}}g":
            name = child.attrib.pop("id", "")
            if name.startswith(TIP):
                title = ET.Element(f"{{{SVG}}}title")
                title.text = name.removeprefix(TIP)
                child.insert(0, title)
                child.attrib["pointer-events"] = "all"  # hollow marks are pointed at, too
                children.append(child)
                continue
        child.attrib.pop("clip-path", None)
        children += [child] if child.attrib or child.tag != f"{{{SVG}}}g" else list(child)
    element[:] = children


def _shorten(element: ET.Element) -> None:
    """Shorten paths, coordinates and styles, and drop the spaces between elements."""
    element.tail = None
    if element.tag not in (f"{{{SVG}}}text", f"{{{SVG}}}title"):
        element.text = None
    look = element.attrib
    if "d" in look:
        look["d"] = _path(look["d"])
    for name in ("x", "y", "transform"):
        if name in look:
            look[name] = _rounded(look[name])
    if look.get("transform", "").startswith("rotate(-0 "):
        del look["transform"]
    if "style" in look:
        style = _USUAL.sub("", look.pop("style").replace(INK, "currentColor")).strip("; ")
        look |= {"style": style.replace(": ", ":").replace("; ", ";")} if style else {}


def _path(path: str) -> str:
    path = " ".join(_rounded(path).split())
    path = re.sub(r"M (\S+ \S+) L \1(?= M|$)|M (\S+ \S+)(?= M|$)", r"M \1\2 h0", path)  # a dot, a value alone
    path = _LINE.sub(_straight, path)
    return re.sub(r" ?([MLCQHVhz]) ?", r"\1", path)


def _straight(found: re.Match[str]) -> str:
    """Return lines from corner to corner, those along an axis by their one coordinate."""
    corners = [corner.split() for corner in found[0][2:].split(" L ")]
    steps = [
        f"V {y}" if x == before[0] else f"H {x}" if y == before[1] else f"L {x} {y}"
        for before, (x, y) in pairwise(corners)
    ]
    return " ".join([f"M {' '.join(corners[0])}", *steps])


def _rounded(text: str) -> str:
    return _NUMBER.sub(lambda number: f"{round(float(number[0]), 1):g}", text)
