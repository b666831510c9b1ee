"""A board as plain data, which pages show and `--json` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from harness.comparison.change import Change
from harness.history.board import Alert, Board, identity
from harness.history.detector.states import Judged, State
from harness.history.detector.steps import BOTH_ENDS, Shape, Step
from harness.history.names import short_names
from harness.history.series import Point
from harness.metrics import METRICS
from harness.scenario.margins import Scale


def board_tables(board: Board, *, points: bool = True, report: str | None = None) -> dict[str, Any]:
    """Return {made, series, alerts}, as `reports.board.Board` describes them. Unknown numbers are None.

    Args:
        points: Whether each series has its nights.
        report: Address of the page of a run, with `{run}` for its name.
    """
    names = short_names([one.series.key for one in board.series])
    confirmed = {(alert.since, one): alert.confirmed for alert in board.alerts for one in alert.series}
    series = [_series(one, name, confirmed, points=points) for one, name in zip(board.series, names, strict=True)]
    return {
        "made": _time(board.made),
        "series": [one | {"report": report} for one in series],
        "alerts": [_alert(one) for one in board.alerts],
    }


Confirmed = Mapping[tuple[datetime, str], bool | None]
"""What the pairs said of an alert, by its first night and a series."""


def _series(one: Judged, name: str, confirmed: Confirmed, *, points: bool) -> dict[str, Any]:
    key, noise = one.series.key, one.course.noise
    return {
        "id": identity(key),
        "name": name,
        "key": asdict(key),
        "unit": METRICS[key.metric].unit if key.metric in METRICS else "",
        "better": one.series.better,
        "scale": _scale(one.course.nights.scale),
        "control": one.series.control,
        "state": one.state.value,
        "why": one.why,
        "noise": one.noise.value,
        "spread": _number(noise.sigma),
        "autocorrelation": _number(noise.correlation),
        "wants_run": one.wants_run,
        "points": [_point(point) for point in one.series.points] if points else [],
        "changes": [_change(one, step, confirmed) for step in _shown(one)],
        "events": [{"at": _time(event.at), "kind": event.kind, "text": event.text} for event in one.series.events],
    }


def _shown(one: Judged) -> list[Step]:
    """Return the changes of a series that a page marks: told steps, and a creeping change."""
    creep = [one.course.creep] if one.course.creep is not None else []
    return [*one.course.told, *creep]


def _point(point: Point) -> dict[str, Any]:
    return {
        "at": _time(point.at),
        "label": label_of(point),
        "value": _number(point.value),
        "low": _number(point.low),
        "high": _number(point.high),
        "run": point.run,
        "doubt": point.doubt,
    }


def label_of(point: Point) -> str:
    """Return the version of a night: its commit, else its first label."""
    return point.labels.get("commit") or next(iter(point.labels.values()), "")


def _change(one: Judged, step: Step, confirmed: Confirmed) -> dict[str, Any]:
    at = one.series.points[one.course.nights.places[step.night]].at
    found = next((each for each in one.findings if each.step is step), None)
    worse = (step.change.at > 0) == (one.series.better == "lower")
    state = found.state if found is not None else State.REGRESSED if worse else State.IMPROVED
    return {
        "at": _time(at),
        **_sizes(step.change),
        "p": _number(step.p),
        "creep": step.shape is Shape.CREEP,
        "state": state.value,
        "confirmed": confirmed.get((at, identity(one.series.key))),
    }


def _alert(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.identity,
        "state": alert.state.value,
        "shape": alert.shape,
        "title": alert.title,
        "since": _time(alert.since),
        "between": [_time(at) for at in alert.between],
        **(_sizes(alert.change) if alert.change is not None else dict.fromkeys(("change", "low", "high"))),
        "scale": _scale(alert.change.scale) if alert.change is not None else "ratio",
        "series": [*alert.series],
        "lead": alert.lead,
        "suspects": [*alert.suspects[0][1:]] if alert.suspects else [],
        "labels": [{"label": name, "before": before, "after": after} for name, before, after in alert.suspects],
        "cause": alert.cause,
        "confirmed": alert.confirmed,
        "told": alert.told,
        "fails": alert.fails,
    }


def _sizes(change: Change) -> dict[str, float | None]:
    low, high = change.interval(BOTH_ENDS)
    return {"change": _number(change.value), "low": _number(low), "high": _number(high)}


def _scale(scale: Scale) -> str:
    return "points" if scale is Scale.DIFFERENCE else "ratio"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _time(at: datetime) -> str:
    return at.isoformat()
