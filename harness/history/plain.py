"""Series as plain data, which the command shows and `--json` prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from statistics import median
from typing import Any

from harness.history.names import name_of, shared, short_names
from harness.history.series import Event, Point, Series
from harness.history.store.events import NOTE
from harness.history.store.notes import key_facts
from harness.metrics import METRICS
from harness.scenario.margins import Scale, scale_of

FORMAT = 1
WINDOW = 7
"""Nights before one whose median it is compared with."""
LEAST_BEFORE = 3
_HASH = 40


def overview(series: Sequence[Series], places: Sequence[int]) -> dict[str, Any]:
    """Return {format, shared, series}: those at some places, each with number, name, key, nights, ends and values.

    `shared` has the words that all names have in common; `short` of a series is without them.
    """
    keys = [series[place].key for place in places]
    names = short_names(keys)
    each = [
        {"number": place + 1, "short": name, **_about(series[place]), **_ends(series[place])}
        for place, name in zip(places, names, strict=True)
    ]
    return {"format": FORMAT, "shared": shared(keys), "series": each}


def nights(one: Series, number: int, release: str, last: int | None = None) -> dict[str, Any]:
    """Return one series with its points, oldest first; only the `last` ones, if that is given.

    `change` of a point is against the median of up to WINDOW nights before it since the last reset: a ratio or a
    difference, as `scale` says; None with fewer than LEAST_BEFORE of them.
    """
    marks = _marks(one)
    places = range(len(one.points))[-last if last else 0 :]
    points = [_point(one, place, marks[place], release) for place in places]
    return {"format": FORMAT, "number": number, **_about(one), **_ends(one), "points": points}


def _about(one: Series) -> dict[str, Any]:
    metric = METRICS.get(one.key.metric)
    return {
        "name": name_of(one.key),
        "key": key_facts(one.key),
        "unit": "" if metric is None else metric.unit,
        "show": "number" if metric is None else metric.show,
        "scale": _scale(one).value,
        "better": one.better,
        "control": one.control,
    }


def _ends(one: Series) -> dict[str, Any]:
    last = one.points[-1]
    return {
        "nights": len({point.at.date() for point in one.points}),
        "runs": len(one.points),
        "first": _time(one.points[0].at),
        "last": _time(last.at),
        "value": _known(last.value),
        "values": [_known(point.value) for point in one.points[-30:]],
    }


def _point(one: Series, place: int, marks: Sequence[Event], release: str) -> dict[str, Any]:
    point = one.points[place]
    return {
        "at": _time(point.at),
        "label": label_of(point, release),
        "labels": dict(point.labels),
        "value": _known(point.value),
        "low": _known(point.low),
        "high": _known(point.high),
        "starts": point.starts,
        "change": _change(one, place),
        "run": point.run,
        "doubt": point.doubt,
        "reset": place in one.resets,
        "events": [{"kind": event.kind, "text": event.text} for event in marks],
    }


def label_of(point: Point, release: str) -> str:
    """Return the labels of a run in a few words: its release, its commit, or all."""
    named = [point.labels[key] for key in dict.fromkeys((release, "commit")) if point.labels.get(key)]
    short = [text[:10] if len(text) == _HASH else text for text in named]
    return " ".join(short) or " ".join(f"{key}={value}" for key, value in point.labels.items())


def _change(one: Series, place: int) -> float | None:
    begin = max([0, *(reset for reset in one.resets if reset <= place)])
    known = [point.value for point in one.points[begin:place] if math.isfinite(point.value)][-WINDOW:]
    value = one.points[place].value
    if len(known) < LEAST_BEFORE or not math.isfinite(value):
        return None
    usual = median(known)
    if _scale(one) is Scale.DIFFERENCE:
        return value - usual
    return value / usual if usual > 0 else None


def _marks(one: Series) -> list[list[Event]]:
    """Return the events of each point: those since the one before it. Later ones than all points are left out."""
    found: list[list[Event]] = [[] for _ in one.points]
    for event in one.events:
        place = next((number for number, point in enumerate(one.points) if point.at >= event.at), None)
        if place is not None:
            found[place].append(event)
        elif event.kind == NOTE and one.points[-1].at.date() == event.at.date():
            found[-1].append(event)
    return found


def _scale(one: Series) -> Scale:
    metric = METRICS.get(one.key.metric)
    return Scale.RATIO if metric is None else scale_of(metric)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
