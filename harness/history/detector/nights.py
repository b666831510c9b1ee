"""Nights of a series: usable numbers on the scale on which they are compared, and when a night is missing; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np

from harness.analysis.stats import Floats
from harness.history.series import Point, Series
from harness.metrics import METRICS
from harness.scenario.margins import Scale, scale_of

DAY_S = 86_400.0
_LARGEST = 1e100


class Schedule(Protocol):
    """When nights are due; the settings of a store have one."""

    @property
    def every_s(self) -> float:
        """Usual time between two nights, in seconds."""

    def missing(self, last: datetime, now: datetime) -> list[datetime]:
        """Return when nights were due after the last one that are missing now, oldest first."""


@dataclass(frozen=True, slots=True)
class Every:
    """Schedule of a fixed distance: a night is missing `grace_s` after it was due."""

    every_s: float = DAY_S
    grace_s: float = DAY_S / 2

    def missing(self, last: datetime, now: datetime) -> list[datetime]:
        """Return when nights were due after the last one that are missing now, oldest first."""
        late_s = (now - last).total_seconds() - self.grace_s
        return [last + timedelta(seconds=n * self.every_s) for n in range(1, int(max(0.0, late_s) // self.every_s) + 1)]


NIGHTLY = Every()


@dataclass(frozen=True, slots=True)
class Nights:
    """Usable nights of a series, oldest first.

    Attributes:
        values: One number a night, the median of its runs: logarithms for ratios.
        places: Index of the first point of each night in the series.
        resets: Nights from which on earlier ones are no measure.
        last: All numbers of the last night, on the same scale.
        left_out: Points without a number, or whose data is poor, after the last usable night.
    """

    scale: Scale
    values: Floats
    places: Sequence[int]
    resets: Sequence[int]
    last: Floats
    left_out: int = 0

    @property
    def start(self) -> int:
        """First night that is a measure for the last one."""
        return self.resets[-1] if self.resets else 0


def series_scale(series: Series) -> Scale:
    """Return how numbers of a series compare: shares, and numbers that reach zero, by their difference."""
    metric = METRICS.get(series.key.metric)
    share = metric is not None and scale_of(metric) is Scale.DIFFERENCE
    return (
        Scale.DIFFERENCE if share or any(point.value <= 0 for point in series.points if usable(point)) else Scale.RATIO
    )


def usable(point: Point) -> bool:
    """Return whether a point may be judged: it has a number whose square is one, too, and its data is not poor."""
    return abs(point.value) < _LARGEST and not point.doubt


def nights_of(series: Series, schedule: Schedule = NIGHTLY) -> Nights:
    """Return the nights of a series; runs within half of the usual time between nights are one night."""
    scale, points = series_scale(series), series.points
    resets = set(series.resets)
    groups: list[list[int]] = []
    starts: list[int] = []
    reset = False
    for place, point in enumerate(points):
        reset = reset or place in resets
        if not usable(point):
            continue
        same = groups and not reset and _same_night(points[groups[-1][0]], point, schedule)
        if same:
            groups[-1].append(place)
        else:
            if reset and groups:
                starts.append(len(groups))
            groups.append([place])
        reset = False
    numbers = np.array([point.value for point in points], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = np.log(numbers) if scale is Scale.RATIO else numbers
    values = np.array([numbers[group[0]] if len(group) == 1 else np.median(numbers[group]) for group in groups])
    return Nights(
        scale,
        values.astype(np.float64),
        [group[0] for group in groups],
        starts,
        numbers[groups[-1]] if groups else values.astype(np.float64),
        len(points) - 1 - groups[-1][-1] if groups else len(points),
    )


def _same_night(one: Point, other: Point, schedule: Schedule) -> bool:
    return (other.at - one.at).total_seconds() < schedule.every_s / 2
