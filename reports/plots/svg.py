"""SVG of matplotlib in a third of its bytes, without styles and names that reach beyond the picture in a page.

Texts are left as they are; `<` and `>` are escaped in them, so the pattern of a tag matches tags only.
"""

from __future__ import annotations

import re

FONT_FAMILY = "system-ui, sans-serif"
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-\d+)?")
_SPACES = re.compile(r"\s+")
_TAG = re.compile(r"<[^>]*>")


def slim(svg: str, ink: str, size: float) -> str:
    """Return the picture without metadata, comments, page-wide styles and names; coordinates to a tenth.

    Args:
        ink: Colour of texts.
        size: Default size of their font.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg)[^>]* width="([\d.]+)pt" height="([\d.]+)pt"([^>]*) version="1.1"', _head, svg, count=1)
    svg = _without_empty_groups(re.sub(r'(<g) id="[^"]*"', r"\1", svg).replace("<g/>", ""))
    svg = re.sub(r'<text style="([^"]*)"([^>]*)>', lambda found: _text(found, ink, size), svg)
    svg = _TAG.sub(lambda found: _tag(found[0]), svg)
    look = f'fill="{ink}" font-family="{FONT_FAMILY}" font-size="{size:g}" stroke-linejoin="round"'
    svg = re.sub(r"(<svg[^>]*>)(.*)</svg>", rf"\1<g {look}>\2</g></svg>", svg, count=1, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", svg)


def _head(found: re.Match[str]) -> str:
    spaces = 'xmlns="http://www.w3.org/2000/svg"'
    spaces += ' xmlns:xlink="http://www.w3.org/1999/xlink"' if "xlink:href" in found.string else ""
    box = re.search(r'viewBox="[^"]*"', found[4])
    return f'{found[1]} {spaces} width="{found[2]}" height="{found[3]}" {box[0] if box else ""}'


def _without_empty_groups(svg: str) -> str:
    """Return the SVG without groups that have no attributes."""
    kept: list[bool] = []

    def one(found: re.Match[str]) -> str:
        if found[0] == "</g>":
            return "</g>" if kept.pop() else ""
        kept.append(found[0] != "<g>")
        return found[0] if kept[-1] else ""

    return re.sub(r"<g\b[^>]*>|</g>", one, svg)


def _text(found: re.Match[str], ink: str, size: float) -> str:
    """Return a text with attributes that differ from the defaults; its "font: bold 11px Sans" may be in parts."""
    style, rest = found.groups()
    look = dict(part.split(": ", 1) for part in style.split("; "))
    font = look.get("font", "")
    pixels = re.search(r"([\d.]+)px", look.get("font-size", font))
    anchor, colour = look.get("text-anchor", "start"), look.get("fill", "")
    unusual = "" if anchor == "start" else f' text-anchor="{anchor}"'
    unusual += f' fill="{colour}"' if colour not in ("", ink) else ""
    unusual += ' font-weight="650"' if re.search(r"\b(?:bold|700)\b", f"{font} {look.get('font-weight', '')}") else ""
    unusual += f' font-size="{float(pixels[1]):g}"' if pixels and float(pixels[1]) != size else ""
    rest = re.sub(r' transform="rotate\(-0 [^"]*"', "", rest)
    rest = re.sub(r' transform="([^"]*)"', lambda turn: f' transform="{_rounded(turn[1])}"', rest)
    return f"<text{rest}{unusual}>"


def _tag(tag: str) -> str:
    """Return a tag with shorter paths, coordinates and styles."""
    tag = re.sub(r' d="([^"]*)"', lambda found: f' d="{_path(found[1])}"', tag)
    tag = re.sub(r' (x|y)="([^"]*)"', lambda found: f' {found[1]}="{_rounded(found[2])}"', tag)
    return re.sub(r'style="([^"]*)"', lambda found: f'style="{_style(found[1])}"', tag)


def _path(path: str) -> str:
    path = _SPACES.sub(" ", _rounded(path)).strip()
    path = re.sub(r"M (\S+ \S+) L \1(?= M|$)", r"M \1 h0", path)  # a dot
    path = re.sub(r"M (\S+ \S+)(?= M|$)", r"M \1 h0", path)  # a value alone
    path = re.sub(r"(?<=[\d.]) L (?=\S+ \S+)", "L", path)
    return re.sub(r" ?([MLCQHVhz]) ?", r"\1", path)


def _style(style: str) -> str:
    style = style.replace("; stroke-dashoffset: 0", "").replace("stroke-linejoin: miter; ", "")
    return style.replace("; stroke-linecap: square", "").replace(": ", ":").replace("; ", ";")


def _rounded(text: str) -> str:
    return _NUMBER.sub(lambda number: f"{round(float(number[0]), 1):g}", text)
