"""History of nights as tables; its input is the plain data of `harness history list --json` and `show --json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from reports.comparison import change_text
from reports.format import THIN, UNKNOWN, amount, between, count
from reports.tables.base import Cell, Table

BLOCKS = "▁▂▃▄▅▆▇█"
LEAST_SPAN = 0.05
"""Part of the median that a sparkline is high at least, so that noise of a tenth of a per cent looks flat."""


def overview(data: Mapping[str, Any]) -> Table:
    """Return all series, each with the last value and a sparkline of its last nights."""
    head = ("no.", "series", "nights", "first", "last", "value", "last nights")
    rows = [
        (
            Cell(str(one["number"])),
            Cell(one["short"] + (" (control)" if one["control"] else "")),
            Cell(str(one["nights"])),
            Cell(one["first"][:10]),
            Cell(one["last"][:10]),
            Cell(value_text(one["value"], one)),
            Cell(sparkline(one["values"])),
        )
        for one in data["series"]
    ]
    return Table("", head, rows, texts=2)


def nights(data: Mapping[str, Any]) -> Table:
    """Return the nights of a series, oldest first, with the change against the median of those before."""
    head = ("date", "label", "value", "95 % interval", "change", "mark")
    rows = [
        (
            Cell(point["at"][:16].replace("T", " ")),
            Cell(point["label"]),
            Cell(value_text(point["value"], data), tone="doubtful" if point["doubt"] else ""),
            Cell(_interval(point, data)),
            Cell(change_text(point["change"], data["scale"])),
            Cell(mark(point)),
        )
        for point in data["points"]
    ]
    return Table("", head, rows, texts=2, remarks=1)


def runs_text(data: Mapping[str, Any]) -> str:
    """Return how many nights a series has, and how many runs if some nights have several."""
    nights = count(data["nights"], "night")
    return nights if data["runs"] == data["nights"] else f"{count(data['runs'], 'run')} of {nights}"


def mark(point: Mapping[str, Any]) -> str:
    """Return what is known of a night: its events, and why its data is poor."""
    events = [f"{event['kind']}: {event['text']}" for event in point["events"]]
    return "; ".join([*events, *([f"poor data: {point['doubt']}"] if point["doubt"] else [])])


def value_text(value: float | None, about: Mapping[str, Any]) -> str:
    """Return a number with its unit. about: has `unit` and `show`."""
    if value is None:
        return UNKNOWN
    unit = about["unit"]
    text = amount(value, show=about["show"])
    return f"{text}{THIN}{unit}" if unit and about["show"] not in ("share", "bytes") else text


def sparkline(values: Sequence[float | None]) -> str:
    """Return numbers as a row of blocks, unknown ones as spaces."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    least = LEAST_SPAN * abs(median(known))
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    span = high - low
    return "".join(" " if value is None else BLOCKS[_level(value, low, span)] for value in values)


def _level(value: float, low: float, span: float) -> int:
    return len(BLOCKS) // 2 if span <= 0 else min(len(BLOCKS) - 1, int((value - low) / span * len(BLOCKS)))


def _interval(point: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    if point["low"] is None or point["high"] is None:
        return UNKNOWN
    return between(point["low"], point["high"], about["show"])
