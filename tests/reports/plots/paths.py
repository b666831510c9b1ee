"""Where the paths of a picture go."""

from __future__ import annotations

import re

NUMBER = r"-?\d+(?:\.\d+)?"
Spot = tuple[float, float]


def corners(path: str) -> list[Spot]:
    """Every point of a path of straight lines; a dot is one."""
    found: list[Spot] = []
    for sign, first, second in re.findall(rf"([MLHVh])({NUMBER})(?: ({NUMBER}))?", path):
        if sign in "ML":
            found.append((float(first), float(second)))
        elif sign in "HV":
            x, y = found[-1]
            found.append((float(first), y) if sign == "H" else (x, float(first)))
    return found
