"""Nights of a series: usable numbers on the scale on which they are compared, and when a night is missing; pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
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

    @property
    def grace_s(self) -> float:
        """Time after which a night that is due is missing, in seconds."""

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
class Calendar:
    """Times at which anything was measured, each with the number of its night.

    Attributes:
        at_s: Times in seconds, oldest first.
        numbers: Number of the night at each time; days without a night that is due do not count.
        every_s: Usual time between two nights, in seconds.
    """

    at_s: Sequence[float]
    numbers: Sequence[float]
    every_s: float

    @classmethod
    def of(cls, series: Iterable[Series], schedule: Schedule) -> Calendar:
        """Return the calendar of some series."""
        times = sorted({point.at for one in series for point in one.points})
        steps = (_nights_between(*both, schedule) for both in pairwise(times))
        return cls([one.timestamp() for one in times], list(accumulate(steps, initial=0.0)), schedule.every_s)

    def number(self, at: datetime) -> float:
        """Return the number of the night at a time; between two nights a part."""
        at_s = at.timestamp()
        after = bisect_right(self.at_s, at_s)
        if not after:
            return (at_s - self.at_s[0]) / self.every_s if self.at_s else at_s / self.every_s
        begin_s, number = self.at_s[after - 1], self.numbers[after - 1]
        if after == len(self.at_s):
            return number + (at_s - begin_s) / self.every_s
        return number + (self.numbers[after] - number) * (at_s - begin_s) / (self.at_s[after] - begin_s)


def _nights_between(one: datetime, other: datetime, schedule: Schedule) -> float:
    """Return how many nights lie between two neighbouring times: by the clock, but no more than were due."""
    every = timedelta(seconds=schedule.every_s)
    nights = (other - one) / every
    if nights <= 1:
        return nights
    due = schedule.missing(one, other - every / 2 + timedelta(seconds=schedule.grace_s))
    return min(nights, 1.0 + len(due))


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
